"""The waterfall: which steps stand between two recipes, what they come to, and the command end to end."""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from toys import attar, result_record, save_random_set, size_of

from attar.core.errors import AttarError
from attar.evaluation import RECIPES, Recipe, modified
from attar.evaluation.records import Record
from attar.experiments.waterfall import Waterfall, bars
from attar.experiments.waterfall_steps import GROUPS, around, steps_between, with_shared, with_tests
from attar.report.charts import write_waterfall_chart
from attar.report.tables import waterfall_markdown

PAIRS = list(itertools.permutations(RECIPES, 2))
ONLY_TESTS = ("test_every", "test_from")
"""Fields that decide when `best` looks at the test set, and change no training."""


def test_every_field_has_its_place() -> None:
    placed = [field for group in GROUPS for field in group] + list(ONLY_TESTS)
    assert sorted(placed) == sorted({field.name for field in fields(Recipe)} - {"name", "source"})


@pytest.mark.parametrize(("start", "end"), PAIRS)
def test_steps_lead_from_one_recipe_to_the_other(start: str, end: str) -> None:
    steps = steps_between(RECIPES.open(start), RECIPES.open(end))
    assert (steps[0].recipe, steps[-1].recipe) == (RECIPES.open(start), RECIPES.open(end))
    assert [step.against for step in steps] == [None, *range(len(steps) - 1)]
    changed = [field for step in steps for field in step.changes]
    assert len(changed) == len(set(changed))
    for before, step in itertools.pairwise(steps):
        assert all((getattr(before.recipe, f), getattr(step.recipe, f)) == pair for f, pair in step.changes.items())
        same = {field.name for field in fields(Recipe)} - step.changes.keys() - {"name", "source", *ONLY_TESTS}
        assert all(getattr(before.recipe, field) == getattr(step.recipe, field) for field in same)
        assert step.recipe.views == "batch" or step.recipe.epochs is not None


def names(start: Recipe, end: Recipe, first: tuple[str, ...] = ()) -> list[str]:
    return [step.name for step in steps_between(start, end, first)[1:]]


def test_what_only_makes_sense_together_is_changed_together() -> None:
    quick, rded, d3hr, fkd = (
        RECIPES.open(name) for name in ("quick", *(f"{n}-soft-cifar" for n in ("rded", "d3hr", "fkd")))
    )
    assert names(rded, d3hr) == ["crop", "epochs", "batch"]
    assert names(rded, modified(rded, {"temperature": 4})) == ["temperature"]
    assert names(quick, modified(rded, {"temperature": 4}))[3:5] == ["labels", "extra_forward"]
    softened = steps_between(quick, modified(rded, {"temperature": 4}))[4]
    assert softened.changes == {"labels": ("hard", "soft"), "temperature": (20.0, 4.0)}
    assert "labels and steps" in names(quick, fkd)
    assert {"labels", "steps"} <= set(names(fkd, quick))
    assert "views and scheme" in names(fkd, rded)


def test_another_order() -> None:
    rded, d3hr = RECIPES.open("rded-soft-cifar"), RECIPES.open("d3hr-soft-cifar")
    assert names(rded, d3hr, ("batch_doubled_at", "epochs")) == ["batch", "epochs", "crop"]
    with pytest.raises(AttarError, match="`order` speed"):
        steps_between(rded, d3hr, ("speed",))


def test_recipes_that_train_alike() -> None:
    quick = RECIPES.open("quick")
    with pytest.raises(AttarError, match="train alike"):
        steps_between(quick, replace(quick, test_every="10%"))


def test_around_one_recipe() -> None:
    quick = RECIPES.open("quick")
    steps = around(quick, [{"crop": "none"}, {"steps": "none", "epochs": "3"}])
    assert [step.summary for step in steps] == ["", "crop 0.5 → none", "steps 600 → none; epochs none → 3"]
    assert [step.against for step in steps] == [None, 0, 0]
    assert (steps[2].recipe.crop, steps[2].recipe.name) == (0.5, "quick (modified)")
    with pytest.raises(AttarError, match="already has flip = true"):
        around(quick, [{"flip": "true"}])
    with pytest.raises(AttarError, match="no field 'crops'"):
        around(quick, [{"crops": "1"}])


def record(*accuracies: float, best: tuple[float, ...] = (), baseline: float | None = None) -> Record:
    beside = None if baseline is None else result_record(baseline, baseline=None)
    return result_record(*accuracies, recipe="r", best=best or accuracies, baseline=beside)


