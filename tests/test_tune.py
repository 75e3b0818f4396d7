"""`attar tune`: successive halving held to a table, resumption, a test split that stays shut, and honest words."""

from __future__ import annotations

import json
import math
import re
import shlex
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import attar as command
from toys import save_folder, save_tiny_dit

import attar
from attar.core.errors import AttarError
from attar.core.rng import numpy_generator
from attar.data import imageset, load_data
from attar.data.sources import open_source
from attar.evaluation import evaluator, named_recipe
from attar.evaluation.records import Record
from attar.evaluation.records_file import read_records, write_record
from attar.experiments import compare
from attar.experiments.candidates import candidate_label, candidates, default_grid
from attar.experiments.summary import Cell
from attar.experiments.tune import best, rungs, shortened
from attar.experiments.tuned import CandidateScore, Race, Round

CLASSES = ["ant", "bee's", "cat <3"]
GRID = {"fit.time": ["200", "400"], "sampler.guidance": ["2", "4"]}
FIELDS = {"fit.steps": "5", "sampler.steps": "5", "fit.select.features": "latents"}
FIRST, LAST = 3, 6
"""Steps of the two rungs; their trainings are told apart by these."""
REALLY = evaluator.Students.run


@pytest.mark.parametrize(
    ("count", "eta", "expected"),
    [
        (2, 3, [(2, 1)]),
        (3, 3, [(3, 1)]),
        (4, 3, [(4, 3), (2, 1)]),
        (9, 3, [(9, 3), (3, 1)]),
        (10, 3, [(10, 9), (4, 3), (2, 1)]),
        (27, 3, [(27, 9), (9, 3), (3, 1)]),
        (3, 2, [(3, 2), (2, 1)]),
        (4, 2, [(4, 2), (2, 1)]),
        (16, 2, [(16, 8), (8, 4), (4, 2), (2, 1)]),
        (4, 4, [(4, 1)]),
    ],
)
def test_the_rungs_are_those_worked_out_by_hand(count: int, eta: int, expected: list[tuple[int, int]]) -> None:
    assert [(rung.candidates, rung.divisor) for rung in rungs(count, eta)] == expected


def test_ties_are_broken_by_the_order_of_the_grid() -> None:
    assert best({"a": 1.0, "b": 3.0, "c": 2.0, "d": 3.0}, 2) == ("b", "d")
    assert best({"a": 2.0, "b": 1.0, "c": 2.0, "d": 2.0}, 2) == ("a", "c")
    assert best({"a": 1.0, "b": 2.0, "c": 3.0}, 2) == ("b", "c"), "the grid's order, not that of the scores"


