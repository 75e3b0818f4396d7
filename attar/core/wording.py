"""Counts, sizes, lists and tables in words."""

from __future__ import annotations

import math
from collections.abc import Sequence


def counted(number: int, thing: str) -> str:
    """ "1 image", "12,000 images", "2 classes"."""
    several = f"{thing}es" if thing.endswith("ss") else f"{thing}s"
    return f"{number:,} {thing if number == 1 else several}"


def size(count: float) -> str:
    """Bytes in words: "12 MiB", "1.5 GiB"."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{math.ceil(count / 2**20):,} MiB"


def listed(names: Sequence[str], shown: int = 20) -> str:
    """The first names with commas between them, and how many more there are: "ant, bee and 8 more"."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def aligned(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """A table in lines, two spaces between its columns; `align` has an l or an r for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    place = {"l": str.ljust, "r": str.rjust}
    columns = list(zip(align, widths, strict=True))
    return [
        "  ".join(place[side](cell, width) for cell, (side, width) in zip(row, columns, strict=True)).rstrip()
        for row in rows
    ]
