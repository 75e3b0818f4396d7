"""The time that a whole comparison, tuning, score or demonstration has left: one, of all its items."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from toys import save_folder, save_tiny_dit

from attar.core.errors import AttarError
from attar.core.progress import LEFT
from attar.core.store import Store
from attar.core.whole_command import StageForecast, WholeCommand
from attar.core.whole_grid import WholeGrid, whole_of
from attar.distillation.run import distill_sets
from attar.evaluation import modified, named_recipe
from attar.evaluation.conditions import Conditions
from attar.experiments.compare import compare
from attar.experiments.scoring import scored
from attar.experiments.settings import Protocol, Tuning
from attar.experiments.spec import Experiment, read_experiment
from attar.experiments.tune import tune
from attar.job import Job, Spec
from attar.methods import load_method


@dataclass
class Run:
    """A grid whose clock a test sets, and what it told."""

    now: float = 0.0
    told: list[tuple[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.grid = WholeGrid(lambda text, fraction: self.told.append((text, fraction)))

    def work(self, whole: WholeCommand, name: str, seconds: float, after: Callable[[], None] = lambda: None) -> None:
        """A stage that takes so many seconds, told a hundred times."""
        for step in range(101):
            self.now += seconds / 100 if step else 0.0
            whole.tell(name, f"{name}, {step}/100", step / 100)
            after()

    def work_set(self, name: str, fit: float, sampling: float) -> None:
        """A set whose stages take so many seconds."""
        with self.grid.item(name) as progress:
            command = whole_of(progress, _set())
            self.work(command, "fit", fit)
            self.work(command, "sampling", sampling)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    made = Run()
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    return made


def _set(makes: str = "") -> dict[str, StageForecast]:
    fit = StageForecast(20.0, kinds=("fit",), makes=frozenset([makes] if makes else []))
    return {"fit": fit, "sampling": StageForecast(10.0, kinds=("sampling",))}


def _training(seconds: float = 5.0) -> dict[str, StageForecast]:
    return {"net": StageForecast(seconds, kinds=("net",))}


def test_once_one_of_each_kind_was_done_the_time_left_is_right_though_no_forecast_was(run: Run) -> None:
    """Three sets and six trainings; what was forecast takes twice, half and four times as long."""
    sets, trainings = [f"set {n}" for n in range(3)], [f"training {n}" for n in range(6)]
    for name in sets:
        run.grid.named(name).foresee(_set())
    for name in trainings:
        run.grid.named(name).foresee(_training())
    took = {"fit": 40.0, "sampling": 5.0, "net": 20.0}
    whole = 3 * (40 + 5) + 6 * 20.0

    def right() -> None:
        if seen:
            assert run.grid.left == pytest.approx(whole - run.now, rel=0.25, abs=1e-6)

    seen = False
    for name in sets:
        with run.grid.item(name) as progress:
            command = whole_of(progress, _set())
            run.work(command, "fit", took["fit"])
            run.work(command, "sampling", took["sampling"])
    for name in trainings:
        with run.grid.item(name) as progress:
            command = whole_of(progress, _training())
            run.work(command, "net", took["net"], right)
        seen = True
    assert run.told[-1] == ("net, 100/100; under 0.01 s left", 1.0)
    _check_one_time(run.told)


def _check_one_time(told: list[tuple[str, float]]) -> None:
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction <= 1 for fraction in fractions)
    for text, _ in told:
        assert re.fullmatch(r".+; (under )?\S+( \S+)? left", text), text
        assert text.count(" left") == 1, text


def test_sets_correct_those_of_other_methods_by_their_stages(run: Run) -> None:
    run.grid.named("one").foresee(_set())
    run.grid.named("two").foresee(_set())
    run.work_set("one", fit=60.0, sampling=1.0)
    assert run.grid.left == pytest.approx(61.0)


def test_of_a_kind_of_which_nothing_was_done_the_forecast_counts_as_much_as_the_pace_of_others(run: Run) -> None:
    run.grid.named("one").foresee(_set())
    run.grid.named("two").foresee(_training())
    run.work_set("one", fit=80.0, sampling=40.0)
    assert run.grid.left == pytest.approx(5.0 * 4.0**0.5)


def test_what_sets_share_is_left_once_unless_the_first_of_them_fails(run: Run) -> None:
    for name in ("one", "two", "three"):
        run.grid.named(name).foresee(_set("of seed 0"))
    assert run.grid.left == pytest.approx(20 + 3 * 10)
    with suppress(AttarError), run.grid.item("one") as progress:
        whole_of(progress, _set("of seed 0"))
        raise AttarError("no such thing")
    assert run.grid.left == pytest.approx(2 * 10), "the fit was foreseen in the set that failed"
    with run.grid.item("two") as progress:
        whole_of(progress, _set("of seed 0"))
        assert run.grid.left == pytest.approx(20 + 2 * 10), "it makes the fit now"


def test_an_item_that_fails_says_nothing_of_the_pace(run: Run) -> None:
    for name in ("one", "two", "three"):
        run.grid.named(name).foresee(_training(10.0))
    with suppress(AttarError), run.grid.item("one") as progress:
        command = whole_of(progress, _training(10.0))
        for step in range(3):
            command.tell("net", "net", step / 10)
            run.now += 3.0
        command.tell("net", "net", 0.3)
        raise AttarError("diverged")
    assert run.grid.left == pytest.approx(2 * 30.0)


def test_an_item_that_forecasts_less_than_was_foreseen_moves_no_bar_back(run: Run) -> None:
    for name in ("one", "two"):
        run.grid.named(name).foresee(_training(10.0))
    with run.grid.item("one") as progress:
        run.work(whole_of(progress, _training(10.0)), "net", 10.0)
    with run.grid.item("two") as progress:
        run.work(whole_of(progress, _training(1000.0)), "net", 1000.0)
    _check_one_time(run.told)


def test_a_stage_that_a_command_tells_before_its_forecast_is_known_by_its_first_words(run: Run) -> None:
    """As the training of the built-in prior, which says what itself has left."""
    prior = {"training a prior": StageForecast(50.0)}
    run.grid.named("one").foresee({**prior, **_training(50.0)})
    with run.grid.item("one") as progress:
        for step in range(11):
            progress(f"training a prior, step {step}/10, {10 - step} s left", step / 10)
            run.now += 10.0
    text, fraction = run.told[5]
    assert text == "training a prior, step 5/10; 2 min left", "50 s of it, and 100 s of the rest at its pace"
    assert fraction == pytest.approx(0.25)
    _check_one_time(run.told)


def test_a_stage_without_a_forecast_does_not_tell_its_own_time(run: Run) -> None:
    for name in ("one", "two"):
        run.grid.named(name).foresee(_training(50.0))
    with run.grid.item("one") as told:
        told.tell("charts", "charts, 3/9, 5/s, 7 s left", 0.3)
    assert run.told == [("charts, 3/9, 5/s; 100 s left", 0.0)]


def test_checks_before_the_first_item_are_told_as_they_are(run: Run) -> None:
    run.grid.named("one")("looking at images, 3/9, 5/s", 0.3)
    assert run.told == [("looking at images, 3/9, 5/s", 0.3)]


FILE = """
title = "Insects"
status = "a test"
data = "{world}/data@train"
prior = "{world}/dit"
device = "cpu"
ipc = [1, 2]
seeds = 2
distillation_seeds = 2
out = "{out}"

