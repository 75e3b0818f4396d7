"""The candidates of a tuning: the grid of a method's fields that it is tried with."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attar.core.errors import AttarError
from attar.core.store import fingerprint
from attar.experiments.settings import FieldValues, Tuning
from attar.methods import load_method
from attar.methods.base import LatentMethod

GRIDS: Mapping[str, Mapping[str, Sequence[Any]]] = {"exemplars": {"fit.time": ("280", "600")}}
"""What is varied if nothing else is asked for, beside the guidance: by method."""

GUIDANCE: Mapping[str, Sequence[Any]] = {"sampler.guidance": ("2", "4")}
"""The same of every method that samples a prior."""


def default_grid(name: str, fixed: FieldValues) -> dict[str, Sequence[Any]]:
    """What is varied of a method if nothing else is asked for; fields that are `fixed` are left alone.

    Raises:
        AttarError: nothing is, or there is no such method or field.
    """
    sampled = isinstance(load_method(name, dict(fixed)), LatentMethod)
    usual = {**GRIDS.get(name, {}), **(GUIDANCE if sampled else {})}
    if grid := {field: values for field, values in usual.items() if field not in fixed}:
        return grid
    raise AttarError(f"{name}: say what to vary with `grid` FIELD=VALUE,VALUE (`attar describe {name}` lists fields)")


def candidates(tuning: Tuning) -> dict[str, FieldValues]:
    """Label -> the fields of the grid's candidates, in the grid's order; the last field varies fastest.

    Raises:
        AttarError: a field without values or fixed elsewhere, an unknown one, a value that it cannot take, or fewer
            than two different candidates.
    """
    for field, values in tuning.grid.items():
        if field in tuning.fixed:
            raise AttarError(f"`grid` {field}: the same field is fixed, too; leave one of them out")
        if not values or "" in map(str, values):
            raise AttarError(f"`grid` {field}: a value is missing; write it as {field}=VALUE,VALUE")
    choices: dict[str, FieldValues] = {}
    labels: dict[Any, str] = {}
    for values in itertools.product(*tuning.grid.values()):
        choice = dict(zip(tuning.grid, values, strict=True))
        label, method = candidate_label(choice), load_method(tuning.name, {**tuning.fixed, **choice})
        if method in labels:
            raise AttarError(f"`grid`: {labels[method]} and {label} are the same candidate")
        choices[label], labels[method] = choice, label
    if len(choices) < 2:
        raise AttarError("`grid`: there is nothing to choose: give at least two values of a field")
    return choices


def candidate_label(choice: FieldValues) -> str:
    """A candidate's name and its folder's, whatever the order of the grid: "fit.time=280,sampler.guidance=2"."""
    text = ",".join(f"{name}={choice[name]}" for name in sorted(choice))
    safe = re.sub(r"[^A-Za-z0-9_.,=+-]", "-", text)[:100]
    return text if safe == text else f"{safe}-{fingerprint(text)[:6]}"
