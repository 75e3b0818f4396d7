"""Successive halving (Jamieson and Talwalkar, AISTATS 2016): many candidates cheaply, the best few in full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attar.core.config import by_ipc
from attar.evaluation import Recipe, modified


@dataclass(frozen=True)
class Rung:
    """A round: so many candidates, each trained for a part of the recipe."""

    candidates: int
    divisor: int
    """Of the recipe's steps or epochs; the last rung's is 1."""


def rungs(candidates: int, eta: int) -> tuple[Rung, ...]:
    """The rounds: 1/eta of the candidates (rounded up) go on to eta times the training, until at most eta are left.

    Rounded up, so that the last rung, which is the whole recipe, compares at least two of them.
    """
    counts = [candidates]
    while counts[-1] > eta:
        counts.append(-(-counts[-1] // eta))
    return tuple(Rung(count, eta ** (len(counts) - 1 - number)) for number, count in enumerate(counts))


def best(scores: Mapping[str, float], count: int) -> tuple[str, ...]:
    """The names of the `count` highest scores, in their given order, by which ties are broken, too."""
    ranked = sorted(scores, key=lambda name: -scores[name])[:count]
    return tuple(name for name in scores if name in ranked)


def shortened(recipe: Recipe, divisor: int, ipc: int) -> Recipe:
    """The recipe with its steps or epochs divided, at least one left; its warmup gives way (`evaluator.settle`)."""
    changes: dict[str, Any] = {}
    if recipe.steps is not None:
        changes["steps"] = max(1, round(recipe.steps / divisor))
    if recipe.epochs is not None:
        changes["epochs"] = max(1, round(by_ipc(recipe.epochs, ipc, "epochs") / divisor))
    return recipe if divisor == 1 else modified(recipe, changes)


def length(recipe: Recipe, ipc: int) -> str:
    """How long the recipe trains, in words."""
    if recipe.epochs is None:
        return f"{recipe.steps} steps"
    return f"{by_ipc(recipe.epochs, ipc, 'epochs')} epochs"
