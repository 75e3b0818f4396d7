"""How far a long piece of work is: what stages tell, whoever shows it."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, float], None]
"""Called with a text and the fraction done, 0 to 1."""
Say = Callable[[str], None]
"""Called with a line for the user."""


def silent(text: str, fraction: float) -> None:
    """Shows nothing."""


def quiet(text: str) -> None:
    """Says nothing."""


def duration(seconds: float) -> str:
    """A time in words, to about two digits."""
    if not 0 <= seconds < math.inf:
        return "an unknown time"
    if seconds < 0.01:
        return "under 0.01 s"
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:,.0f} days"


def about(seconds: float) -> str:
    """An estimated time in words: "about 3.5 s"; what is no number of its own is not "about" it."""
    words = duration(seconds)
    return f"about {words}" if words[0].isdigit() else words


def per_second(count: int, seconds: float) -> str:
    """A rate in words: 1,200/s, or of what is slow 3.5 s each."""
    if not count:
        return "0/s"
    each = max(seconds, 1e-6) / count
    return f"{1 / each:,.0f}/s" if each < 0.1 else f"{1 / each:.1f}/s" if each < 1 else f"{duration(each)} each"


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call after the first one: the median of nine, or of as many as fit in half a second."""
    call()
    seconds = list[float]()
    while sum(seconds) < 0.5 and len(seconds) < 9:
        begun = time.monotonic()
        call()
        seconds.append(time.monotonic() - begun)
    return max(statistics.median_low(seconds), 1e-9)


def timed_on(call: Callable[[], object], device: torch.device) -> float:
    """The same, with the work that the call leaves to a GPU."""

    def whole() -> None:
        call()
        if device.type == "cuda":
            import torch

            torch.cuda.synchronize(device)

    return timed(whole)


class Meter:
    """Counts units of work and tells `progress` their number and rate, at most a few times a second."""

    def __init__(self, progress: Progress, text: str, total: int, unit: str) -> None:
        self.progress, self.text, self.total, self.unit = progress, text, total, unit
        self.done = 0
        self.begun = self.shown_at = time.monotonic()
        if total:
            progress(f"{text}, 0/{total:,} {unit}", 0.0)

    def add(self, count: int = 1) -> None:
        """`count` more units are done."""
        self.done += count
        now = time.monotonic()
        if now - self.shown_at < 0.2 and self.done < self.total:
            return
        self.shown_at = now
        text = f"{self.text}, {self.done:,}/{self.total:,} {self.unit}, {per_second(self.done, now - self.begun)}"
        self.progress(text, min(1.0, self.done / max(self.total, 1)))

    def within(self, count: int, steps: int) -> Callable[[object], None]:
        """What to call at each of `steps` of the next `count` units of work: it moves the bar and counts nothing."""
        taken = 0

        def step(_: object) -> None:
            nonlocal taken
            taken += 1
            now = time.monotonic()
            if now - self.shown_at >= 0.2:
                self.shown_at = now
                fraction = (self.done + count * taken / steps) / max(self.total, 1)
                self.progress(f"{self.text}, {self.done:,}/{self.total:,} {self.unit}", min(1.0, fraction))

        return step


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
    """A line on standard error when a stage has gone on for this many seconds since the last one.

    It says what the stage says of itself, and no percentage: nobody knows how much of the command a stage is.
    """
    shown_at = begun = time.monotonic()

    def show(text: str, fraction: float) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if now - shown_at >= seconds:
            shown_at = now
            print(f"[{now - begun:6.0f} s] {text}", file=sys.stderr, flush=True)

    yield show
