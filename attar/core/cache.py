"""What is in the cache: its artefacts, what each was made of, and work that is under way or was given up."""

from __future__ import annotations

from calendar import timegm
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import strptime
from typing import Any

from attar.core.errors import AttarError, suggestion
from attar.core.files import locking
from attar.core.fingerprints import key_of
from attar.core.store import UNREADABLE, cache_folder, read_meta
from attar.core.wording import listed

KINDS = (
    "candidates",
    "digests",
    "evaluation",
    "features",
    "fit",
    "image-digests",
    "judge",
    "latents",
    "pixels",
    "prepared",
    "prior",
    "prior-race",
    "race",
    "readable",
    "refined",
    "set",
    "soft-labels",
    "teacher",
    "tile",
    "unpacked",
    "vae",
)
"""All kinds of artefacts that there can be in a cache."""
OLDER = "of an older Attar"
"""What is wrong with artefacts whose keys are built in another way: none of them is used any more."""
SHOWN = 5
"""How many keys an error names."""


@dataclass(frozen=True)
class CachedArtefact:
    """An artefact as its meta.json describes it."""

    kind: str
    """latents, fit, candidates ..."""
    key: str
    """32 hexadecimal digits: the fingerprint of the inputs."""
    folder: Path
    """Where it lies."""
    inputs: dict[str, Any]
    """All that it was made of, by name; empty where that is not known."""
    made: float
    """When it was made, in seconds since 1970."""
    used: float
    """When it was last used, in seconds since 1970."""
    seconds: float
    """How long it took to make."""
    files: dict[str, int]
    """The bytes of its files, by name."""
    wrong: str = ""
    """Why it will not be used, as far as names and sizes of its files tell; empty where it will be."""

    @property
    def bytes(self) -> int:
        """What it takes of the disk, its meta.json included."""
        return sum(self.files.values())


@dataclass(frozen=True)
class Unfinished:
    """A folder of work that is under way, that was interrupted, or that was being removed."""

    kind: str
    """What it is to become."""
    key: str
    """The key of what it is to become."""
    folder: Path
    """Where it lies."""
    bytes: int
    """What it takes of the disk."""
    used: float
    """When it was last written to, in seconds since 1970."""
    running: bool
    """Whether a process works on it, here or on another machine."""
    left_over: bool
    """Whether it is the rest of something that was being removed, and of no use to anyone."""


@dataclass(frozen=True)
class CacheContents:
    """All that is in a cache."""

    root: Path
    """Its folder."""
    records: tuple[CachedArtefact, ...]
    """What is finished, by kind, the least recently used first."""
    unfinished: tuple[Unfinished, ...]
    """What is not."""

    @property
    def by_use(self) -> list[CachedArtefact | Unfinished]:
        """All of it, the least recently used first."""
        both: list[CachedArtefact | Unfinished] = [*self.records, *self.unfinished]
        return sorted(both, key=lambda item: item.used)

    @property
    def bytes(self) -> int:
        """What all of it takes of the disk."""
        return sum(item.bytes for item in self.by_use)


def contents(root: Path | None = None, kind: str | None = None) -> CacheContents:
    """All that is in the cache, or what it holds of one kind; no file but meta.json is read.

    Raises:
        AttarError: there is nothing of this kind.
    """
    root = cache_folder() if root is None else root
    folders = [folder for folder in _folders(root) if kind is None or folder.parent.name == kind]
    if kind is not None and not folders:
        kinds = sorted({folder.parent.name for folder in _folders(root)})
        raise AttarError(
            f"{root} holds no {kind}{suggestion(kind, [*kinds, *KINDS])}; it holds {', '.join(kinds) or 'nothing'}"
        )
    records = [read_artefact(folder) for folder in folders if not folder.name.startswith(".")]
    rest = [_unfinished(folder) for folder in folders if folder.name.startswith(".")]
    return CacheContents(
        root,
        tuple(sorted(filter(None, records), key=lambda record: (record.kind, record.used))),
        tuple(sorted(filter(None, rest), key=lambda item: (item.kind, item.used))),
    )


