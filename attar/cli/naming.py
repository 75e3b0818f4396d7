"""Fields in messages and notes, called by the flags that set them: the one place where it is done."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attar.core.config import field_rows
from attar.core.errors import AttarError

Example = Callable[[Mapping[str, Any]], Any]
"""Makes an object of a command's own parameters; its fields are what the command's --set can set."""

_FIELD = re.compile(r"`([a-z]\w*(?:\.\w+)*)(?: ?= ?([^`]*))?`")
"""A field in backticks, with a value or without: `tile`, `select.pool`, `baseline = false`."""


@dataclass(frozen=True)
class Names:
    """What the fields are called that a command can set."""

    flags: Mapping[str, str] = field(default_factory=dict)
    """Field -> flag."""
    settable: Mapping[str, Example] = field(default_factory=dict)
    """A flag such as --set -> an object whose fields it sets."""

    def spoken(self, text: str, options: Mapping[str, Any] | None = None) -> str:
        """A text with its fields called by their flags; `options`: what the user gave.

        What the command cannot set stays as it is, and so does what is no field, such as a command.
        """

        def flag(match: re.Match[str]) -> str:
            name, value = match.groups()
            if (own := self.flags.get(name)) is not None:
                negative = value is not None and value.strip() == "false"
                return f"--no-{own[2:]}" if negative else own + (f" {value}" if value and value != "true" else "")
            for setting, example in self.settable.items():
                if (dotted := _settable(name, example, options or {})) is not None:
                    return f"{setting} {dotted}" + (f"={value}" if value else "")
            return match.group()

        return _FIELD.sub(flag, text)


def _settable(name: str, example: Example, options: Mapping[str, Any]) -> str | None:
    """The dotted name of a field that --set knows; a bare name may be that of a part's field, if of one alone."""
    try:
        known = [row[0] for row in field_rows(example(options))]
    except (AttarError, KeyError):
        return None
    inner = [dotted for dotted in known if dotted.rpartition(".")[2] == name]
    return name if name in known else inner[0] if len(inner) == 1 else None
