"""How far a long piece of work is: what stages tell, whoever shows it."""

from __future__ import annotations

import math
import re
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
LEFT = re.compile(r"(.*)[,;] (\S.* left(?: of this item)?)")
"""What says itself how much time is left, of the whole command or of one of its items."""
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


def per_second(count: float, seconds: float) -> str:
    """A rate in words: 1,200/s, or of what is slow 3.5 s each."""
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
        rate = f", {per_second(self.done, now - self.begun)}" if self.done else ""
        self.progress(
            f"{self.text}, {self.done:,}/{self.total:,} {self.unit}{rate}", min(1.0, self.done / max(self.total, 1))
        )

    def within(self, count: int, steps: int) -> Callable[[object], None]:
        """What to call at each of `steps` of the next `count` units of work: it moves the bar and counts nothing."""
        taken = 0

        def step(_: object) -> None:
            nonlocal taken
            taken += 1
            now = time.monotonic()
            if now - self.shown_at >= 0.2:
                self.shown_at = now
                done = self.done + count * taken / steps
                text = f"{self.text}, {self.done:,}/{self.total:,} {self.unit}, {per_second(done, now - self.begun)}"
                self.progress(text, min(1.0, done / max(self.total, 1)))

        return step


def of_item(progress: Progress) -> Progress:
    """For an item of a longer command: the time that it says is left is its own."""

    def tell(text: str, fraction: float) -> None:
        progress(f"{text} of this item" if LEFT.fullmatch(text) and text.endswith(" left") else text, fraction)

    return tell


UNFINISHED = 0.9999
"""A bar that is full would stop its clock."""


class StageClock:
    """Adds to what a stage tells how long the stage has left, where it does not say what the whole command has."""

    def __init__(self) -> None:
        self.stage, self.begun, self.first, self.last = "", 0.0, 0.0, 0.0

    def timed(self, text: str, fraction: float) -> tuple[str, str]:
        """The text, and the time left in words; none before a fiftieth of the stage is done."""
        if said := LEFT.fullmatch(text):
            return said[1], said[2]
        now, stage = time.monotonic(), text.split(",")[0]
        if stage != self.stage or fraction < self.last:
            self.stage, self.begun, self.first = stage, now, fraction
        self.last = fraction
        done = fraction - self.first
        return text, f"{duration((now - self.begun) * (1 - fraction) / done)} left" if 0.02 < done < 1 else ""


@contextmanager
def bar() -> Iterator[Progress]:
    """Two rows of a terminal: what is done, without its middle where it is too long, and a bar with the times."""
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Rich
    from rich.text import Text

    console = Console(stderr=True)

    class Rows(Rich):
        text = ""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield Text(without_middle(self.text, console.width), no_wrap=True)
            yield self.make_tasks_table(self.tasks)

    columns = (BarColumn(30), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Rows(*columns, console=console, transient=True) as rich:
        clock = StageClock()
        task = rich.add_task("", total=1.0, visible=False)

        def show(text: str, fraction: float) -> None:
            rich.text, left = clock.timed(text, fraction)
            rich.update(task, completed=min(fraction, UNFINISHED), description=left, visible=True)

        yield show


def without_middle(text: str, width: int) -> str:
    """As much of a text as fits: its first word, what is done, where that is short, and the numbers at its end."""
    if len(text) <= width:
        return text
    word = text.split(" ")[0]
    start = f"{word} …" if len(word) < width // 4 else "…"
    return start + text[len(text) - width + len(start) :]


@contextmanager
def lines(seconds: float = 10.0) -> Iterator[Progress]:
    """A line on standard error when a stage has gone on for this many seconds since the last one.

    It says what the stage says of itself, and no percentage: nobody knows how much of the command a stage is.
    """
    shown_at = begun = time.monotonic()
    clock = StageClock()

    def show(text: str, fraction: float) -> None:
        nonlocal shown_at
        now, (text, left) = time.monotonic(), clock.timed(text, fraction)
        if now - shown_at >= seconds:
            shown_at = now
            print(f"[{now - begun:6.0f} s] {text}{left and f', {left}'}", file=sys.stderr, flush=True)

    yield show
