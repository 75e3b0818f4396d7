"""DD-Ranking's scores: the documented formulas by hand, on fractions; the command end to end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from toys import attar, result_record, save_random_set

from attar.core.errors import AttarError
from attar.evaluation import RECIPES
from attar.evaluation.scores import (
    augmentation_robust,
    hard_label,
    improvement,
    label_robust,
    normalised_score,
    on_all_data,
    recovery,
    unaugmented,
)
from attar.experiments.scoring import Scores


def test_by_hand() -> None:
    hlr, ior = recovery(0.85, 0.55), improvement(0.60, 0.50)
    assert [hlr, ior] == pytest.approx([0.30, 0.10])
    # alpha = 0.5 * 0.1 - 0.5 * 0.3 = -0.1; (0.904837 - 0.367879) / (2.718282 - 0.367879)
    assert label_robust(hlr, ior) == pytest.approx(0.536958 / 2.350402, abs=1e-6)
    # weight 0.8: alpha = 0.08 - 0.06 = 0.02; (1.020201 - 0.367879) / 2.350402
    assert label_robust(hlr, ior, weight=0.8) == pytest.approx(0.652322 / 2.350402, abs=1e-6)
    # beta = 0.5 * 0.1 + 0.5 * 0.3 = 0.2; (1.221403 - 0.367879) / 2.350402
    assert augmentation_robust(0.1, 0.3) == pytest.approx(0.853524 / 2.350402, abs=1e-6)


def test_scores_lie_between_0_and_1() -> None:
    assert normalised_score(-1) == 0
    assert normalised_score(1) == pytest.approx(1)
    assert normalised_score(0) == pytest.approx(0.268941, abs=1e-6)
    assert label_robust(hlr=1, ior=-1) == 0
    assert label_robust(hlr=-1, ior=1) == pytest.approx(1)


def test_exponentials_of_percentages_are_something_else() -> None:
    in_per_cent = 0.5 * 10 - 0.5 * 30
    assert normalised_score(in_per_cent) == pytest.approx((math.exp(-10) - math.exp(-1)) / (math.e - math.exp(-1)))
    assert normalised_score(in_per_cent) < 0 < label_robust(0.30, 0.10)
    assert normalised_score(0.5 * 40 - 0.5 * 10) > 1e6
    with pytest.raises(AttarError, match=r"own = 60.*fractions"):
        improvement(60, 50)
    with pytest.raises(AttarError, match="weight = 5"):
        label_robust(0.3, 0.1, weight=5)


def test_scores_of_records() -> None:
    found = Scores(
        0.8,
        own=result_record(60, 62, baseline=result_record(50, 50)),
        plain=result_record(40, 44, baseline=result_record(30, 34)),
        hard=result_record(55, 50),
    ).by_name
    assert found["HLR"] == pytest.approx([0.25, 0.30])
    assert found["IOR"] == pytest.approx([0.10, 0.12])
    assert found["LRS"] == pytest.approx([label_robust(0.25, 0.10), label_robust(0.30, 0.12)])
    assert found["ARS"] == pytest.approx([augmentation_robust(0.10, 0.10), augmentation_robust(0.12, 0.10)])


@pytest.mark.parametrize("recipe", [RECIPES.open(name) for name in RECIPES], ids=list(RECIPES))
def test_recipes_that_the_scores_need(recipe: Any) -> None:
    hard, plain, full = hard_label(recipe), unaugmented(recipe), on_all_data(recipe, 7)
    assert (hard.labels, hard.lr, hard.crop) == ("hard", recipe.lr, recipe.crop)
    off = (plain.crop, plain.flip, plain.mix, plain.dsa, plain.jitter, plain.lighting, plain.shuffle)
    assert off == (None, False, "none", False, 0.0, 0.0, 1)
    assert (plain.labels, plain.epochs, plain.steps) == (recipe.labels, recipe.epochs, recipe.steps)
    assert (full.labels, full.epochs, full.steps, full.batch) == ("hard", 7, None, 128)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return save_random_set(tmp_path, monkeypatch)


def test_the_command(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    common = ["--network", "convnet3-bn-w8", "--seeds", 2, "--set", "steps=3", "--set", "warmup=0", "--device", "cpu"]
    command = ["score", world / "set", *common, "--full-epochs", 1, "--json", world / "scores.json"]
    assert attar(monkeypatch, *command, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "4 x set and random images, quick (modified)" in said
    assert "1 x all 12 images, 1 epoch:" in said
    assert not (world / "scores.json").exists()
    assert attar(monkeypatch, *command) == 0
    written = json.loads((world / "scores.json").read_text())
    assert written["scores"]["IOR"] == [0.0, 0.0]
    assert written["scores"]["ARS"] == pytest.approx([normalised_score(0)] * 2)
    full, hard = written["full_accuracy"], written["records"]["hard"]["accuracies"]
    assert written["scores"]["HLR"] == pytest.approx([full - one / 100 for one in hard])
    capsys.readouterr()
    assert attar(monkeypatch, "score", world / "set", *common, "--full-accuracy", 90) == 0
    assert "all of the data" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--recipe", "rded-soft-cifar"], "--teacher"),
        (["--full-accuracy", 101], "--full-accuracy 101"),
        (["--weight", 2], "--weight 2"),
        (["--network", "convnet33"], "no network"),
    ],
)
def test_bad_input(world: Path, more: list[object], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert attar(monkeypatch, "score", world / "set", *more) == 2
    assert message in capsys.readouterr().err
