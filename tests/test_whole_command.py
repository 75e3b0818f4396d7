"""The time that a whole command has left, how it stands on a terminal, and what `--quiet` and `--stats` change."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from toys import attar, job_of, save_folder, save_tiny_dit, save_world, tint

from attar.core.engine import Engine
from attar.core.progress import LEFT, Progress, StageClock, bar, of_item, without_middle
from attar.core.store import Store
from attar.core.whole_command import StageForecast, WholeCommand
from attar.distillation import run
from attar.distillation.run import distill_sets
from attar.methods import load_method


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_after_a_tenth_the_time_left_is_right_though_the_forecast_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything takes three times as long as was forecast; classes are of different sizes."""
    clock, told = Clock(monkeypatch), list[tuple[str, float]]()
    sizes, took = [100.0, 300.0], {"encoding": 120.0, "sampling": 60.0}
    parts = {"encoding": StageForecast(40.0, sizes), "sampling": StageForecast(20.0)}
    whole = WholeCommand(lambda text, fraction: told.append((text, fraction)), parts)
    for size in sizes:
        for step in range(101):
            clock.now += took["encoding"] * size / sum(sizes) / 100 if step else 0
            whole.tell("encoding", "encoding", step / 100)
            _check(whole.left, 180.0 - clock.now, clock.now / 180.0)
    for step in range(101):
        clock.now += took["sampling"] / 100 if step else 0
        whole.tell("sampling", "sampling", step / 100)
        _check(whole.left, 180.0 - clock.now, clock.now / 180.0)
    assert told[0][0] == "encoding; 60 s left"
    assert told[-1] == ("sampling; under 0.01 s left", 1.0)
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)


def _check(told: float, right: float, done: float) -> None:
    if done > 0.1:
        assert told == pytest.approx(right, rel=0.25, abs=1e-6)


def test_what_was_found_finished_and_what_was_not_forecast_count_as_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(monkeypatch), list[str]()
    whole = WholeCommand(lambda text, _: told.append(text), {"one": StageForecast(10.0), "two": StageForecast(10.0)})
    whole.parts["one"].finish()
    whole.tell("another", "looking", 0.5)
    clock.now = 99.0
    whole.of("two")("training", 0.0)
    whole.tell("another", "training a prior, 3 s left", 0.0)
    whole.tell("two", "training, step 1/9, 3 s left", 0.0)
    assert told == [
        "looking; 10 s left",
        "training; 10 s left",
        "training a prior, 3 s left",
        "training, step 1/9; 10 s left",
    ], "one time is left, that of the whole command, where there is a forecast"