[methods.random]
[methods.prior]
set = {{sampler = {{steps = 2}}}}
[methods.d3hr]
set = {{"sampler.steps" = 5, "fit.steps" = 5, "subsets" = 20}}

[evaluations.short]
recipe = "quick"
networks = ["convnet3-w16"]
set = {{steps = 3}}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    for split in ("train", "test"):
        save_folder(root / "data" / split, ["ant", "bee"], each=4, size=16)
    save_tiny_dit(root / "dit", ["ant", "bee"])
    return root


@pytest.fixture
def experiment(world: Path, tmp_path: Path) -> Experiment:
    (tmp_path / "experiment.toml").write_text(FILE.format(world=world, out=tmp_path / "out"), encoding="utf-8")
    return read_experiment(tmp_path / "experiment.toml")


def test_a_comparison_tells_one_time_left_from_its_first_set_to_its_last_training(
    experiment: Experiment, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, begun = list[tuple[str, float]](), list[int]()
    foreseen: dict[str, Mapping[str, StageForecast]] = {}
    monkeypatch.setattr("attar.training.meters.SECONDS", 0.0)
    end = WholeGrid.over

    def over(grid: WholeGrid, name: str) -> None:
        foreseen[name] = dict(grid.named(name).parts)
        end(grid, name)

    def say(text: str) -> None:
        if "left; what is in the cache" in text:
            begun.append(len(told))

    monkeypatch.setattr(WholeGrid, "over", over)
    how: dict[str, Any] = {"store": store, "progress": lambda *line: told.append(line), "say": say}
    assert not compare(experiment, **how).failures
    lines = told[begun[0] :]
    _check_one_time(lines)
    stages = [re.split(r",? ?[0-9:]", text)[0].split("/")[-1] for text, _ in lines]
    assert {"sampling", "decoding"} <= {stage.split(" ")[0] for stage in stages}
    assert any("convnet3-w16, quick" in text for text, _ in lines)
    assert lines[-1][1] == pytest.approx(1.0)
    assert all(LEFT.fullmatch(text) for text, _ in lines)
    assert foreseen.keys() == {
        *(f"{label}, seed {seed}" for label in ("random", "prior", "d3hr") for seed in (0, 1)),
        *(
            f"{label}, seed {seed}, IPC {ipc}, short"
            for label in ("random", "prior", "d3hr")
            for seed in (0, 1)
            for ipc in (1, 2)
        ),
    }


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """What is told once items run."""
    told = list[tuple[str, float]]()
    monkeypatch.setattr("attar.training.meters.SECONDS", 0.0)
    tell = WholeGrid.tell

    def noting(self: WholeGrid, name: str, text: str, fraction: float | None = None) -> None:
        monkeypatch.setattr(self, "progress", lambda *line: told.append(line))
        tell(self, name, text, fraction)

    monkeypatch.setattr(WholeGrid, "tell", noting)
    return told


def test_a_tuning_tells_one_time_left_whoever_reaches_its_last_rung(
    world: Path, store: Store, tmp_path: Path, noted: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four candidates: all of them in the first rung, the best two in the second."""
    grids = _noting(monkeypatch, "attar.experiments.tune.WholeGrid")
    save_folder(tmp_path / "more", ["ant", "bee"], each=12, size=16)
    recipe = modified(named_recipe("quick"), {"steps": 6})
    tuning = Tuning(
        Spec(str(tmp_path / "more"), str(world / "dit"), device="cpu"),
        "prior",
        {"sampler.steps": "2"},
        {"sampler.guidance": ("1", "2", "3", "4")},
        (1,),
        tmp_path / "out",
        recipe,
        Conditions(("convnet3-w16",), (0, 1)),
    )
    tune(tuning, store=store, progress=lambda *line: None)
    _check_one_time(noted)
    assert noted[-1][1] == pytest.approx(1.0)
    assert grids[0].left == pytest.approx(0.0, abs=1e-6)
    rungs = [name for name in grids[0].items if "rung 2 of 2" in name]
    assert 2 <= len(rungs) <= 4


def test_scores_tell_one_time_left(
    world: Path, store: Store, tmp_path: Path, noted: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    grids = _noting(monkeypatch, "attar.experiments.scoring.WholeGrid")
    job = Job(Spec(f"{world}/data@train", device="cpu"), store)
    distill_sets(job, "random", load_method("random"), [2], tmp_path / "set")
    protocol = Protocol(modified(named_recipe("quick"), {"steps": 6}), full_epochs=2)
    conditions = Conditions(("convnet3-w16",), (0, 1), device="cpu")
    scored(tmp_path / "set", protocol, conditions, store=store, progress=lambda *line: None, say=lambda _: None)
    _check_one_time(noted)
    assert grids[0].items.keys() == {"own", "plain", "full"}
    assert grids[0].left == pytest.approx(0.0, abs=1e-6)
    begun = {text.split(", ")[0] for text, _ in noted}
    assert {"convnet3-w16", f"{tmp_path / 'set'}: convnet3-w16"} <= begun, "all the data, and the set"


def _noting(monkeypatch: pytest.MonkeyPatch, where: str) -> list[WholeGrid]:
    """The grids that are made there."""
    grids = list[WholeGrid]()

    class Noted(WholeGrid):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            grids.append(self)

    monkeypatch.setattr(where, Noted)
    return grids


def test_what_is_done_or_shared_is_not_foreseen_again(
    experiment: Experiment, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    grids, told = _noting(monkeypatch, "attar.experiments.compare.WholeGrid"), list[str]()
    compare(experiment, store=store, say=told.append, dry_run=True)
    compare(experiment, store=store)
    compare(experiment, store=store, say=told.append, progress=lambda text, _: told.append(text))
    first, again = grids[0].items, grids[2]
    assert first["d3hr, seed 0"].parts["the fit"].seconds > 0
    assert first["d3hr, seed 1"].parts["the fit"].seconds == 0, "fits are the same for all seeds"
    assert first["d3hr, seed 1"].parts["sampling"].seconds > 0
    assert again.left == 0
    assert not any(text.endswith(" left") for text in told)