def test_differences_are_paired_by_seed() -> None:
    start = replace(RECIPES.open("quick"), test_every="10%")
    steps = steps_between(start, modified(start, {"crop": "none", "lr": 0.1}))
    found = bars(steps, [record(50, 60, best=(52, 60)), record(53, 65), record(40, 40, best=(45, 43), baseline=30)])
    assert [bar.difference for bar in found] == [None, 4, -19, 1, 4]
    assert found[1].difference_std == pytest.approx(2**0.5)
    assert [bar.best for bar in found] == [False, False, False, True, True]
    assert [bar.against for bar in found] == [None, 0, 1, 0, 2]
    assert [bar.random for bar in found] == [None, None, 30, None, None]
    assert found[0].std == pytest.approx(50**0.5)
    single = bars(steps[:2], [record(50), record(51)])
    assert (single[1].difference, single[1].difference_std, single[1].std) == (1, None, None)


def test_the_table_and_the_chart(tmp_path: Path) -> None:
    start = RECIPES.open("quick")
    steps = steps_between(start, modified(start, {"crop": "none", "lr": 0.1}))
    found = bars(steps, [record(50, 60), record(53, 65), record(40, 40)])
    assert "| crop | crop 0.5 → none | 59.0 ± 8.5 | +4.0 ± 1.4 | 2 |  |" in waterfall_markdown(found)
    for bars_of in (found, bars(steps, [record(50), record(53), record(40)])):
        write_waterfall_chart(Waterfall(tmp_path / "a | title", "convnet3", tuple(bars_of)), tmp_path)
        assert size_of(tmp_path / "waterfall.png")[0] > 800


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return save_random_set(tmp_path, monkeypatch)


SMALL = ["--network", "convnet3-bn-w8", "--seeds", 2, "--device", "cpu"]
SHORT = ["--set", "epochs=2", "--set", "steps=none", "--set", "warmup=0"]


