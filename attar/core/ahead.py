"""What a step needs, made while the step before it runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """`make(step)`, for steps that are asked for in order: the next one is made in a thread meanwhile.

    For work on the CPU beside a GPU. `make` must depend on the step alone, and touch nothing that the caller changes.
    """

    def __init__(self, make: Callable[[int], T], steps: int) -> None:
        """`steps`: how many there are; none beyond is made."""
        self._make, self._steps = make, steps
        self._thread = ThreadPoolExecutor(1)
        self._coming: tuple[int, Future[T]] | None = None

    def __call__(self, step: int) -> T:
        """What `make` gives for this step; raises what it raises."""
        coming = self._coming
        made = coming[1].result() if coming is not None and coming[0] == step else self._make(step)
        self._coming = (step + 1, self._thread.submit(self._make, step + 1)) if step + 1 < self._steps else None
        return made
