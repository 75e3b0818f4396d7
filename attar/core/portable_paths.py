"""Paths as they may be shown to others: without the folders of this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_PLACE = re.compile(r"((?:[a-z]+:)?)(/.+?)((?:@[\w-]+)?)")
"""An absolute path, as it is or in a data spec: "imagefolder:/home/me/photos@train"."""


def portable(text: str) -> str:
    """A path, or a spec that names one, without the folders of this machine.

    It is given relative to the current folder, to the home folder, or as ".../" and its last two names; other text
    stays.
    """
    return _shortened(text, {Path.cwd(): "", Path.home(): "~/"}, 2)


def last_name(text: str) -> str:
    """The same wherever it is said: ".../" and the last name alone."""
    return _shortened(text, {}, 1)


def _shortened(text: str, roots: dict[Path, str], names: int) -> str:
    found = _PLACE.fullmatch(text)
    if found is None:
        return text
    path = Path(found[2])
    for root, short in roots.items():
        if path.is_relative_to(root):
            return f"{found[1]}{short}{path.relative_to(root)}{found[3]}"
    return f"{found[1]}.../{'/'.join(path.parts[1:][-names:])}{found[3]}"


def portable_all(value: Any) -> Any:
    """The same of every text within tables and lists."""
    if isinstance(value, dict):
        return {key: portable_all(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable_all(one) for one in value]
    return portable(value) if isinstance(value, str) else value
