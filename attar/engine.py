"""Map a function over items: here, or (later) on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


class Engine(Protocol):
    """Applies a picklable function to picklable items; results come in the items' order."""

    def map(self, function: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]: ...


class Local:
    """One item after the other in this process."""

    def map(self, function: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
        return map(function, items)
