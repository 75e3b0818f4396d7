"""Recipes in columns, one line a field, for the terminal. Loads no torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from attar.core.wording import aligned
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import PUBLISHED_NETWORKS, RECIPES
from attar.evaluation.records import as_text

_WIDEST = 14
"""A longer value stands below the table, and its letter in it."""


def side_by_side(names: Sequence[str] | None = None, width: int | None = None) -> str:
    """Every field of the recipes (default: all), as many beside each other as the terminal has room for.

    Raises:
        AttarError: there is no recipe of that name.
    """
    recipes = [RECIPES.open(name) for name in names or RECIPES]
    notes: dict[str, str] = {}
    columns = [_column(recipe, notes) for recipe in recipes]
    first = max(map(len, _fields())) + 2
    room = (width or shutil.get_terminal_size((160, 24)).columns) - first
    row_names = ["", "", *_fields()]
    parts = [
        "\n".join(aligned(list(zip(row_names, *block, strict=True)), "l" * (len(block) + 1)))
        for block in _blocks(columns, room)
    ]
    long = "\n".join(f"[{letter}] {value}" for value, letter in notes.items())
    networks = "\n".join(f"{recipe.name}: {', '.join(PUBLISHED_NETWORKS[recipe.name])}" for recipe in recipes)
    sources = "\n".join(f"{recipe.name}: {recipe.source}" for recipe in recipes)
    blocks = [*parts, long, f"Networks that they are published with\n{networks}", f"Sources\n{sources}"]
    return "\n\n".join(block for block in blocks if block) + "\n\nAny field can be set; the result then says modified."


def _fields() -> list[str]:
    return [field.name for field in fields(Recipe) if field.name not in ("name", "source")]


def _column(recipe: Recipe, notes: dict[str, str]) -> list[str]:
    """The recipe's name in two lines, and the value of each field; long values are put into the notes."""
    head, _, rest = recipe.name.partition("-")
    return [head, rest and f"-{rest}", *(_cell(getattr(recipe, name), notes) for name in _fields())]


def _cell(value: Any, notes: dict[str, str]) -> str:
    text = (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else as_text(value)
    return text if len(text) <= _WIDEST else f"[{notes.setdefault(text, chr(ord('a') + len(notes)))}]"


def _blocks(columns: Sequence[list[str]], room: int) -> Iterator[list[list[str]]]:
    """The columns in groups that are as wide as there is room, with at least one in each."""
    block, used = list[list[str]](), 0
    for column in columns:
        if block and used + _wide(column) > room:
            yield block
            block, used = [], 0
        block, used = [*block, column], used + _wide(column)
    yield block


def _wide(column: Sequence[str]) -> int:
    return max(map(len, column)) + 2
