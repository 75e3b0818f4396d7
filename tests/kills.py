"""Processes that die by kill -9 at the n-th event of a stage, on however fast a machine.

An event is that progress is told, or that a file or folder below a given one is about to be made, renamed or removed.
The clock of such a process goes on by a second whenever it is read, so that every step tells its progress.
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
    """Counts what happens in each stage, in this process, from now on, and dies when `what` happens for the n-th time.

    What happens is "STAGE told" or "STAGE changed". A stage is the first word of what progress tells, and lasts until
    another is told.
    """

    def __init__(self, folder: Path, what: str = "", nth: int = 0) -> None:
        self.folder, self.fatal = str(folder), (what, nth)
        self.stage = "before"
        self.count: Counter[str] = Counter()
        time.monotonic = itertools.count(0.0).__next__
        sys.addaudithook(self._audited)

    def progress(self, text: str, fraction: float) -> None:
        self.stage = text.split()[0].rstrip(",:")
        self._happened("told")

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(self.count))

    def _audited(self, name: str, words: tuple[Any, ...]) -> None:
        opened = name == "open" and isinstance(words[2], int) and words[2] & WRITING
        if (opened or name in CHANGES) and str(words[0]).startswith(self.folder):
            self._happened("changed", words if opened else None)

    def _happened(self, how: str, opened: tuple[Any, ...] | None = None) -> None:
        what = f"{self.stage} {how}"
        self.count[what] += 1
        if (what, self.count[what]) != self.fatal:
            return
        if opened:  # it dies with the file half written
            os.write(os.open(opened[0], opened[2], 0o666), b"half")
        os.kill(os.getpid(), signal.SIGKILL)
