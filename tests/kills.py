"""Processes that a signal ends at the n-th event of a stage, on however fast a machine: kill -9, or Ctrl-C.

An event is that progress is told, or that a file or folder below a given one is about to be made, renamed or removed.
The clock of such a process goes on by a second whenever it is read, so that every step tells its progress.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import attar
import attar.cli
import attar.core.progress

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
    """Counts what happens in each stage, in this process, from now on; a signal comes when `what` happens a n-th time.

    What happens is "STAGE told" or "STAGE changed". A stage is the first word of what progress tells, and lasts until
    another is told.
    """

    def __init__(self, folder: Path, what: str = "", nth: int = 0, number: int = signal.SIGKILL) -> None:
        self.folder, self.fatal, self.number = str(folder), (what, nth), number
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
        if opened and self.number == signal.SIGKILL:  # it dies with the file half written
            os.write(os.open(opened[0], opened[2], 0o666), b"half")
        os.kill(os.getpid(), self.number)


def command(root: Path, words: list[str], *fatal: Any) -> None:
    """`attar WORDS`, in a process of its own: it runs within `root`, its cache and all that it writes below that."""
    os.chdir(root)
    os.environ["ATTAR_CACHE"] = str(root / "cache")
    sys.argv = ["attar", *words]
    events = Events(root, *fatal)
    vars(attar.core.progress)["lines"] = lambda: nullcontext(events.progress)
    try:
        attar.cli.main()
    finally:
        events.save(root / "events.json")


def moments(root: Path, count: int) -> list[tuple[str, int]]:
    """Some of the events that a run below `root` counted, drawn: what, and the how manieth."""
    events, draw = json.loads((root / "events.json").read_text()), random.Random(0)
    kinds = draw.sample(sorted(events), min(count, len(events)))
    return [(what, draw.randint(1, events[what])) for what in kinds]
