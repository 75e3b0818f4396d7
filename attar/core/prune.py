"""Makes room in the cache, beside running jobs: the least recently used goes first."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from attar.core.cache import CacheContents, CachedArtefact, Unfinished, contents, held
from attar.core.cache_users import oldest_running
from attar.core.errors import AttarError
from attar.core.files import writing

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class Pruned:
    """What a pruning did, or would do."""

    removed: tuple[CachedArtefact | Unfinished, ...]
    """What went, the least recently used first."""
    in_use: tuple[CachedArtefact | Unfinished, ...]
    """What should have gone, but a running job has used it since it began, or works on it."""
    left: int
    """Bytes that are left."""

    @property
    def freed(self) -> int:
        """Bytes that went."""
        return sum(item.bytes for item in self.removed)


def prune(
    root: Path | None = None,
    *,
    older_than: float | None = None,
    max_size: int | None = None,
    kind: str | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Removes what was not used for `older_than` seconds, then what is above `max_size` bytes; of one `kind`, or all.

    What another process has used since it began stays. Unfinished work goes by age alone, and never while a process is
    at it.

    Raises:
        AttarError: neither an age nor a size is given.
        Unwritable: the cache cannot be written.
    """
    if older_than is None and max_size is None:
        raise AttarError("say what may go: older_than (30d), max_size (50GB), or both")
    for name, value in (("older_than", older_than), ("max_size", max_size)):
        if value is not None and not value >= 0:
            raise AttarError(f"`{name}` {value}: must be 0 or more")
    cache, now = contents(root, kind), time.time()
    begun = oldest_running(cache.root)
    left, removed, in_use = cache.bytes, list[CachedArtefact | Unfinished](), list[CachedArtefact | Unfinished]()
    for item in cache.by_use:
        old = older_than is not None and now - item.used > older_than
        much = max_size is not None and left > max_size
        if not (old or (much if isinstance(item, CachedArtefact) else item.left_over)):
            continue
        if _in_use(item, begun) or not (dry_run or _removed(cache, item)):
            in_use.append(item)
        else:
            removed.append(item)
            left -= item.bytes
    return Pruned(tuple(removed), tuple(in_use), left)


def _in_use(item: CachedArtefact | Unfinished, begun: float | None) -> bool:
    """Whether a process works on it, or may have used it; the first of those that run began at `begun`."""
    if isinstance(item, Unfinished):
        return item.running
    return begun is not None and item.used >= begun


def _removed(cache: CacheContents, item: CachedArtefact | Unfinished) -> bool:
    """Removes a folder, unless a process works on it or has used it meanwhile: aside by a rename, then for good."""
    aside = item.folder.with_name(f".{item.key}.{os.getpid()}.pruned")
    with writing(cache.root), held(cache.root, item.kind, item.key) as free:
        if not free:
            return False
        try:
            os.rename(item.folder, aside)
        except FileNotFoundError:  # another pruning was faster
            return False
        if isinstance(item, CachedArtefact) and aside.stat().st_mtime > item.used:
            os.rename(aside, item.folder)
            return False
        shutil.rmtree(aside)
    return True


def seconds_of(text: str, field: str) -> float:
    """An age in words, `30d`, in seconds.

    Raises:
        AttarError: it is none.
    """
    return _measured(text, field, _UNITS, "an age such as 45m, 12h, 30d or 8w")


def bytes_of(text: str, field: str) -> int:
    """A size in words, `50GB`, in bytes.

    Raises:
        AttarError: it is none.
    """
    return int(_measured(text.upper(), field, _SIZES, "a size such as 500MB, 50GB or 2TB"))


def _measured(text: str, field: str, units: dict[str, int], example: str) -> float:
    if re.fullmatch(r"0+(\.0+)?", text.strip()):
        return 0.0
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)", text.strip())
    if parts is None or parts[2] not in units:
        raise AttarError(f"{field} {text}: must be {example}")
    return float(parts[1]) * units[parts[2]]
