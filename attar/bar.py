"""How progress is shown: a bar on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from attar.progress import Progress


@contextmanager
def bar() -> Iterator[Progress]:
    """A rich progress bar, with the time that remains of the piece of work at hand."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Rich

    columns = (
        BarColumn(30),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Rich(*columns, console=Console(stderr=True), transient=True) as rich:
        task: TaskID | None = None
        last, seen = "", 0.0

        def show(text: str, fraction: float) -> None:
            nonlocal task, last, seen
            stage = text.split(",")[0]
            if task is None or stage != last or fraction < seen:
                if task is not None:
                    rich.remove_task(task)
                task, last = rich.add_task(text, total=1.0), stage
            seen = fraction
            rich.update(task, completed=fraction, description=text)

        yield show


@contextmanager
def lines(seconds: float = 10.0) -> Iterator[Progress]:
    """A line on standard error when a stage has gone on for so many seconds since the last one."""
    told = begun = time.monotonic()

    def show(text: str, fraction: float) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= seconds:
            told = now
            print(f"[{now - begun:6.0f} s] {fraction:4.0%} {text}", file=sys.stderr, flush=True)

    yield show
