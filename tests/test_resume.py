"""kill -9 at random moments of every stage, each from an empty cache, then resumption: the bytes stay the same."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from toys import save_folder, save_tiny_dit

from attar.core.store import Store
from attar.distill.run import distill_sets
from attar.job import Spec
from attar.methods import load_method
from attar.methods.minimax import finetune
from attar.sets.distilled import open_distilled, verify

STAGES = ("encoding", "inverting", "sampling", "decoding")
SETTINGS = {"sampler.steps": 10, "fit.steps": 10, "subsets": 200}

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        "attar.distill.run",
        "attar.distill.pipeline",
        "attar.methods.d3hr.method",
        "attar.methods.minimax.method",
        "attar.priors.dit",
        "diffusers",
    ]
)


def distill_once(
    spec: Spec, name: str, settings: dict[str, Any], out: Path, cache: Path, stage: str, delay: float
) -> None:
    """Runs in a process of its own, and dies there `delay` seconds after `stage` has begun; "" lets it end.

    Decoding is over in a moment here: there it dies while the images are written, after `delay` of them.
    """
    begun = threading.Event()
    finetune.CHECKPOINT_SECONDS = 0.0
    if stage == "decoding":
        _die_while_writing(round(delay))

    def progress(text: str, fraction: float) -> None:
        if stage and text.startswith(stage) and not begun.is_set():
            begun.set()
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    distill_sets(spec, name, load_method(name, settings), (1, 4), out, store=Store(cache), progress=progress)


def _die_while_writing(images: int) -> None:
    from PIL import Image

    save = Image.Image.save
    saved: list[None] = []

    def dying(self: Image.Image, *args: Any, **more: Any) -> None:
        if len(saved) >= images:
            os.kill(os.getpid(), signal.SIGKILL)
        saved.append(save(self, *args, **more))

    Image.Image.save = dying  # type: ignore[method-assign]


def run(*args: object) -> tuple[int, float]:
    began = time.monotonic()
    process = context.Process(target=distill_once, args=args)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, time.monotonic() - began


def digests(out: Path) -> list[dict[str, str]]:
    assert sorted(folder.name for folder in out.iterdir()) == ["ipc-001", "ipc-004"]
    assert all(verify(folder) == [] for folder in out.iterdir())
    return [open_distilled(out / name).manifest["images"] for name in ("ipc-001", "ipc-004")]


def killed_and_resumed(
    spec: Spec,
    settings: dict[str, Any],
    root: Path,
    trials: int,
    window: float,
    name: str = "d3hr",
    stages: tuple[str, ...] = STAGES,
) -> int:
    """How many of the trials died; every one of them ends with the bytes of a run that was left alone."""
    assert run(spec, name, settings, root / "whole", root / "cache", "", 0.0)[0] == 0
    whole, deaths = digests(root / "whole"), 0
    moments = random.Random(0)
    for trial in range(trials):
        out, cache, stage = root / f"out{trial}", root / f"cache{trial}", stages[trial % len(stages)]
        delay = moments.uniform(0, 14) if stage == "decoding" else moments.random() * window
        code, _ = run(spec, name, settings, out, cache, stage, delay)
        deaths += code == -signal.SIGKILL
        assert not out.exists() or all((folder / "manifest.json").exists() for folder in out.glob("[!.]*"))
        assert run(spec, name, settings, out, cache, "", 0.0)[0] == 0
        assert digests(out) == whole, f"bytes differ after a kill while {stage}"
    return deaths


@pytest.mark.slow
def test_ten_kills(tmp_path: Path) -> None:
    data = save_folder(tmp_path / "data", ["a", "b", "c"], each=60)
    spec = Spec(data=str(data), prior=str(save_tiny_dit(tmp_path / "dit", ["a", "b", "c"])), device="cpu")
    assert killed_and_resumed(spec, dict(SETTINGS), tmp_path, trials=10, window=0.3) >= 6


@pytest.mark.slow
def test_kills_of_a_fine_tuning(tmp_path: Path) -> None:
    data = save_folder(tmp_path / "data", ["a", "b", "c"], each=60)
    spec = Spec(data=str(data), prior=str(save_tiny_dit(tmp_path / "dit", ["a", "b", "c"])), device="cpu")
    settings = {"fit.max_steps": 60, "fit.group": 2, "fit.look.times": 0, "sampler.steps": 4, "select.pool": 4}
    assert killed_and_resumed(spec, settings, tmp_path, 2, 1.0, "minimax", ("tuning",)) >= 1


@pytest.mark.slow
@pytest.mark.shared
def test_kills_on_cifar10(tmp_path: Path, shared: Path) -> None:
    spec = Spec(
        data=f"parquet:{shared / 'data/cifar10'}@train",
        prior=str(shared / "priors/cifar10-dit"),
        classes=("cat", "frog", "ship"),
        device="cpu",
    )
    settings = {**SETTINGS, "fit.per_class": 40}
    assert killed_and_resumed(spec, settings, tmp_path, trials=int(os.environ.get("ATTAR_KILLS", "2")), window=2.0) >= 1
