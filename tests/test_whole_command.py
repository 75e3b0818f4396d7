"""The time that a whole command has left, how it stands on a terminal, and what `--quiet` and `--stats` change."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import pytest
from rich.console import Console
from toys import attar, save_folder

from attar.core.progress import LEFT, bar, of_item, without_middle
from attar.core.whole_command import StageForecast, WholeCommand


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
    whole.tell("two", "training a prior, 3 s left", 0.0)
    assert told == ["looking; 10 s left", "training; 10 s left", "training a prior, 3 s left"]


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
    nowhere = tmp_path / "data" / "missing" / "stats.jsonl"
    assert attar(monkeypatch, *asked, "--out", tmp_path / "b", "--stats", nowhere) != 0
    assert "stats.jsonl" in capsys.readouterr().err


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