def test_a_shorter_recipe_ends_its_warmup() -> None:
    from attar.evaluation import LabelledImages
    from attar.evaluation.evaluator import training_plan

    train = LabelledImages(np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 0, 1, 1]), ("ant", "bee"))
    quick = named_recipe("quick")
    assert shortened(quick, 1, 10) is quick
    for divisor, steps, warmup in ((3, 200, 50), (9, 67, 16), (1000, 1, 0)):
        plan, _ = training_plan(shortened(quick, divisor, 10), train, "convnet3")
        assert (plan.steps, plan.warmup) == (steps, warmup)
    by_ipc = shortened(named_recipe("minimax-hard"), 3, 10)  # 2,000 epochs at 10 images per class
    assert (by_ipc.epochs, by_ipc.steps) == (667, None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior and two splits of data, of which the images of the second cannot be read."""
    root = tmp_path_factory.mktemp("world")
    save_folder(root / "data" / "train", CLASSES, each=12)
    save_folder(root / "data" / "test", CLASSES, each=2)
    for file in (root / "data" / "test").rglob("*.png"):
        file.write_bytes(b"no image")
    save_tiny_dit(root / "dit", CLASSES)
    return root


@dataclass(frozen=True)
class First:
    """The tuning that runs before all others, from an empty cache."""

    trained: list[tuple[str, int | None, int]]
    """(network, steps, seed) of all trainings, also of later tests."""
    chosen: dict[int, dict[str, Any]]


@pytest.fixture(scope="module")
def first(world: Path) -> Iterator[First]:
    """Trainings take no time, and come to any accuracy that the set decides."""
    done: list[tuple[str, int | None, int]] = []

    def quick(self: Any, seed: int, *rest: Any) -> dict[str, float]:
        done.append((self.network, self.plan.steps, seed))
        accuracy = 100 * numpy_generator(seed, self.network, self.plan.steps, self.train.digest).random()
        return {"accuracy": accuracy, "best": accuracy, "learnt": 100.0, "chance": 20.0, "seconds": 1.0}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator.Students, "run", quick)
        patch.setenv("ATTAR_CACHE", str(world / "cache"))
        chosen = tuned(world, world / "tuned")
        assert len(done) == 2 * 2 * (4 + 2 * 2), "IPCs, networks, and the trainings of the two rungs"
        yield First(done, chosen)


@pytest.fixture
def trained(first: First) -> list[tuple[str, int | None, int]]:
    return first.trained


def tuned(world: Path, out: Path, **more: Any) -> dict[int, dict[str, Any]]:
    terms: dict[str, Any] = {"grid": GRID, "fields": FIELDS, "recipe_fields": {"steps": LAST}, "seeds": 2, "eta": 2}
    terms |= {"network": ["convnet3-w8", "convnet3-bn-w8"], "ipc": [1, 2], "device": "cpu", "method": "exemplars"}
    data = f"imagefolder:{world / 'data'}@train"
    return attar.tune(data, prior=str(world / "dit"), out=out, say=lambda text: None, **{**terms, **more})


def words(world: Path, out: Path, *more: str) -> list[str]:
    """The same as a command."""
    given = ["--data", f"imagefolder:{world / 'data'}@train", "--prior", str(world / "dit"), "--method", "exemplars"]
    for name, value in FIELDS.items():
        given += ["--set", f"{name}={value}"]
    for name, values in GRID.items():
        given += ["--grid", f"{name}={','.join(values)}"]
    given += ["--ipc", "1,2", "--recipe-set", f"steps={LAST}", "--seeds", "2", "--eta", "2", "--device", "cpu"]
    return [*given, "--network", "convnet3-w8,convnet3-bn-w8", "--out", str(out), *more]


@pytest.fixture
def finished(world: Path, first: First) -> tuple[Path, dict[int, dict[str, Any]]]:
    """The folder of a tuning that has run, and what was chosen."""
    return world / "tuned", first.chosen


def scored(records: list[Record], ipc: int, steps: int) -> dict[str, float]:
    """Label -> mean over the networks: a second way from the records to what is ranked."""
    found: dict[str, list[float]] = {}
    for record in records:
        if record.ipc == ipc and record.changes and record.trial and record.changes["steps"] == steps:
            assert record.test == "held-out"
            found.setdefault(record.trial.label, []).append(record.mean)
    assert all(len(means) == 2 for means in found.values())
    return {label: statistics.fmean(found[label]) for label in sorted(found)}  # the grid's order is that of the words


def test_the_best_of_each_rung_go_on(finished: tuple[Path, dict[int, dict[str, Any]]]) -> None:
    out, chosen = finished
    records = read_records(out / "results.json")
    told = json.loads((out / "tuned.json").read_text())
    for of_ipc, ipc in zip(told["ipcs"], (1, 2), strict=True):
        first, last = scored(records, ipc, FIRST), scored(records, ipc, LAST)
        assert len(first) == 4
        assert list(last) == sorted(sorted(first, key=lambda label: (-first[label], label))[:2])
        won = min(last, key=lambda label: (-last[label], label))
        assert candidate_label({name: chosen[ipc][name] for name in GRID}) == won
        assert chosen[ipc] == {**FIELDS, **of_ipc["best"]}
        for rung, means in zip(of_ipc["rungs"], (first, last), strict=True):
            assert {candidate_label(one["fields"]): one["mean"] for one in rung["candidates"]} == pytest.approx(means)
        row = f"| {' | '.join(of_ipc['best'].values())} | {first[won]:.1f} ("
        assert any(line.startswith(row) and line.endswith("**best** |") for line in table(out))
    assert (out / "tuned.png").read_bytes().startswith(b"\x89PNG")


def table(out: Path) -> list[str]:
    return (out / "tuned.md").read_text().splitlines()


def test_the_command_that_it_ends_with_can_be_run(
    finished: tuple[Path, dict[int, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, chosen = finished
    commands = [line for line in table(out) if line.startswith("attar distill ")]
    assert len(commands) == 2
    for line, ipc in zip(commands, (1, 2), strict=True):
        given = shlex.split(line)[1:]
        assert command(monkeypatch, *given, "--dry-run") == 0
        assert "36 images of 3 classes" in capsys.readouterr().out, "all of the data, the tenth with it"
        sets = [given[place + 1] for place, word in enumerate(given) if word == "--set"]
        assert sets == [f"{name}={value}" for name, value in chosen[ipc].items()]


def test_a_second_run_does_nothing(
    finished: tuple[Path, Any], world: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = finished
    before, files = len(trained), {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert command(monkeypatch, "tune", *words(world, out)) == 0
    assert len(trained) == before
    assert files == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}


def test_candidates_share_their_fits(finished: tuple[Path, Any], world: Path) -> None:
    fits = [file for file in (world / "cache" / "fit").iterdir() if file.is_dir()]
    assert len(fits) == 2 * 2 * len(CLASSES), "by time, IPC and class, whatever the guidance"


def test_an_interrupted_run_goes_on(world: Path, tmp_path: Path, trained: list[Any]) -> None:
    kept: list[Record] = []

    def killed(file: Path, record: Record) -> None:
        if len(kept) == 10:
            raise KeyboardInterrupt
        kept.append(record)
        write_record(file, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
        before = len(trained)
        patch.setattr(compare, "write_record", killed)
        with pytest.raises(KeyboardInterrupt):
            tuned(world, tmp_path / "out")
        told = json.loads((tmp_path / "out" / "tuned.json").read_text())
        assert [len(one["rungs"]) for one in told["ipcs"]] == [1], "the first rung of IPC 1 is over, the last is not"
        assert "best" not in told["ipcs"][0]
        patch.setattr(compare, "write_record", write_record)
        chosen = tuned(world, tmp_path / "out")
    assert len(trained) - before == 32, "none is done twice"
    assert chosen.keys() == {1, 2}
    assert len(read_records(tmp_path / "out" / "results.json")) == 24


def test_noise_is_told_for_the_images_of_this_tuning(world: Path, tmp_path: Path, trained: list[Any]) -> None:
    tuned(world, tmp_path / "one", ipc=1)
    earlier = read_records(tmp_path / "one" / "results.json")[0]
    assert earlier.trial
    other = replace(
        earlier, set="elsewhere", n_test=999, trial=replace(earlier.trial, item="another", judged="otherwise")
    )
    write_record(tmp_path / "two" / "results.json", other)
    tuned(world, tmp_path / "two", ipc=1)
    assert read_records(tmp_path / "two" / "results.json")[0].n_test == 999
    assert f"an accuracy on {earlier.n_test} images" in (tmp_path / "two" / "tuned.md").read_text()


def test_the_test_split_stays_shut(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def noted(spec: str) -> Any:
        opened.append(spec.rpartition("@")[2])
        return open_source(spec)

    monkeypatch.setattr(evaluator.Students, "run", REALLY)
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(imageset, "open_source", noted)
    monkeypatch.setattr(imageset, "_SOURCES", {})
    tuned(world, tmp_path / "out", ipc=1, network="convnet3-w8", grid={"fit.time": [600], "sampler.guidance": [2, 3]})
    assert set(opened) == {"train"}
    load_data(f"imagefolder:{world / 'data'}@test")
    assert opened[-1] == "test", "the watch sees it"


def test_a_dry_run_writes_nothing(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    assert command(monkeypatch, "tune", *words(world, tmp_path / "out", "--dry-run")) == 0
    told = capsys.readouterr().out
    assert "rung 1: 4 candidates by 1/2 of the recipe, 1 training seed\n" in told
    assert "rung 2: 2 candidates by the whole recipe, 2 training seeds\n" in told
    assert "32 trainings at most" in told
    assert "the test images are never opened" in told
    assert re.search(r"rung 2 of 2, 6 steps, convnet3-w8, IPC 2: 4 trainings of", told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"grid": {"fit.tim": [1, 2]}}, "no field 'tim' (did you mean 'time'?)"),
        ({"grid": {"fit.time": ["x", "200"]}}, "exemplars.fit.time = 'x'"),
        ({"grid": {"fit.time": ["200", "300"]}}, "fit.time 300 is not on the grid of fit.steps = 5"),
        ({"grid": {"fit.time": []}}, "`grid` fit.time: a value is missing"),
        ({"grid": {"fit.time": ["200", ""]}}, "`grid` fit.time: a value is missing"),
        ({"grid": {"fit.time": ["200", "200.0"]}}, "`grid`: fit.time=200 and fit.time=200.0 are the same candidate"),
        ({"grid": {"fit.steps": ["5", "10"]}}, "`grid` fit.steps: the same field is fixed, too"),
        ({"grid": {"fit.time": ["200"]}}, "nothing to choose"),
        ({"grid": {}, "fields": {}}, "nothing to choose"),
        ({"method": "random", "fields": {}, "grid": None}, "say what to vary with `grid`"),
        ({"network": "convnet33"}, "no network is called 'convnet33'"),
        ({"recipe": "quik"}, "no recipe 'quik'"),
        ({"recipe_fields": {"step": 3}}, "no field 'step'"),
        ({"recipe": "rded-soft-cifar", "recipe_fields": {}}, "name the teacher with `teacher`"),
        ({"seeds": 0}, "`seeds` 0: at least 1"),
        ({"eta": 1}, "`eta` 1: at least 2"),
        ({"ipc": 0}, "`ipc` 0"),
        ({"classes": ["dog"]}, "dog"),
        ({"fields": {**FIELDS, "fit.select.teacher": "nobody"}}, "nobody"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(world: Path, tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError, match=re.escape(said)):
        tuned(world, tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--grid", "fit.time=100"], "error: --grid fit.time=100: fit.time has values already"),
        (["--grid", "fit.time"], "error: --grid fit.time: write it as field=value"),
        (["--recipe-set", "steps"], "error: --recipe-set steps: write it as field=value"),
        (["--ipc", "0"], "error: --ipc 0"),
        (["--method", "exemplar"], "error: no method 'exemplar' (did you mean 'exemplars'?)"),
    ],
)
def test_a_wrong_word_is_a_clear_error(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    said: str,
) -> None:
    assert command(monkeypatch, "tune", *words(world, tmp_path / "out", *more)) == 2
    assert said in capsys.readouterr().err


def test_a_folder_is_named_by_the_fields_alone() -> None:
    assert candidate_label({"sampler.guidance": 2, "fit.time": "280"}) == "fit.time=280,sampler.guidance=2"
    one, two = candidate_label({"fit.typical": "1:2, 100"}), candidate_label({"fit.typical": "1:2; 100"})
    assert one != two
    assert re.fullmatch(r"[A-Za-z0-9_.,=+-]+", one)
    assert "/" not in candidate_label({"fit.select.teacher": "../../etc"})
    assert len(candidate_label({"fit.typical": "1:2, " * 100})) < 120


def test_values_with_commas_are_separated_by_semicolons() -> None:
    from attar.cli.tune import _grid

    assert _grid(["fit.time=280, 600", "fit.typical=1:2, 100; 50"]) == {
        "fit.time": ["280", "600"],
        "fit.typical": ["1:2, 100", "50"],
    }


def test_the_usual_grid_leaves_alone_what_is_set() -> None:
    assert default_grid("exemplars", {}) == {"fit.time": ("280", "600"), "sampler.guidance": ("2", "4")}
    assert default_grid("exemplars", {"fit.time": "400"}) == {"sampler.guidance": ("2", "4")}
    assert default_grid("d3hr", {}) == {"sampler.guidance": ("2", "4")}


def race(tested: int, **accuracies: list[float]) -> Race:
    """A last rung with these accuracies by training seed."""
    scores = {
        name: CandidateScore({"net": Cell({(0, seed): one for seed, one in enumerate(values)}, 1, 1)})
        for name, values in accuracies.items()
    }
    return Race(10, (Round(None, scores, tested),), over=True)  # type: ignore[arg-type]


def test_what_is_noise_is_called_so() -> None:
    apart = race(5000, a=[40.0, 41.0, 42.0], b=[45.0, 46.5, 47.0])
    assert apart.winner == "b"
    half = 4.302653 * statistics.stdev([5.0, 5.5, 5.0]) / math.sqrt(3)  # t of 97.5 % with 2 degrees of freedom
    mean = 15.5 / 3
    assert f"a is {mean:.1f} points [+{mean - half:.1f}, +{mean + half:.1f}] behind" in apart.verdict
    assert apart.verdict.startswith("Beyond the noise")
    assert race(5000, a=[40.0, 41.0, 42.0], b=[45.0, 40.0, 43.0]).verdict.startswith("Within the noise")
    few = replace(apart, rounds=(replace(apart.rounds[0], tested=20),)).verdict
    assert few.startswith("Within the noise"), "five points are one of twenty images"
    assert "standard error of 11.1" in few  # of 46.2 % on 20 images
    assert "One training seed" in race(5000, a=[40.0], b=[45.0]).verdict
    assert race(5000, a=[40.0], b=[40.0]).winner == "a", "the first in the grid"


def test_networks_count_alike() -> None:
    of = {"one": Cell({(0, 0): 10.0, (0, 1): 20.0}, 1, 1), "two": Cell({(0, 1): 40.0, (0, 0): 50.0}, 1, 1)}
    assert CandidateScore(of).whole.accuracies == {(0, 0): 30.0, (0, 1): 30.0}


def test_candidates_are_in_the_order_of_the_grid(tmp_path: Path) -> None:
    from attar.evaluation.conditions import Conditions
    from attar.experiments.settings import Tuning
    from attar.job import Spec

    conditions = Conditions(("convnet3",), (0,))
    tuning = Tuning(Spec("digits"), "exemplars", FIELDS, GRID, (1,), tmp_path, named_recipe("quick"), conditions)
    assert [list(fields.values()) for fields in candidates(tuning).values()] == [
        ["200", "2"],
        ["200", "4"],
        ["400", "2"],
        ["400", "4"],
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"test": "digits@test"}, "`conditions.test` digits@test: a tuning tests on the held-out tenth"),
        ({"labels": Path("labels")}, "`conditions.labels` labels: a tuning has a teacher label each of its sets"),
        ({"device": "cpu"}, "`conditions.device` cpu: say it in `spec`"),
    ],
)
def test_what_a_tuning_chooses_by_itself_is_refused(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    from attar.evaluation.conditions import Conditions
    from attar.experiments.settings import Tuning
    from attar.job import Spec

    conditions = Conditions(("convnet3",), (0,), **given)
    with pytest.raises(AttarError, match=f"^{re.escape(said)}"):
        Tuning(Spec("digits"), "exemplars", FIELDS, GRID, (1,), tmp_path, named_recipe("quick"), conditions)
