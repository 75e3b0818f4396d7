from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pytest

from attar.core.config import changed, field_rows
from attar.core.errors import AttarError
from attar.evaluation import RECIPES, modified
from attar.job import Spec
from attar.methods import METHODS, load_method
from attar.priors.training.settings import NewPrior


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


OUT_OF_RANGE = [
    *[("prior", {"sampler.guidance": value}, "sampler.guidance") for value in ("1e8", "-0.5", "nan", "inf", "100.1")],
    ("d3hr", {"fit.guidance": "-1"}, "`fit.guidance` -1: must be a number from 0 to 100; 1 guides not at all"),
    ("exemplars", {"fit.guidance": "1e8"}, "`fit.guidance` 1e+08: must be a number from 0 to 100"),
    ("minimax", {"fit.monitor.guidance": "101"}, "`fit.monitor.guidance` 101: must be a number from 0 to 100"),
    ("d3hr", {"skew_weight": "-0.1"}, "d3hr: skew_weight = -0.1: give a number of 0 or more"),
    ("d3hr", {"mean_weight": "nan"}, "d3hr: mean_weight = nan: give a number of 0 or more"),
    ("prior", {"refine.steps": "inf"}, "refine: steps = 'inf': give whole numbers of 1 or more"),
    ("d4m", {"strength": "1.5"}, "strength"),
    ("d4m", {"fit.seed": "-1"}, "fit.seed -1: from 0 to 4,294,967,295"),
    ("d4m", {"sampler.steps": "0"}, "sampler.steps 0: choose 1 to 1000"),
    ("random", {"select.pool": "100001"}, "`select.pool` 100001: at most 100,000"),
    ("train-prior", {"report.guidance": "-1"}, "`report.guidance` -1: must be a number from 0 to 100"),
    ("train-prior", {"training.learning_rate": "0"}, "training: learning_rate = 0.0: give a number above 0"),
    ("train-prior", {"training.learning_rate": "nan"}, "training: learning_rate = nan: give a number above 0"),
    ("train-prior", {"training.steps": "0"}, "training: steps = 0: give a whole number of 1 or more"),
    ("train-prior", {"training.ema_decay": "1"}, "training: ema_decay = 1.0: give a number from 0 to below 1"),
    (
        "train-prior",
        {"training.label_dropout": "1.5"},
        "training: label_dropout = 1.5: give a number from 0",
    ),
    ("train-prior", {"training.min_snr": "-5"}, "training: min_snr = -5.0: give a number above 0, or none"),
    ("train-prior", {"training.clip": "0"}, "training: clip = 0.0: give a number above 0"),
    ("train-prior", {"training.warmup": "-1"}, "training: warmup = -1: give a number of 0 or more"),
    ("train-prior", {"vae.channels": "0"}, "vae: channels = 0: give a whole number of 1 or more"),
    ("train-prior", {"vae.kl_weight": "-1"}, "vae: kl_weight = -1.0: give a number of 0 or more"),
    ("recipe", {"lr": "0"}, "lr = 0.0: give numbers above 0"),
    ("recipe", {"lr": "vit: -1e-4, 1e-3"}, "give numbers above 0"),
    ("job", {"imbalance_factor": "0.5"}, "`imbalance_factor` 0.5: a number of 1 or more"),
]


@pytest.mark.parametrize(("what", "changes", "said"), OUT_OF_RANGE)
def test_absurd_numbers_are_refused_by_the_field_and_its_range(what: str, changes: dict[str, str], said: str) -> None:
    makers: dict[str, Callable[[], object]] = {
        "train-prior": lambda: changed(NewPrior("digits"), changes, "train-prior"),
        "recipe": lambda: modified(RECIPES.open("quick"), changes),
        "job": lambda: changed(Spec("digits"), changes, "distill"),
    }
    with pytest.raises(AttarError, match=re.escape(said)):
        makers.get(what, lambda: load_method(what, changes))()


@pytest.mark.parametrize("name", METHODS)
def test_no_number_of_a_method_may_be_infinite_or_none_at_all(name: str) -> None:
    for field, _, kind, _ in field_rows(load_method(name)):
        for value in ("nan", "inf", "-inf") if "float" in kind or "int" in kind else ():
            with pytest.raises(AttarError):
                load_method(name, {field: value})
