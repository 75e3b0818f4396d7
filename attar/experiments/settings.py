"""What a set is scored by, and what a tuning is asked for, in words. Loads no torch, for the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.evaluation import Recipe
from attar.evaluation.conditions import Conditions
from attar.job import Spec

FieldValues = Mapping[str, Any]
"""Fields of a method by their dotted names."""


@dataclass(frozen=True)
class Protocol:
    """What a set is scored by."""

    own: Recipe
    """The protocol that its accuracy is usually reported by."""
    full_accuracy: float | None = None
    """Accuracy of all the data with hard labels, as a fraction; None: a network is trained on it, once."""
    full_epochs: int = 30
    """Epochs of the training on all the data, where its accuracy is not given."""
    weight: float = 0.5
    """Weight of IOR in LRS, and of the augmented evaluation in ARS, from 0 to 1."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.full_epochs < 1:
            raise AttarError(f"`full_epochs` {self.full_epochs}: at least 1")
        if not 0 <= self.weight <= 1:
            raise AttarError(f"`weight` {self.weight}: a number from 0 to 1")


TAKEN = {
    "test": "a tuning tests on the held-out tenth of its data",
    "labels": "a tuning has a teacher label each of its sets: name it as `teacher`",
    "device": "say it in `spec`",
}
"""Conditions that a tuning chooses by itself, and why."""


@dataclass(frozen=True)
class Tuning:
    """A method whose fields are to be chosen, and how the candidates are judged."""

    spec: Spec
    """The data, always taken without the held-out tenth, and the prior."""
    name: str
    """Name of the method."""
    fixed: FieldValues
    """Fields of the method that all candidates share."""
    grid: Mapping[str, Sequence[Any]]
    """Field -> the values that it is tried with."""
    ipcs: tuple[int, ...]
    """Images per class; each is chosen for by itself."""
    out: Path
    """Folder for the sets and what they came to."""
    recipe: Recipe
    """What the last rung is trained by; those before it by a short version of it."""
    conditions: Conditions
    """Networks, seeds and teacher. Only the last rung takes all seeds; those before it take the first. All are tested
    on the held-out tenth, on the device of `spec`; without random images beside them."""
    eta: int = 3
    """In each rung 1/ETA of the candidates go on to ETA times the training."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.eta < 2:
            raise AttarError(f"`eta` {self.eta}: at least 2")
        for name, why in TAKEN.items():
            if getattr(self.conditions, name) not in (None, "auto"):
                raise AttarError(f"`conditions.{name}` {getattr(self.conditions, name)}: {why}")
        self.conditions.check(self.recipe)
