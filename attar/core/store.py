"""The store: locks, scratch folders and atomic publication, which let every stage resume."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs

from attar.core.cache_users import join
from attar.core.errors import AttarError
from attar.core.files import check_writable, expand_user, locking, permit, replacing, resumed, write_json, writing
from attar.core.fingerprints import Artefact, canonical, digest, file_digest, fingerprint

__all__ = [
    "Artefact",
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
"""What an artefact is and was made of, how long it took, and the size and digest of each of its files."""


def cache_folder() -> Path:
    """`ATTAR_CACHE`, or the platform's user cache folder."""
    named = os.environ.get("ATTAR_CACHE")
    return expand_user(named) if named else Path(platformdirs.user_cache_dir("attar"))


UNREADABLE = f"its {META} cannot be read"
UNSEALED = "without the digests of its files"
"""What is wrong with the artefacts of an Attar that wrote none."""
HUGE, BLOCKS = 8 << 30, 512
"""A file of more bytes is sealed by this many blocks of a MiB: to read all of it would take minutes at every start."""
REMEDY = "set ATTAR_CACHE to a folder elsewhere; what is finished is kept, and the same command goes on from there"

_WHOLE: dict[Path, dict[str, tuple[int, int]]] = {}
"""The artefacts that this process has found whole, each with its files as they were then: none is hashed twice."""
_log = logging.getLogger("attar")
_warn_once = lru_cache(_log.warning)