def test_the_command(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    out = world / "fall"
    ends = ["--from", "quick", "--to", "minimax-hard-cifar", *SHORT, "--set", "test_every=1"]
    ends += ["--set", "size=none", "--set", "precision=float32"]
    command = ["waterfall", world / "set", *ends, *SMALL, "--out", out]
    assert attar(monkeypatch, *command, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "1. crop 0.5 → none" in said
    assert "12 trainings at most" in said
    assert not out.exists()
    assert attar(monkeypatch, *command) == 0
    told = json.loads((out / "waterfall.json").read_text())
    steps = [bar["name"] for bar in told["bars"]]
    assert steps == [
        "quick (modified)",
        "crop",
        "dsa",
        "normalise",
        "optimiser",
        "schedule",
        "best epoch",
        "best epoch",
    ]
    assert told["bars"][5]["recipe"] == "minimax-hard-cifar (modified)"
    means = [bar["mean"] for bar in told["bars"]]
    for before, bar in itertools.pairwise(told["bars"][:6]):
        assert bar["difference"] == pytest.approx(bar["mean"] - before["mean"])
    assert means[6] >= means[0]
    assert means[7] >= means[5]
    rows = list(csv.DictReader((out / "waterfall.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(row["mean"]) for row in rows] == pytest.approx(means)
    assert size_of(out / "waterfall.png")[0] > 800
    assert len(json.loads((out / "results.json").read_text())) == 6


def test_epochs_leave_out_a_recipe_that_counts_steps() -> None:
    quick, minimax, rded = (RECIPES.open(name) for name in ("quick", "minimax-hard-cifar", "rded-soft-cifar"))
    start, end = with_shared(quick, minimax, {"epochs": "20"})
    assert (start, end) == (quick, modified(minimax, {"epochs": 20}))
    assert with_shared(minimax, quick, {"steps": 9, "flip": False}) == (
        modified(minimax, {"flip": False}),
        modified(quick, {"steps": 9, "flip": False}),
    )
    assert [one.steps for one in with_shared(quick, minimax, {"epochs": 2, "steps": "none"})] == [None, None]
    assert [one.steps for one in with_shared(rded, minimax, {"steps": 2})] == [2, 2]


def test_the_ends_are_tested_as_they_train_where_no_recipe_says_it() -> None:
    quick, rded = RECIPES.open("quick"), RECIPES.open("rded-soft-cifar")
    assert [
        step.recipe.test_every for step in with_tests(steps_between(quick, modified(quick, {"crop": 1, "lr": 1})))
    ] == [
        "10%",
        None,
        "10%",
    ]
    assert [step.recipe.test_every for step in with_tests(around(quick, [{"crop": 1}, {"lr": 1}]))] == [
        "10%",
        None,
        None,
    ]
    steps = steps_between(quick, rded)
    assert with_tests(steps) == steps


def told_bars(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "waterfall.json").read_text())["bars"]
    return found


def test_the_form_of_the_readme(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    command = ["waterfall", world / "set", "--from", "quick", "--to", "minimax-hard-cifar", "--set", "epochs=20"]
    assert attar(monkeypatch, *command, *SMALL, "--dry-run") == 0
    assert "steps 600 → none; epochs none → 20; warmup 50 → 0" in capsys.readouterr().out
    command += ["--set", "steps=8", *SMALL, "--seeds", 1]
    assert attar(monkeypatch, *command, "--out", world / "fall") == 0
    assert "steps 8 → none; epochs none → 20; warmup 2 → 0" in capsys.readouterr().out
    found = told_bars(world / "fall")
    assert [bar["name"] for bar in found[-2:]] == ["best epoch", "best epoch"]
    assert [bar["mean"] >= found[bar["against"]]["mean"] for bar in found[-2:]] == [True, True]
    untested = [*command, "--set", "test_every=none", "--out", world / "other"]
    assert attar(monkeypatch, *untested) == 0
    assert [bar["accuracies"] for bar in told_bars(world / "other")] == [bar["accuracies"] for bar in found[:-2]]


def test_steps_are_told_as_the_set_and_the_network_have_them(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    short = ["--set", "epochs=2", "--set", "steps=none", "--seeds", 1, "--device", "cpu", "--dry-run"]
    changes = ["batch=9:3, 100", "lr=mobilenet: 1, 0.5", "extra_forward=true", "test_resize=eighth", "test_every=1"]
    words = [word for change in changes for word in ("--change", change)]
    assert attar(monkeypatch, "waterfall", world / "set", *words, *short, "--network", "convnet3-w8") == 0
    said = capsys.readouterr().out
    assert "batch 4 → 3\n" in said
    assert "lr 0.002 → 0.5\n" in said
    for change in ("extra_forward false → true", "test_resize size → eighth", "test_every none → 1"):
        assert f"{change} (no effect on this set and network: not trained again)" in said
    batch_norm = ["--change", "extra_forward=true", *short, "--network", "convnet3-bn-w8"]
    assert attar(monkeypatch, "waterfall", world / "set", *batch_norm) == 0
    assert "no effect" not in capsys.readouterr().out


@pytest.mark.parametrize("command", [["waterfall", "--change", "crop=none"], ["evaluate", "--recipe", "quick"]])
def test_hours_on_large_images_are_said_to_be_fewer_on_small_ones(
    world: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    name, *words = command
    dry = [name, world / "set", *words, "--network", "convnet3-w8", "--device", "cpu", "--dry-run"]
    monkeypatch.setattr("attar.evaluation.suited.SIDE", 8)
    for seconds, size, told in ((5000.0, "none", True), (5000.0, 16, True), (5000.0, 8, False), (9.0, 16, False)):
        for room in ("evaluation.outlook", "experiments.scoring"):
            monkeypatch.setattr(f"attar.{room}.training_seconds", lambda *_, taken=seconds: taken)
        assert attar(monkeypatch, *dry, "--set", f"size={size}") == 0
        said = " ".join(capsys.readouterr().out.split())
        assert ("networks see images of 16 pixels, and at" in said) == ("networks see images" in said) == told


def test_it_goes_on_where_it_was(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["waterfall", world / "set", "--change", "crop=none", "--change", "mix=none", *SHORT, *SMALL]
    assert attar(monkeypatch, *command, "--out", world / "a") == 0
    monkeypatch.setattr("attar.evaluation.evaluator.train", lambda *_, **__: pytest.fail("was trained again"))
    assert attar(monkeypatch, *command, "--out", world / "b") == 0
    assert (world / "a" / "waterfall.csv").read_text() == (world / "b" / "waterfall.csv").read_text()


def test_changes_without_effect_are_not_trained(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    changes = ["--change", "batch=9:64, 100", "--change", "many_classes=idc", "--change", "lr=0.1"]
    assert attar(monkeypatch, "waterfall", world / "set", *changes, *SHORT, *SMALL, "--out", world / "fall") == 0
    said = capsys.readouterr().out
    assert said.count("no effect on this set and network") == 2
    assert "4 trainings at most" in said
    found = json.loads((world / "fall" / "waterfall.json").read_text())["bars"]
    assert [bar["difference"] for bar in found[1:3]] == [0, 0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "either --to RECIPE or --change"),
        (["--to", "minimax-hard-cifar", "--change", "crop=none"], "either --to RECIPE or --change"),
        (["--to", "rded-soft-cifar"], "name the teacher with --teacher (`attar train-teacher` makes one)\n"),
        (["--to", "nowhere"], "no recipe 'nowhere'"),
        (["--to", "minimax-hard"], "enlarges 16-pixel images to 224"),
        (
            ["--change", "crop=none", "--set", "epochs=5"],
            "give one of --set epochs and --set steps, and none for the other",
        ),
        (["--change", "crops=none"], "its fields: labels,"),
        (["--change", "crop=none", "--order", "crop"], "--order is for --to"),
    ],
)
def test_bad_input(world: Path, more: list[object], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("attar.evaluation.evaluator.train", lambda *_, **__: pytest.fail("was trained"))
    assert attar(monkeypatch, "waterfall", world / "set", *more, *SMALL, "--out", world / "fall") == 2
    assert message in capsys.readouterr().err
