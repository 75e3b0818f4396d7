"""Processes that die by kill -9 at the n-th event of a stage, on however fast a machine.

An event is a progress call, or a file or folder that is about to be made, renamed or removed below a given folder. The
clock of such a process goes on by a second whenever it is read, so that every step tells its progress.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import attar

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
WRITING = os.O_WRONLY | os.O_RDWR

THEIRS = [
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.transformers.dit_transformer_2d",
    "diffusers.pipelines.dit.pipeline_dit",
    "sklearn.cluster",
    "timm.data",
    "torchvision.transforms",
]
"""What a run imports of others on its way."""

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([*(found.name for found in walk_packages(attar.__path__, "attar.")), *THEIRS])


def ended(run: Callable[..., None], *words: Any) -> int:
    """How `run(*words)` ended in a process of its own: 0, an exit code, or less than 0 for a signal."""
    process = context.Process(target=run, args=words)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


class Events:
    """Counts the events of each stage, in this process, from now on; dies at the `fatal`-th of `stage`.

    A stage is the first word of what progress tells, and lasts until another is told.
    """

    def __init__(self, folder: Path, stage: str = "", fatal: int = 0) -> None:
        self.folder, self.stage, self.fatal = str(folder), stage, fatal
        self.now = "before"
        self.count: Counter[str] = Counter()
        time.monotonic = itertools.count(0.0).__next__
        sys.addaudithook(self._changed)

    def progress(self, text: str, fraction: float) -> None:
        self.now = text.split()[0].rstrip(",:")
        self._another()

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(self.count))

    def _changed(self, name: str, words: tuple[Any, ...]) -> None:
        made = name == "open" and isinstance(words[2], int) and words[2] & WRITING
        if (made or name in CHANGES) and str(words[0]).startswith(self.folder):
            self._another(words if made else None)

    def _another(self, opened: tuple[Any, ...] | None = None) -> None:
        self.count[self.now] += 1
        if (self.now, self.count[self.now]) != (self.stage, self.fatal):
            return
        if opened:  # it dies with the file half written
            os.write(os.open(opened[0], opened[2], 0o666), b"half")
        os.kill(os.getpid(), signal.SIGKILL)
