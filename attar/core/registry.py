"""What there is of one kind, by name: a literal table that is listed without importing what it names."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

from attar.core.errors import AttarError, suggestion

T = TypeVar("T")


class Registry(Collection[str], Generic[T]):
    """A table of names. Listing it imports nothing; opening a name imports what it stands for.

    A target is a thing itself or "module:attribute", a module alone being one, too. `patterns` (regular expression ->
    row) are families of names that hold parameters, such as convnet4-w64: each belongs to a row.
    """

    def __init__(
        self, noun: str, table: Mapping[str, tuple[T | str, str]], patterns: Mapping[str, str] | None = None
    ) -> None:
        """`table`: name -> (target, what it is in one line)."""
        self.noun, self._table = noun, dict(table)
        self._patterns = {re.compile(pattern): row for pattern, row in (patterns or {}).items()}

    def names(self) -> tuple[str, ...]:
        """The names, in the table's order."""
        return tuple(self._table)

    def describe(self, name: str) -> str:
        """What a name stands for, in one line.

        Raises:
            AttarError: there is no such name.
        """
        return self._table[name if name in self._table else self.row(name)][1]

    def open(self, name: str) -> T:
        """What a name stands for, imported.

        Raises:
            AttarError: there is no such name.
        """
        target = self._table[self.row(name)][0]
        return cast(T, _imported(target) if isinstance(target, str) else target)

    def check(self, name: str) -> None:
        """Raises AttarError, with the names that may have been meant, unless there is such a name."""
        self.row(name)

    def row(self, name: str) -> str:
        """The row of the table that a name belongs to.

        Raises:
            AttarError: there is none.
        """
        if (row := self.find(name)) is None:
            raise self.unknown(name)
        return row

    def find(self, name: object) -> str | None:
        """The row that a name belongs to, if any."""
        if not isinstance(name, str):
            return None
        matching = (row for pattern, row in self._patterns.items() if pattern.fullmatch(name))
        return name if name in self._table else next(matching, None)

    def unknown(self, name: str) -> AttarError:
        """The error for a name that is not there."""
        known = ", ".join(self._table)
        return AttarError(f"no {self.noun} {name!r}{suggestion(str(name), self._table)}; there are: {known}")

    def __contains__(self, name: object) -> bool:
        return self.find(name) is not None

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)


def _imported(target: str) -> Any:
    name, _, attribute = target.partition(":")
    module = importlib.import_module(name)
    return getattr(module, attribute) if attribute else module
