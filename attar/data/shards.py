"""Which parquet files make up a split, and whether all of them are there."""

from __future__ import annotations

import re
from pathlib import Path

from attar.core.errors import AttarError
from attar.core.wording import counted, listed

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(-[0-9a-f]{16})?$")


def files(folder: Path) -> dict[str, list[Path]]:
    """The parquet files of each split of a folder, in sorted order."""
    by_split: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.parquet")):
        by_split.setdefault(_SHARD.sub("", file.stem), []).append(file)
    for file in sorted(folder.glob("*/*.parquet")):
        name = file.parent.name
        if name == "data":  # as repositories on the hub have it
            name = _SHARD.sub("", file.stem)
        if not name.startswith("."):
            by_split.setdefault(name, []).append(file)
    return by_split


def whole_split(split: str, files: list[Path]) -> list[Path]:
    """The files of a split: the shards of one division, each of them once, or none that is called a shard.

    Raises:
        AttarError: shards are missing, or other files of the split lie beside them.
    """
    shards = {file: match for file in files if (match := _SHARD.search(file.stem))}
    if not shards:
        return files
    numbers = sorted((int(match[1]), int(match[2])) for match in shards.values())
    count = numbers[0][1]
    if len(shards) < len(files) or len(set(numbers)) < len(numbers) or any(of != count for _, of in numbers):
        names = listed([file.name for file in files], 6)
        raise AttarError(
            f"{files[0].parent}: split {split} is there more than once, in {names}; keep one set of shards"
        )
    if missing := [f"{split}-{n:05d}-of-{count:05d}.parquet" for n in range(count) if (n, count) not in numbers]:
        raise AttarError(
            f"{files[0].parent}: split {split} lacks {len(missing)} of its {counted(count, 'shard')}: {listed(missing)}"
        )
    return files