def test_trainings_of_an_earlier_command_say_nothing_of_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five seeds three are in the cache: each of the others takes ten seconds."""
    clock, parts = Clock(monkeypatch), {"one": StageForecast(50.0), "two": StageForecast(50.0)}
    whole = WholeCommand(lambda text, fraction: None, parts)
    for step in range(101):
        clock.now += 0.2 if step else 0
        whole.tell("one", "training", 0.6 + 0.4 * step / 100)
        if step > 20:
            assert whole.left == pytest.approx(20 - clock.now + 50, rel=0.05)


def test_a_stage_that_begins_anew_has_a_clock_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stage = Clock(monkeypatch), StageClock()
    for fraction in (0.0, 0.5, 1.0, 0.0, 0.5):
        told = stage.timed("sampling, of a set", fraction)
        clock.now += 10
    assert told[1] == "10 s left"


def test_workers_are_told_by_their_items_and_not_as_a_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    told = list[str]()

    def ahead(engine: Engine, items: list[object], device: str, progress: Progress) -> list[object]:
        progress("2 workers, 1/3 items", 1 / 3)
        return []

    monkeypatch.setattr(Engine, "check", lambda *_: None)
    monkeypatch.setattr(Engine, "cluster", lambda _: nullcontext())
    monkeypatch.setattr(Engine, "ahead", ahead)
    job = job_of(save_world(tmp_path, ["ant", "bee"]), store)
    job.progress = lambda text, _: told.append(text)
    method = load_method("prior", {"sampler.steps": 2})
    distill_sets(job, "prior", method, (1,), tmp_path / "out", engine=Engine("ray"))
    assert [text for text in told if text.startswith("2 workers")] == ["2 workers, 1/3 items"] * 2


def test_of_an_item_the_time_left_is_said_to_be_its_own() -> None:
    told: list[str] = []
    shown = of_item(lambda text, _: told.append(text))
    shown("step 3/9, 5/s; 12 s left", 0.5)
    shown("decoding", 0.5)
    assert told == ["step 3/9, 5/s; 12 s left of this item", "decoding"]
    assert LEFT.fullmatch(told[0])


def test_at_80_columns_numbers_and_times_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    import rich.console

    written = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    screen = Console(file=written, width=80, force_terminal=True, force_interactive=True)
    monkeypatch.setattr(rich.console, "Console", lambda **_: screen)
    numbers = "seed 0: step 150/300, loss 1.234, train 88.8 %, 1,200 images/s"
    with bar() as progress:
        progress(f"/a/long/way/to/the/folder/of/a/set: convnet3-bn-w48, quick (modified), {numbers}; 35 s left", 1.0)
        progress(f"/a/long/way/to/the/folder/of/a/set: convnet3-bn-w48, quick (modified), {numbers}; 34 s left", 0.3)
    rows = [row for row in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue())) if row]
    assert any(row.startswith("…") and row.rstrip().endswith(numbers) for row in rows)
    assert any("━" in row and "34 s left" in row for row in rows)
    assert max(map(len, rows)) <= 80


def test_what_is_done_and_the_numbers_are_kept_of_a_text() -> None:
    text = "training convnet3-bn-w48, step 100/100, loss 0.666, train 96.6 %"
    assert without_middle(text, 60) == "training …et3-bn-w48, step 100/100, loss 0.666, train 96.6 %"
    assert without_middle(text, 30) == "…100, loss 0.666, train 96.6 %"
    assert without_middle("a path: 3/9", 11) == "a path: 3/9"
    assert without_middle("a path: 3/9", 6) == "…: 3/9"


def test_quiet_says_nothing_and_stats_are_for_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    data = save_folder(tmp_path / "data", ["ant", "bee"], each=3)
    asked = ("distill", "--data", data, "--method", "random", "--ipc", 1)
    assert attar(monkeypatch, *asked, "--out", tmp_path / "a", "--quiet", "--stats", tmp_path / "stats.jsonl") == 0
    assert capsys.readouterr() == ("", "")
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert all(set(line) in ({"seconds", "said"}, {"seconds", "doing", "fraction"}) for line in lines)
    assert lines[-1]["said"].startswith(f"wrote {tmp_path / 'a'}, made in ")
    assert attar(monkeypatch, *asked, "--out", tmp_path / "a") == 0
    assert "nothing left to do" in capsys.readouterr().out, "quiet for one command only"
    (tmp_path / "empty").touch()
    for log in ("stats.jsonl", "empty", "empty"):
        assert attar(monkeypatch, *asked, "--out", tmp_path / "a", "--quiet", "--stats", tmp_path / log) == 0
    (tmp_path / "results.json").write_text("[]")
    assert attar(monkeypatch, *asked, "--out", tmp_path / "b", "--stats", tmp_path / "results.json") != 0
    assert "results.json: is there, and is not a log of Attar's" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_text() == "[]"
    nowhere = tmp_path / "data" / "missing" / "stats.jsonl"
    assert attar(monkeypatch, *asked, "--out", tmp_path / "b", "--stats", nowhere) != 0
    err = capsys.readouterr().err
    assert f"--stats {nowhere}: No such file or directory; name a file in a folder that there is" in err
    folder = tmp_path / "data"
    assert attar(monkeypatch, *asked, "--out", tmp_path / "b", "--stats", folder) == 2
    assert f"--stats {folder}: Is a directory" in capsys.readouterr().err


def test_the_console_the_manifest_and_the_report_state_the_same_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from attar.core.progress import duration
    from attar.report import write_report

    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    data = save_folder(tmp_path / "data", ["ant", "bee"], each=3)
    assert attar(monkeypatch, "distill", "--data", data, "--method", "random", "--ipc", 1, "--out", tmp_path / "a") == 0
    made = duration(sum(json.loads((tmp_path / "a" / "manifest.json").read_text())["seconds"].values()))
    assert f"wrote {tmp_path / 'a'}, made in {made}, with checks and preparation in " in capsys.readouterr().out
    write_report([tmp_path / "a"], [], tmp_path / "page.html")
    assert f"<dt>Made in</dt><dd>{made} on " in (tmp_path / "page.html").read_text()


CLASSES = ["ant", "bee", "cat"]
FAST: dict[str, Any] = {"sampler.steps": 4, "sampler.guided_channels": "none"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "tuned": ("minimax", {**FAST, "fit.batch": 4, "fit.max_steps": 3, "fit.monitor.times": 0, "select.pool": 2}),
    "refined": (
        "prior",
        {
            "sampler.steps": 4,
            "refine": "diver",
            "refine.noised": 2,
            "refine.first": 1,
            "refine.last": 0,
            "refine.sampler.steps": 4,
        },
    ),
    "chosen": ("exemplars", {"sampler.steps": 25, "fit.select.teacher": "TEACHER", "fit.steps": 25}),
    "encoded": ("d4m", {"sampler.steps": 4, "sampler.solver": "ddim"}),
    "started": ("d3hr", {"sampler.steps": 5, "fit.steps": 5, "subsets": 20}),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from attar.teachers.settings import TeacherTraining
    from attar.teachers.train import train_teacher

    root = tmp_path_factory.mktemp("whole")
    save_folder(root / "data", CLASSES, each=8)
    tint(root / "data")
    save_tiny_dit(root / "dit", CLASSES)
    new = TeacherTraining(str(root / "data"), "convnet3-bn-w8", epochs=30, batch=8, device="cpu")
    train_teacher(new, root / "teacher", store=Store(root / "cache"), say=lambda _: None)
    return root


@pytest.mark.parametrize("name", CASES)
def test_stages_tell_of_their_parts_from_beginning_to_end_as_often_as_was_forecast(
    name: str, world: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and again where some of it is in the store."""
    method, fields = CASES[name]
    fields = {field: str(world / "teacher") if value == "TEACHER" else value for field, value in fields.items()}
    wholes: list[Noted] = []

    class Noted(WholeCommand):
        def __init__(self, progress: Progress, parts: Mapping[str, StageForecast]) -> None:
            super().__init__(progress, parts)
            self.ends = Counter[str]()
            wholes.append(self)

        def tell(self, name: str, text: str, fraction: float | None = None) -> None:
            super().tell(name, text, fraction)
            self.ends[name] += fraction == 1

    monkeypatch.setattr(run, "whole_of", Noted)
    for out in ("first", "second"):
        job = job_of(world, store)
        begun = job.progress
        distill_sets(job, method, load_method(method, fields), [1, 2], tmp_path / out)
        assert job.progress is begun, "another run of the job begins anew"
        for kind in ("candidates", "refined"):
            for folder in sorted((store.root / kind).glob("[!.]*"))[:1]:
                shutil.rmtree(folder)
    raced = len(list((store.root / "prior-race").glob("[!.]*")))
    for whole in wholes:
        forecast = {part: len(of.rounds) for part, of in whole.parts.items() if of.seconds}
        assert {part: whole.ends[part] for part in forecast} == {part: forecast[part] for part in forecast} | (
            {"the choice": forecast["the choice"] - 2 + raced, "encoding": 0, "the fit": 0}
            if name == "chosen" and whole is wholes[0]
            else {}
        ), "where the races leave exemplars as they are, nothing is inverted"
        assert whole.left == pytest.approx(0, abs=1e-6)
    assert len(wholes) == 2
