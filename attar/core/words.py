"""Numbers of things in words."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """ "1 image", "12,000 images", "2 classes"."""
    several = f"{thing}es" if thing.endswith("ss") else f"{thing}s"
    return f"{number:,} {thing if number == 1 else several}"
