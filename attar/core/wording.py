"""Counts and lists in words."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, thing: str) -> str:
    """ "1 image", "12,000 images", "2 classes"."""
    several = f"{thing}es" if thing.endswith("ss") else f"{thing}s"
    return f"{number:,} {thing if number == 1 else several}"


def listed(names: Sequence[str], shown: int = 20) -> str:
    """The first names with commas between them, and how many more there are: "ant, bee and 8 more"."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
