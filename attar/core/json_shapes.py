"""What a JSON file that people may have edited must hold, key by key; what does not fit is named."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from attar.core.errors import AttarError, reason

MOST = 2**53
"""No whole number may be larger: beyond it, JSON readers round."""
LONGEST = 4096
"""Characters of a text that is used: longer ones are no names of anything."""
DEEPEST = 50
"""How many lists and objects may stand in one another."""


class ValueKind(NamedTuple):
    """What a single value may be."""

    words: str
    """After "is not"."""
    holds: Callable[[Any], bool]


class Maybe(NamedTuple):
    """That, or null."""

    of: Shape


class Many(NamedTuple):
    """A list of such."""

    of: Shape
    least: int = 0
    unique: bool = False


class Values(NamedTuple):
    """An object of such, whatever its keys."""

    of: Shape


Shape = ValueKind | Maybe | Many | Values | Mapping[str, "Shape"]
"""A mapping is an object with these keys. Those that may be missing end in a question mark; others are left alone."""


def whole(least: int, most: int = MOST) -> ValueKind:
    """A whole number in a range."""
    words = "a whole number" if least == -MOST else f"a whole number of {least} or more"
    return ValueKind(words, lambda x: isinstance(x, int) and not isinstance(x, bool) and least <= x <= most)


def number(least: float = -math.inf, most: float = math.inf) -> ValueKind:
    """A finite number in a range."""
    words = "a number" if least == -math.inf else f"a number of {least:g} or more"
    words = words if most == math.inf else f"a number from {least:g} to {most:g}"
    return ValueKind(
        words, lambda x: (isinstance(x, float) or WHOLE.holds(x)) and math.isfinite(x) and least <= x <= most
    )


WHOLE = whole(-MOST)
MEASURED = ValueKind("a number", lambda x: isinstance(x, float) or WHOLE.holds(x))
"""A measured number, which may be NaN or infinite."""
TEXT = ValueKind(f"a text of at most {LONGEST} characters", lambda x: isinstance(x, str) and len(x) <= LONGEST)
NAME = ValueKind("a word", lambda x: isinstance(x, str) and bool(re.fullmatch(r"[a-z0-9-]{1,60}", x)))
FLAG = ValueKind("true or false", lambda x: isinstance(x, bool))
TABLE = ValueKind("an object", lambda x: isinstance(x, dict))
DIGEST = ValueKind("a digest of 32 digits", lambda x: isinstance(x, str) and bool(re.fullmatch("[0-9a-f]{32}", x)))


def mistake(value: Any, shape: Shape, name: str = "it") -> str | None:
    """What is wrong with a value, in words that begin with its name; None if nothing is."""
    if isinstance(shape, ValueKind):
        return None if shape.holds(value) else f"{name} is {_short(value)}, not {shape.words}"
    if isinstance(shape, Maybe):
        return None if value is None else mistake(value, shape.of, name)
    if isinstance(shape, Many):
        return _mistake_in_list(value, shape, name)
    if not isinstance(value, dict):
        return f"{name} is {_short(value)}, not an object"
    inside = "" if name == "it" else f"{name}."
    if isinstance(shape, Values):
        mistakes = (mistake(part, shape.of, f"{inside}{key}") for key, part in value.items())
        return next((wrong for wrong in mistakes if wrong), None)
    for written, inner in shape.items():
        key = written.removesuffix("?")
        if key == written and key not in value:
            return f"{inside}{key} is missing"
        if key in value and (wrong := mistake(value[key], inner, f"{inside}{key}")):
            return wrong
    return None


def _mistake_in_list(value: Any, shape: Many, name: str) -> str | None:
    if not isinstance(value, list):
        return f"{name} is {_short(value)}, not a list"
    if len(value) < shape.least:
        return f"{name} is an empty list"
    mistakes = (mistake(part, shape.of, f"{name}[{place}]") for place, part in enumerate(value))
    if wrong := next((wrong for wrong in mistakes if wrong), None):
        return wrong
    return f"{name} names something twice" if shape.unique and len(set(value)) < len(value) else None


def read_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        AttarError: it cannot be read, is no JSON, or holds what no honest one does: an object with one key twice, half
            characters, lists in lists in lists.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_once)
        _walk(value, DEEPEST)
    except OSError as error:
        raise AttarError(f"{file} cannot be read ({reason(error)})") from error
    except (ValueError, RecursionError) as error:
        raise AttarError(f"{file} is damaged: not JSON as Attar writes it ({error})") from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return table


def _walk(value: Any, left: int) -> None:
    if left == 0:
        raise ValueError(f"more than {DEEPEST} lists and objects in one another")
    if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
        raise ValueError(f"{value[:50]!r} is no text")
    if isinstance(value, (dict, list)):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            _walk(part, left - 1)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:50]} ..."
