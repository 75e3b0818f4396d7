from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from attar.core.config import changed, field_rows
from attar.core.errors import AttarError


@dataclass(frozen=True)
class Part:
    steps: int = 3
    """How many."""
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Whole:
    part: Part = Part()
    rate: float = 0.5
    on: bool = True
    limit: int | None = None
    mode: Literal["error", "skip"] = "error"


def test_text_becomes_what_the_type_says() -> None:
    said = {"part.steps": "20", "part.names": "x,y", "rate": "1e-3", "on": "false", "limit": "7", "mode": "skip"}
    assert changed(Whole(), said, "w") == Whole(Part(20, ("x", "y")), 1e-3, False, 7, "skip")
    assert changed(Whole(limit=3), {"limit": "none"}, "w").limit is None
    assert changed(Whole(), {"part": {"steps": 4}}, "w").part.steps == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rat": 1}, r"no field 'rat' \(did you mean 'rate'\?\)"),
        ({"part.step": 1}, "w.part has no field 'step'"),
        ({"rate": "fast"}, "w.rate = 'fast'"),
        ({"part.steps": "2.5"}, "w.part.steps = '2.5'"),
        ({"on": "maybe"}, "w.on = 'maybe'"),
        ({"mode": "stop"}, "choose one of error, skip"),
        ({"rate.x": 1}, "w.rate is 0.5 and has no fields"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(AttarError, match=said):
        changed(Whole(), changes, "w")


def test_a_part_that_is_none_is_made_by_true_or_by_a_field_of_it() -> None:
    from attar.methods import load_method
    from attar.methods.refine import Refinement

    assert load_method("prior", {}).refine is None
    assert load_method("prior", {"refine": "true"}).refine == Refinement()
    assert load_method("prior", {"refine": True, "refine.lr": "0.1"}).refine == Refinement(lr=0.1)
    assert load_method("prior", {"refine": "none"}).refine is None
    assert load_method("prior", {"refine": "false"}).refine is None
    with pytest.raises(AttarError, match=r"refine is left out by refine=none, and refine.lr is set"):
        load_method("prior", {"refine": "none", "refine.lr": 0.1})
    with pytest.raises(AttarError, match="refine = 'yes'"):
        load_method("prior", {"refine": "yes"})


def test_the_table_tells_the_meaning() -> None:
    assert field_rows(Whole())[1] == ("part.steps", "3", "int", "How many.")
    assert field_rows(Whole())[-1] == ("mode", "error", "one of error, skip", "")