class Store:
    """Finished work, one folder an artefact: `root/kind/key/`, beside a `meta.json` that says what it is.

    Its key is the fingerprint of all that it is made of, and its meta.json holds the same, so that whoever asks can
    learn why it was used or not (attar.core.cache).

    An artefact appears by a rename, so it is whole or absent. Work in progress lives in a scratch folder that survives
    an interruption, so that whoever takes the work up again finds the checkpoints left there.

    Before a process uses an artefact, its files are compared with the digests in its meta.json, once. One that has
    changed since it was made is named in a warning, discarded, and made again.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else cache_folder()
        if os.path.lexists(self.root) and not self.root.is_dir():
            raise AttarError(f"the cache {self.root} is no folder: set ATTAR_CACHE to one")

    def path(self, artefact: Artefact) -> Path:
        """Where it lies, or will lie."""
        return self.root / artefact.kind / artefact.key

    def scratch(self, artefact: Artefact) -> Path:
        """Where it is made."""
        return self.path(artefact).with_name(f".{artefact.key}.partial")

    def has(self, artefact: Artefact) -> bool:
        """Whether it is finished, and as it was made. It counts as used."""
        folder = self.path(artefact)
        self._use(folder)
        return folder.is_dir() and not _damage(folder)

    def folder(self, artefact: Artefact) -> Path:
        """Where it lies, finished. It counts as used.

        Raises:
            AttarError: it is damaged, or gone.
        """
        folder = self.path(artefact)
        self._use(folder)
        if why := _damage(folder) if folder.is_dir() else "it is gone":
            raise AttarError(f"{folder}, of the cache, is damaged ({why}): the same command makes it again")
        return folder

    def seconds(self, artefact: Artefact) -> float:
        """How long it took to make, interruptions included only as far as they left checkpoints."""
        meta = json.loads((self.folder(artefact) / META).read_text(encoding="utf-8"))
        return float(meta["seconds"])

    def once(self, artefact: Artefact, make: Callable[[Path], None], seconds: float = 0.0) -> Path:
        """The artefact's folder, made by `make(scratch)` if it is not there yet. It counts as used.

        Processes that want the same artefact wait for the one that makes it. `make` fills the scratch folder, may
        leave checkpoints in it under names that begin with a dot, and is called again with what it left if it was
        interrupted; what begins with a dot is removed before publication. `seconds` is work already done for it.

        Raises:
            Unwritable: the cache cannot be written.
        """
        target = self.path(artefact)
        if self.has(artefact):
            return target
        join(self.root)
        with self.lock(artefact), writing(self.root, REMEDY):
            if self.has(artefact):
                return target
            self._discard(target)
            scratch = self.scratch(artefact)
            if scratch.is_symlink():
                scratch.unlink()
            scratch.mkdir(exist_ok=True)
            earlier, begun = seconds + _noted(scratch), time.monotonic()
            try:
                make(scratch)
            except BaseException:
                with suppress(OSError):  # it stays where there is anything in it to go on from
                    scratch.rmdir()
                raise
            spent = earlier + time.monotonic() - begun
            for checkpoint in scratch.glob(".*"):
                shutil.rmtree(checkpoint) if checkpoint.is_dir() else checkpoint.unlink()
            _publish(scratch, target, artefact, spent)
        return target

    @contextmanager
    def lock(self, artefact: Artefact) -> Iterator[None]:
        """Held by one process at a time; the system releases it when that process dies.

        Raises:
            Unwritable: the cache cannot be written.
        """
        import filelock

        folder = self.path(artefact).parent
        lock = filelock.FileLock(folder / f".{artefact.key}.lock")
        with writing(self.root, REMEDY):
            folder.mkdir(parents=True, exist_ok=True)
            with locking(self.root):
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _use(self, folder: Path) -> None:
        """Notes that an artefact is used now, as the time of its folder, where the cache can be written."""
        if folder.is_dir():
            join(self.root)
            with suppress(OSError):
                os.utime(folder)

    def _discard(self, folder: Path) -> None:
        """Removes what stands in the place of an artefact, and says why; other processes see all of it or nothing."""
        if not os.path.lexists(folder):
            return
        why = _damage(folder) if folder.is_dir() else "it is no folder"
        if why == UNSEALED:
            _warn_once(f"{self.root} holds work of an older Attar, {why}: it is made again where it is needed")
        else:
            _log.warning("%s, of the cache, is damaged (%s): it is discarded and made again", folder, why)
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.damaged")
        os.rename(folder, aside)
        shutil.rmtree(aside) if aside.is_dir() and not aside.is_symlink() else aside.unlink()


def _publish(scratch: Path, target: Path, artefact: Artefact, seconds: float) -> None:
    """Puts a finished folder into its place; its meta.json says what it is made of, and has its files' digests."""
    names = sorted(name for name in _stamps(scratch) if name != META)
    files = {name: {"bytes": (scratch / name).stat().st_size, "digest": _seal(scratch / name)} for name in names}
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    about = {"kind": artefact.kind, "inputs": artefact.recorded, "made": made, "seconds": round(seconds, 3)}
    write_json(scratch / META, {**about, "files": files})
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
    """As `_damage`; raises FileNotFoundError where another process takes the folder away meanwhile."""
    if folder.is_symlink():
        return "it is a link"
    stamps = _stamps(folder)
    if _WHOLE.get(folder) == stamps:
        return ""
    meta, wrong = read_meta(folder)
    if wrong:
        return wrong
    if "files" not in meta:
        return UNSEALED
    try:
        files = {str(name): (int(of["bytes"]), str(of["digest"])) for name, of in meta["files"].items()}
        float(meta["seconds"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return UNREADABLE
    for name, (size, made) in files.items():
        if name not in stamps:
            return f"its {name} is missing"
        if stamps[name][0] != size:
            return f"its {name} has {stamps[name][0]:,} bytes, and had {size:,}"
        if _seal(folder / name) != made:
            return f"its {name} has changed"
    _WHOLE[folder] = stamps
    return ""


def read_meta(folder: Path) -> tuple[dict[str, Any], str]:
    """What the meta.json of an artefact holds, and what is wrong with it; "" where nothing is."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, f"its {META} is missing"
    except (OSError, ValueError):
        return {}, UNREADABLE
    return (meta, "") if isinstance(meta, dict) else ({}, UNREADABLE)


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
    files = ((file, file.stat()) for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): (state.st_size, state.st_mtime_ns) for file, state in files}


def note_seconds(scratch: Path, seconds: float) -> None:
    """Notes time spent on a checkpoint left in `scratch`, so that it counts if this attempt is interrupted."""
    with replacing(scratch / ".seconds") as temporary:
        temporary.write_text(str(_noted(scratch) + seconds))


def _noted(scratch: Path) -> float:
    return resumed(scratch / ".seconds", lambda note: float(note.read_text())) or 0.0
