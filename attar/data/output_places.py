"""Where results may be written: not into the data, not into a distilled set, not over anything but this run's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from attar.core.errors import AttarError
from attar.core.json_shapes import read_json
from attar.core.store import cache_folder, check_writable
from attar.core.urls import url_of
from attar.data.folder import SPLITS
from attar.data.source_contract import refuse_no_file, shown
from attar.data.sources import places

T = TypeVar("T")
IN_A_MANIFEST = frozenset(("format", "attar", "run", "method", "ipc", "seed", "classes", "data", "images", "digest"))
"""Keys that every manifest of a distilled set has."""


def check_place(out: Path, name: str, data: Iterable[str | None] = (), adds: Sequence[str] = ()) -> None:
    """Raises AttarError unless results may be written to `out`, links resolved; before any work, and makes nothing.

    Whether what is there already is a result of the same run, the caller asks.

    Args:
        name: what the place is called in messages: "`out`".
        data: specs of all images that are read; None, and data that is not on this machine, stands in nobody's way.
        adds: what is written into the folder `out`, the first of it a record that shows that the rest is Attar's;
            nothing where `out` itself, a file or a folder, appears whole, by a rename.
    """
    if shown(str(out)) != str(out):
        raise AttarError(
            f"{name} {shown(str(out))}: the name is not UTF-8, and no record could hold it; choose another"
        )
    if url := url_of(out):
        raise AttarError(f"{name} {url}: choose a folder; `attar push` brings a finished set to a URL")
    if not adds and out.name in ("", ".."):
        raise AttarError(f"{name} {out}: is there already; name a new folder or file")
    cache = cache_folder()
    if _within(out, cache):
        raise AttarError(f"{name} {out} lies in the cache, {cache}, which may be removed; choose another place")
    for read in (read for spec in data if spec for read in places(spec)):
        if read.is_dir() and _within(cache, read):
            raise AttarError(f"the cache {cache} lies in the data, {read}: set ATTAR_CACHE to a folder elsewhere")
        inside, around = _within(out, read), _within(read, out)
        if inside or around:
            relation = "is" if inside and around else "lies in" if inside else "holds"
            raise AttarError(f"{name} {out} {relation} the data, {read}; choose a place apart from it")
        if _taken_for_a_split(out, read):
            raise AttarError(
                f"{name} {out} would be read as a split of the data beside it, {read}; choose another name"
            )
    written = out / adds[0] if adds else out
    if whose := next(filter(_is_set, Path(os.path.realpath(written)).parents), None):
        raise AttarError(f"{name} {out} lies in the distilled set {whose}; choose a place apart from it")
    if adds and not written.exists() and (others := [name for name in adds[1:] if (out / name).exists()]):
        raise AttarError(f"{name} {out} holds {others[0]}, but no {adds[0]} of Attar's; choose another folder")
    check_writable(written, name)


def check_file(file: Path, name: str, mark: str, what: str) -> None:
    """Raises AttarError where something is that is not `what`, a text whose first part holds `mark`, and so is ours."""
    if not os.path.lexists(file):
        return
    try:
        refuse_no_file(file)
        with file.open(encoding="utf-8", errors="replace") as opened:
            ours = mark in opened.read(HEAD)
    except OSError as error:
        raise AttarError(f"{name} {file}: is there, and cannot be read as {what} ({error})") from error
    if not ours:
        raise AttarError(f"{name} {file}: is there, and is not {what}; choose another name, or remove it")


def occupied(out: Path) -> bool:
    """Whether something stands where a folder is to appear; an empty folder may."""
    return os.path.lexists(out) and (not out.is_dir() or any(out.iterdir()))


def ours(out: Path, read: Callable[[Path], T], what: str) -> T | None:
    """What `read` finds in a folder that is to be written; None where nothing is there yet.

    Raises:
        AttarError: something is there that `read` raises an AttarError for, and so is no `what`.
    """
    if not occupied(out):
        return None
    if not out.is_dir():
        raise AttarError(f"`out` {out} is there, and is no folder: choose another name, or remove it")
    try:
        return read(out)
    except AttarError as error:
        raise AttarError(
            f"`out` {out} is not empty, and holds no {what} of ours: choose another folder, or remove it"
        ) from error


def own_record(out: Path, name: str, key: str, what: str, sure: bool = True) -> dict[str, Any] | None:
    """The record `name` in a folder that this run, of this key, wrote before; None where nothing is there yet.

    Where the key is not `sure`, as in a dry run that looked at some of the images, one of another key is given, too.

    Raises:
        AttarError: something else is there.
    """

    def read(folder: Path) -> dict[str, Any]:
        record = read_json(folder / name)
        if not isinstance(record, dict) or not record.get("key"):
            raise AttarError(f"{folder / name} has no key")
        return record

    record = ours(out, read, what)
    if sure and record is not None and record["key"] != key:
        raise AttarError(f"`out` {out} is another run's {what}: choose another folder, or remove it")
    return record


@contextmanager
def named_after(out: Path) -> Iterator[None]:
    """Whoever is told of a place that has its name from `out`, and is written by itself, is told of `out`, too."""
    try:
        yield
    except AttarError as error:
        text = str(error)
        if not text.startswith("`out` "):
            raise
        raise AttarError(f"`out` {out}: {text.removeprefix('`out` ')}") from error


UNSURE = "is there; whether this run made it is seen when all images are looked at"
"""What a dry run says of a folder whose record has another key, where it looked at some of the images."""
HEAD = 2**16
"""Characters of a file that are looked at."""


def _within(inner: Path, outer: Path) -> bool:
    """Whether a place is another one or lies in it, links resolved, whatever capitals the file system tells apart."""
    real = Path(os.path.realpath(inner))
    return os.path.exists(outer) and any(
        os.path.samefile(folder, outer) for folder in (real, *real.parents) if os.path.exists(folder)
    )


def _taken_for_a_split(out: Path, data: Path) -> bool:
    """Whether `attar.data.sources.test_spec`, which looks beside data that is one split's, would find `out` there."""
    beside = os.path.realpath(out.parent) == os.path.realpath(data.parent)
    named = {out.name.lower(), data.name.lower()} <= set(SPLITS)
    return beside and (named if data.is_dir() else out.suffix == ".parquet")


def _is_set(folder: Path) -> bool:
    """Whether a folder is a distilled set, by its manifest.json alone: also where it is damaged."""
    if not (folder / "manifest.json").is_file():
        return False
    try:
        manifest = read_json(folder / "manifest.json")
    except AttarError:
        return False
    return isinstance(manifest, dict) and manifest.keys() >= IN_A_MANIFEST
