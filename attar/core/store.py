"""Fingerprints, locks, scratch folders and atomic publication: what lets every stage resume."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from attar.core.errors import AttarError
from attar.core.files import check_writable, permit, replacing, resumed, write_json, writing

__all__ = [
    "Store",
    "cache_folder",
    "canonical",
    "check_writable",
    "digest",
    "file_digest",
    "fingerprint",
    "note_seconds",
    "replacing",
    "write_json",
]

META = "meta.json"
"""What an artefact is, how long it took, and the size and digest of each of its files."""


def canonical(value: Any) -> Any:
    """A JSON value that is equal for equal objects: frozen dataclasses become their name and fields.

    Raises:
        TypeError: the value holds something whose equality a file cannot record (a tensor, a function, a path).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: canonical(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"is": type(value).__qualname__, **fields}
    if isinstance(value, dict):
        return {str(k): canonical(v) for k, v in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"cannot fingerprint a {type(value).__name__}")


def fingerprint(*values: Any) -> str:
    """A 32-digit hexadecimal key: equal values give equal keys, in every process and on every machine."""
    text = json.dumps(canonical(values), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def digest(data: bytes) -> str:
    """The fingerprint of file contents."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """The fingerprint of a file's contents, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def cache_folder() -> Path:
    """`ATTAR_CACHE`, or the platform's user cache folder."""
    import platformdirs

    named = os.environ.get("ATTAR_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("attar"))


OLDER = "without the digests of its files"
"""What is wrong with the artefacts of an Attar that wrote none."""
HUGE, BLOCKS = 8 << 30, 512
"""A file of more bytes is sealed by so many blocks of a MiB: to read all of it would take minutes at every start."""
REMEDY = "set ATTAR_CACHE to a folder elsewhere; what is finished is kept, and the same command goes on from there"

_WHOLE: dict[Path, dict[str, tuple[int, int]]] = {}
"""The artefacts that this process has found whole, each with its files as they were then: none is hashed twice."""
_log = logging.getLogger("attar")
_warn_once = lru_cache(_log.warning)


class Store:
    """Finished work, one folder an artefact: `root/kind/key/`, beside a `meta.json` that says what it is.

    An artefact appears by a rename, so it is whole or absent. Work in progress lives in a scratch folder that survives
    an interruption, so that whoever takes the work up again finds the checkpoints left there.

    Before a process uses an artefact, its files are compared with the digests in its meta.json, once. One that has
    changed since it was made is named in a warning, discarded, and made again.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else cache_folder()

    def path(self, kind: str, key: str) -> Path:
        """Where the artefact lies, or will lie."""
        return self.root / kind / key

    def scratch(self, kind: str, key: str) -> Path:
        """Where the artefact is made."""
        return self.path(kind, key).with_name(f".{key}.partial")

    def has(self, kind: str, key: str) -> bool:
        """Whether the artefact is finished, and as it was made."""
        folder = self.path(kind, key)
        return folder.is_dir() and not _damage(folder)

    def folder(self, kind: str, key: str) -> Path:
        """Where a finished artefact lies.

        Raises:
            AttarError: it is damaged, or gone.
        """
        folder = self.path(kind, key)
        if why := _damage(folder) if folder.is_dir() else "it is gone":
            raise AttarError(f"{folder}, of the cache, is damaged ({why}): the same command makes it again")
        return folder

    def seconds(self, kind: str, key: str) -> float:
        """How long the artefact took to make, interruptions included only as far as they left checkpoints."""
        meta = json.loads((self.folder(kind, key) / META).read_text(encoding="utf-8"))
        return float(meta["seconds"])

    def once(self, kind: str, key: str, make: Callable[[Path], None], about: Any = None, seconds: float = 0.0) -> Path:
        """The artefact's folder, made by `make(scratch)` if it is not there yet; `about` goes into its meta.json.

        Processes that want the same artefact wait for the one that makes it. `make` fills the scratch folder, may
        leave checkpoints in it under names that begin with a dot, and is called again with what it left if it was
        interrupted; what begins with a dot is removed before publication. `seconds` is work already done for it.

        Raises:
            Unwritable: the cache cannot be written.
        """
        target = self.path(kind, key)
        if self.has(kind, key):
            return target
        with self.lock(kind, key), writing(self.root, REMEDY):
            if self.has(kind, key):
                return target
            self._discard(target)
            scratch = self.scratch(kind, key)
            scratch.mkdir(exist_ok=True)
            earlier, begun = seconds + _noted(scratch), time.monotonic()
            make(scratch)
            spent = earlier + time.monotonic() - begun
            for checkpoint in scratch.glob(".*"):
                shutil.rmtree(checkpoint) if checkpoint.is_dir() else checkpoint.unlink()
            _publish(scratch, target, {"kind": kind, "seconds": round(spent, 3), "about": canonical(about)})
        return target

    @contextmanager
    def lock(self, kind: str, key: str) -> Iterator[None]:
        """Held by one process at a time; the system releases it when that process dies.

        Raises:
            Unwritable: the cache cannot be written.
        """
        import filelock

        folder = self.root / kind
        lock = filelock.FileLock(folder / f".{key}.lock")
        with writing(self.root, REMEDY):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _discard(self, folder: Path) -> None:
        """Removes what stands in the place of an artefact, and says why; other processes see all of it or nothing."""
        if not folder.exists():
            return
        why = _damage(folder) if folder.is_dir() else "it is no folder"
        if why == OLDER:
            _warn_once(f"{self.root} holds work of an older Attar, {why}: it is made again where it is needed")
        else:
            _log.warning("%s, of the cache, is damaged (%s): it is discarded and made again", folder, why)
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.damaged")
        os.rename(folder, aside)
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink()


def _publish(scratch: Path, target: Path, meta: dict[str, Any]) -> None:
    """Puts a finished folder into its place, the digests of its files in its meta.json."""
    names = sorted(name for name in _stamps(scratch) if name != META)
    files = {name: {"bytes": (scratch / name).stat().st_size, "digest": _seal(scratch / name)} for name in names}
    write_json(scratch / META, {**meta, "files": files})
    for name in names:
        permit(scratch / name, (scratch / META).stat().st_mode)
    os.rename(scratch, target)
    _WHOLE[target] = _stamps(target)


def _damage(folder: Path) -> str:
    """How the folder of an artefact differs from what was made, in words; nothing where it does not."""
    try:
        return _compared(folder)
    except FileNotFoundError:
        return "it is gone"


def _compared(folder: Path) -> str:
    """The same, unless another process takes a damaged one away meanwhile."""
    stamps = _stamps(folder)
    if _WHOLE.get(folder) == stamps:
        return ""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        if isinstance(meta, dict) and "files" not in meta:
            return OLDER
        files = {str(name): (int(of["bytes"]), str(of["digest"])) for name, of in meta["files"].items()}
        float(meta["seconds"])
    except FileNotFoundError:
        return f"its {META} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"its {META} cannot be read"
    for name, (size, made) in files.items():
        if name not in stamps:
            return f"its {name} is missing"
        if stamps[name][0] != size:
            return f"its {name} has {stamps[name][0]:,} bytes, and had {size:,}"
        if _seal(folder / name) != made:
            return f"its {name} has changed"
    _WHOLE[folder] = stamps
    return ""


def _seal(file: Path) -> str:
    """The digest of a file; of a huge one, as the images of a large data set unpacked, that of blocks all over it."""
    size, block = file.stat().st_size, 1 << 20
    if size <= HUGE:
        return file_digest(file)
    hashed = hashlib.blake2b(digest_size=16)
    with file.open("rb") as opened:
        for number in range(BLOCKS):
            opened.seek(number * (size - block) // (BLOCKS - 1))
            hashed.update(opened.read(block))
    return hashed.hexdigest()


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """The size of every file in a folder and when it was last changed, in nanoseconds, by its name there."""
    found = ((file, file.stat()) for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): (of.st_size, of.st_mtime_ns) for file, of in found}


def note_seconds(scratch: Path, seconds: float) -> None:
    """Notes time spent on a checkpoint left in `scratch`, so that it counts if this attempt is interrupted."""
    with replacing(scratch / ".seconds") as temporary:
        temporary.write_text(str(_noted(scratch) + seconds))


def _noted(scratch: Path) -> float:
    return resumed(scratch / ".seconds", lambda note: float(note.read_text())) or 0.0
