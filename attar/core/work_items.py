"""Items: pieces of work that this process or the workers of a cluster make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from attar.core.errors import AttarError


class WorkItem(Protocol):
    """Work that ends in the store, published at once, so that it can be broken off, repeated, or made elsewhere.

    It is pickled for workers; what is large in it is opened there, once.
    """

    @property
    def what(self) -> str:
        """It, in words: "prior of 'cat' and 3 more"."""
        ...

    @property
    def done(self) -> bool:
        """Whether all that it makes is there."""
        ...

    def make(self) -> None:
        """Makes what is missing of it."""
        ...


@dataclass(frozen=True)
class Lost:
    """An item that could not be made."""

    item: WorkItem
    error: AttarError
