"""Fingerprints, locks, scratch folders and atomic publication: what lets every stage resume."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attar.core.errors import AttarError


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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`, renamed onto it on success: readers see all of the file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path, flag: str) -> None:
    """Raises AttarError unless a file or folder of this name can be made; makes nothing."""
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise AttarError(f"{flag} {path}: {parent} is not a folder that can be written")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as readable JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class Store:
    """Finished work, one folder an artefact: `root/kind/key/`, beside a `meta.json` that says what it is.

    An artefact appears by a rename, so it is whole or absent. Work in progress lives in a scratch folder that survives
    an interruption, so that whoever takes the work up again finds the checkpoints left there.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else cache_folder()

    def path(self, kind: str, key: str) -> Path:
        """Where the artefact lies, or will lie."""
        return self.root / kind / key

    def has(self, kind: str, key: str) -> bool:
        """Whether the artefact is finished."""
        return (self.path(kind, key) / "meta.json").exists()

    def seconds(self, kind: str, key: str) -> float:
        """How long the artefact took to make, interruptions included only as far as they left checkpoints."""
        meta = json.loads((self.path(kind, key) / "meta.json").read_text(encoding="utf-8"))
        return float(meta["seconds"])

    def once(self, kind: str, key: str, make: Callable[[Path], None], about: Any = None, seconds: float = 0.0) -> Path:
        """The artefact's folder, made by `make(scratch)` if it is not there yet; `about` goes into its meta.json.

        Processes that want the same artefact wait for the one that makes it. `make` fills the scratch folder, may
        leave checkpoints in it under names that begin with a dot, and is called again with what it left if it was
        interrupted; what begins with a dot is removed before publication. `seconds` is work already done for it.
        """
        target = self.path(kind, key)
        if self.has(kind, key):
            return target
        with self.lock(kind, key):
            if self.has(kind, key):
                return target
            scratch = target.with_name(f".{key}.partial")
            scratch.mkdir(exist_ok=True)
            earlier, begun = seconds + _noted(scratch), time.monotonic()
            make(scratch)
            spent = earlier + time.monotonic() - begun
            for checkpoint in scratch.glob(".*"):
                shutil.rmtree(checkpoint) if checkpoint.is_dir() else checkpoint.unlink()
            write_json(scratch / "meta.json", {"kind": kind, "seconds": round(spent, 3), "about": canonical(about)})
            os.rename(scratch, target)
        return target

    @contextmanager
    def lock(self, kind: str, key: str) -> Iterator[None]:
        """Held by one process at a time; the system releases it when that process dies."""
        import filelock

        folder = self.root / kind
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AttarError(
                f"the cache folder {self.root} cannot be written ({error}); set ATTAR_CACHE to one that can"
            ) from error
        with filelock.FileLock(folder / f".{key}.lock"):
            yield


def note_seconds(scratch: Path, seconds: float) -> None:
    """Notes time spent on a checkpoint left in `scratch`, so that it counts if this attempt is interrupted."""
    with replacing(scratch / ".seconds") as temporary:
        temporary.write_text(str(_noted(scratch) + seconds))


def _noted(scratch: Path) -> float:
    note = scratch / ".seconds"
    return float(note.read_text()) if note.exists() else 0.0
