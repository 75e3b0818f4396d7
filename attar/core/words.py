"""Numbers in words."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """A number of things in words: "1 image", "12,000 images"; `many` where it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
