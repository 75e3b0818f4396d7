"""Commands that are killed, or stopped by Ctrl-C, at events of theirs: the same command goes on to the same end."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from kills import command, ended, moments
from toys import save_folder, save_tiny_dit

from attar.core.cache import contents
from attar.sets.distilled import open_distilled, verify

pytestmark = pytest.mark.slow
CLASSES = ["ant", "bee"]
QUICK = ["--device", "cpu", "--set", "sampler.steps=2"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    save_folder(root / "data", CLASSES, each=24)
    save_tiny_dit(root / "dit", CLASSES)
    return root


def made_of(world: Path) -> list[str]:
    return ["--data", str(world / "data"), "--prior", str(world / "dit"), "--method", "prior", *QUICK]


def test_kills_of_a_reproduction(world: Path, tmp_path: Path) -> None:
    """It ends with the set's own bytes, and says so by its exit status."""

    def root(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    origin = root("origin")
    assert ended(command, origin, ["distill", *made_of(world), "--ipc", "3", "--out", "set"]) == 0
    words = ["reproduce", str(origin / "set"), "--out", "again", "--device", "cpu"]
    assert ended(command, root("whole"), words) == 0
    for number, fatal in enumerate(moments(tmp_path / "whole", 2)):
        place = root(str(number))
        assert ended(command, place, words, *fatal) == -signal.SIGKILL, fatal
        assert ended(command, place, words) == 0, fatal
        assert verify(place / "again") == [], fatal
        images = open_distilled(place / "again").manifest["images"]
        assert images == open_distilled(origin / "set").manifest["images"], fatal
        assert contents(place / "cache").unfinished == (), fatal


def test_interruptions_of_a_tuning(world: Path, tmp_path: Path) -> None:
    words = ["tune", *made_of(world), "--ipc", "1", "--grid", "sampler.guidance=2,4", "--seeds", "1", "--out", "tuned"]
    words += ["--network", "convnet3-w8", "--recipe-set", "steps=3"]

    def run(name: str, *fatal: Any) -> int:
        (tmp_path / name).mkdir(exist_ok=True)
        return ended(command, tmp_path / name, words, *fatal)

    def tuned(name: str) -> Any:
        return json.loads((tmp_path / name / "tuned" / "tuned.json").read_text())

    assert run("whole") == 0
    for number, fatal in enumerate(moments(tmp_path / "whole", 2)):
        assert run(str(number), *fatal, signal.SIGINT) == 128 + signal.SIGINT, fatal
        assert run(str(number)) == 0, fatal
        assert tuned(str(number)) == tuned("whole"), fatal
        assert contents(tmp_path / str(number) / "cache").unfinished == (), fatal
