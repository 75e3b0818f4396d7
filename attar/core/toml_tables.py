"""Tables of a TOML file, word by word: what is no key, no label, no list or no number is an error that names it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from attar.core import limits
from attar.core.config import parsed
from attar.core.errors import AttarError, explained, suggestion

TomlTable = dict[str, Any]


def read_table_file(file: Path, field: str) -> Any:
    """What the TOML file, or by its suffix the JSON file, that a field names holds.

    Raises:
        AttarError: it cannot be read as such.
    """
    with explained(f"`{field}` {file}: cannot be read as {file.suffix or 'TOML'}", OSError, ValueError, RecursionError):
        text = file.read_text(encoding="utf-8")
        return json.loads(text) if file.suffix == ".json" else tomllib.loads(text)


def keyed(written: TomlTable, allowed: Collection[str], where: str) -> TomlTable:
    """The table with hyphens in its keys as underscores.

    Raises:
        AttarError: a key that is not known.
    """
    own = {name.replace("-", "_"): value for name, value in written.items()}
    for name in own:
        known(name, allowed, where, "key")
    return own


def known(name: str, names: Collection[str], where: str, what: str) -> None:
    """Raises AttarError unless the name is one of those."""
    if name not in names:
        raise AttarError(f"{where}: no {what} {name!r}{suggestion(name, names)}; there are: {', '.join(names)}")


def labelled_tables(written: Any, where: str) -> dict[str, TomlTable]:
    """The tables under [where.LABEL], at least one, whose labels can name folders."""
    tables = {label: table(own, f"[{where}.{label}]") for label, own in table(written, where).items()}
    if not tables:
        raise AttarError(f"[{where}.LABEL]: at least one")
    for label in tables:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", label):
            raise AttarError(f"[{where}.{label}]: a label is of letters, digits and -_.+ (it names a folder)")
    return tables


def table(written: Any, where: str) -> TomlTable:
    """What was written, if it is a table."""
    if not isinstance(written, dict):
        raise AttarError(f"{where} must be a table")
    return written


def texts(written: Any, where: str) -> list[str]:
    """One text or a list of them, none twice."""
    values = [written] if isinstance(written, str) else written
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise AttarError(f"{where} = {written!r}: a list of texts")
    return list(dict.fromkeys(values))


def numbers(written: Any, where: str) -> tuple[int, ...]:
    """One whole number above 0 or a list of them, in order, none twice."""
    values = parsed(written if isinstance(written, list) else [written], tuple[int, ...], where)
    if not values or min(values) < 1:
        raise AttarError(f"{where} = {written!r}: whole numbers of 1 or more")
    return tuple(sorted(set(values)))


def seed_list(written: Any, where: str) -> tuple[int, ...]:
    """How many seeds, from 0 on, or a list of them."""
    if not isinstance(written, list):
        return tuple(limits.seeds(parsed(written, int, where), f"{where} ="))
    values = parsed(written, tuple[int, ...], where)
    if not values:
        raise AttarError(f"{where} = {written!r}: at least one")
    for seed in values:
        limits.check_seed(where, seed)
    limits.check_most(f"{where}, of which there are", len(values), limits.SEEDS)
    return tuple(dict.fromkeys(values))
