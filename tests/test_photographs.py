"""The walk of docs/photographs.md, every command of it as it stands there, on a small copy of a folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import attar, save_folder, save_tiny_dit

from attar.distillation import run_without_method as choice

PAGE = (Path(__file__).parent.parent / "docs" / "photographs.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
COMMANDS = [shlex.split(line)[1:] for line in BLOCKS.splitlines() if line.startswith("attar ")]
TRAINING = ["--steps", 4, "--batch", 4, "--hidden", 16, "--layers", 2, "--heads", 2, "--report-samples", 4]
SHORTER: dict[str, list[object]] = {
    "evaluate": ["--set", "steps=2", "--seeds", 1],
    "train-prior": [
        *TRAINING,
        "--codec",
        "of-the-hub",
        "--size",
        16,
        "--set",
        "report.steps=2",
        "--set",
        "report.judge_steps=2",
    ],
}
"""What makes a command short: the last word on an option is the one that counts."""


def coloured(root: Path) -> None:
    """Pictures of two sizes, each class of a colour of its own."""
    save_folder(root, ["ant", "bee"], each=12, size=70)
    for channel, folder in enumerate(sorted(root.iterdir())):
        for number, file in enumerate(sorted(folder.iterdir())):
            pixels = np.zeros((70 + number % 2, 70, 3), np.uint8)
            with Image.open(file) as picture:
                pixels[:70, :, channel] = np.array(picture)[..., channel]
            Image.fromarray(pixels).save(file)


def test_every_command_of_the_walk_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choice, "STEPS", 20)
    save_tiny_dit(Path("of-the-hub"), ["ant"])
    for split in ("train", "test"):
        coloured(tmp_path / "photos" / split)
    assert {words[0] for words in COMMANDS} >= {"distill", "evaluate", "report", "train-prior"}
    for name, *words in COMMANDS:
        assert attar(monkeypatch, name, *words, *SHORTER.get(name, [])) == 0, capsys.readouterr().err
    assert Path("runs/photos.html").is_file()
    assert Path("runs/photos/manifest.json").is_file()
    assert Path("runs/exemplars/manifest.json").is_file()
