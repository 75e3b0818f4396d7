"""How far a long piece of work is: what stages tell, whoever shows it."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with a text and the fraction done, 0 to 1."""


def silent(text: str, fraction: float) -> None:
    """Shows nothing."""


class Meter:
    """Counts units of work and tells `progress` their number and rate, at most a few times a second."""

    def __init__(self, progress: Progress, text: str, total: int, unit: str) -> None:
        self.progress, self.text, self.total, self.unit = progress, text, total, unit
        self.done = 0
        self.begun = self.told = time.monotonic()
        if total:
            progress(f"{text}, 0/{total:,} {unit}", 0.0)

    def add(self, count: int = 1) -> None:
        """`count` more units are done."""
        self.done += count
        now = time.monotonic()
        if now - self.told < 0.2 and self.done < self.total:
            return
        self.told = now
        rate = self.done / max(now - self.begun, 1e-9)
        told = f"{self.text}, {self.done:,}/{self.total:,} {self.unit}, {rate:,.0f}/s"
        self.progress(told, min(1.0, self.done / max(self.total, 1)))

    def within(self, count: int, steps: int) -> Callable[[object], None]:
        """To be called `steps` times while the next `count` units are worked on: moves the bar, counts nothing yet."""
        taken = 0

        def step(_: object) -> None:
            nonlocal taken
            taken += 1
            now = time.monotonic()
            if now - self.told >= 0.2:
                self.told = now
                fraction = (self.done + count * taken / steps) / max(self.total, 1)
                self.progress(f"{self.text}, {self.done:,}/{self.total:,} {self.unit}", min(1.0, fraction))

        return step
