"""What is shown of how far a command is: each stage says it of itself, and never less than before."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from toys import attar, save_folder, save_tiny_dit

from attar.core.progress import lines


def test_no_percentage_stands_for_the_whole_command(capsys: pytest.CaptureFixture[str]) -> None:
    with lines(0.0) as progress:
        progress("encoding, 4/4 images", 1.0)
        progress("sampling, 1/8 images", 0.125)
    told = capsys.readouterr().err
    assert re.findall(r"\d\] (.+)|s\] (.+)", told) == [("", "encoding, 4/4 images"), ("", "sampling, 1/8 images")]
    assert "%" not in told


def test_no_stage_goes_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run, and of an evaluation with two seeds beside random images."""
    for split in ("train", "test"):
        save_folder(tmp_path / "data" / split, ["ant", "bee"], each=8)
    told: list[tuple[str, str, float]] = []
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("attar.training.meters.SECONDS", 0.0)

    class Shown:
        def __enter__(self) -> object:
            return lambda text, fraction: told.append((sys.argv[1], text, fraction))

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("attar.core.progress.lines", Shown)
    prior = ["--prior", save_tiny_dit(tmp_path / "dit", ["ant", "bee"]), "--set", "sampler.steps=4"]
    data = ["--data", f"imagefolder:{tmp_path / 'data'}@train", "--device", "cpu"]
    made = ["--method", "prior", "--ipc", 4, "--out", tmp_path / "set"]
    assert attar(monkeypatch, "distill", *data, *prior, *made) == 0
    trained = ["--network", "convnet3-w8", "--seeds", 2, "--set", "steps=5", "--device", "cpu"]
    assert attar(monkeypatch, "evaluate", tmp_path / "set", *trained) == 0
    stages: dict[str, list[float]] = {}
    for command, text, fraction in told:
        stages.setdefault(f"{command}: {re.split(r', (?:[0-9]|seed)', text)[0]}", []).append(fraction)
    assert any("random real images" in stage for stage in stages)
    assert len(told) > 20
    for stage, fractions in stages.items():
        assert fractions == sorted(fractions), stage
        assert all(0 <= fraction <= 1 for fraction in fractions), stage