def find(word: str, root: Path | None = None) -> CachedArtefact:
    """The artefact whose key begins so, as `3f2a`, or `fit/3f2a` where kinds share a beginning.

    Raises:
        AttarError: there is none, or there are several.
    """
    root = cache_folder() if root is None else root
    kind, _, begin = word.rpartition("/")
    finished = [folder for folder in _folders(root) if not folder.name.startswith(".")]
    matching = [f for f in finished if f.name.startswith(begin.lower()) and kind in ("", f.parent.name)]
    if len(matching) > 1:
        named = [f"{folder.parent.name}/{folder.name[: max(12, len(begin) + 4)]}" for folder in matching]
        more = ", ..." if len(matching) > SHOWN else ""
        raise AttarError(f"{len(matching)} artefacts begin with {word}: {', '.join(named[:SHOWN])}{more}; write more")
    record = read_artefact(matching[0]) if matching else None
    if record is None:
        raise AttarError(f"no artefact of the cache {root} begins with {word}; `attar cache` lists those of a `kind`")
    return record


def read_artefact(folder: Path) -> CachedArtefact | None:
    """The record of a finished artefact; None where it was removed meanwhile."""
    try:
        used, files = folder.stat().st_mtime, _files(folder)
    except FileNotFoundError:
        return None
    meta, wrong = read_meta(folder)
    wrong = wrong or _wrong(folder, meta, files)
    inputs = {} if wrong == OLDER or "inputs" not in meta else meta["inputs"]
    seconds = float(meta["seconds"]) if isinstance(meta.get("seconds"), (int, float)) else 0.0
    return CachedArtefact(
        folder.parent.name, folder.name, folder, inputs, _made(meta, used), used, seconds, files, wrong
    )


def subject(inputs: dict[str, Any]) -> str:
    """What an artefact is of, in a few words: its class, or what else tells it from others of its kind."""
    if "class" in inputs:
        shard = inputs.get("shard", 0)
        return f"{inputs['class']}, shard {shard}" if shard else str(inputs["class"])
    if isinstance(classes := inputs.get("classes"), list):
        return listed(classes, 3)
    if "ipc" in inputs and "method" in inputs:
        return f"{inputs['method']}, IPC {inputs['ipc']}"
    if "network" in inputs and "seed" in inputs:
        return f"{inputs['network']}, seed {inputs['seed']}"
    if isinstance(images := inputs.get("images"), list):
        return listed([part["class"] for part in images], 3)
    return ""


@contextmanager
def held(root: Path, kind: str, key: str) -> Iterator[bool]:
    """Takes an artefact's lock if no process holds it; yields whether it was free."""
    import filelock

    lock = filelock.FileLock(root / kind / f".{key}.lock")
    try:
        with locking(root):
            lock.acquire(timeout=0)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _folders(root: Path) -> Iterator[Path]:
    """The folders of artefacts, finished or not; nothing else that lies in the cache."""
    kinds = sorted(kind for kind in root.iterdir() if kind.is_dir()) if root.is_dir() else []
    for folder in (folder for kind in kinds for folder in sorted(kind.iterdir())):
        if _is_key(_key(folder)) and folder.is_dir():
            yield folder


def _key(folder: Path) -> str:
    return folder.name.removeprefix(".").partition(".")[0]


def _is_key(name: str) -> bool:
    return len(name) == 32 and set(name) <= set("0123456789abcdef")


def _files(folder: Path) -> dict[str, int]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}


def _made(meta: dict[str, Any], unknown: float) -> float:
    """When an artefact was made, in seconds since 1970; `unknown` where its meta.json does not tell."""
    try:
        return timegm(strptime(meta["made"], "%Y-%m-%dT%H:%M:%SZ"))
    except (KeyError, TypeError, ValueError):
        return unknown


def _wrong(folder: Path, meta: dict[str, Any], files: dict[str, int]) -> str:
    """Why an artefact will not be used, as far as the names and sizes of its files tell."""
    if "inputs" not in meta or key_of(folder.parent.name, meta["inputs"]) != folder.name:
        return OLDER
    try:
        sizes = {str(name): int(of["bytes"]) for name, of in meta["files"].items()}
        float(meta["seconds"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return UNREADABLE
    odd = next((name for name, size in sizes.items() if files.get(name) != size), None)
    return "" if odd is None else f"its {odd} {'has changed' if odd in files else 'is missing'}"


def _unfinished(folder: Path) -> Unfinished | None:
    kind, key = folder.parent.name, _key(folder)
    try:
        size = sum(_files(folder).values())
        used = max(file.stat().st_mtime for file in (folder, *folder.rglob("*")))
        with held(folder.parent.parent, kind, key) as free:
            running = not free
    except FileNotFoundError:
        return None
    except OSError:  # a cache that cannot be written: whoever can may be at work
        running = True
    return Unfinished(kind, key, folder, size, used, running, left_over=folder.suffix in (".damaged", ".pruned"))
