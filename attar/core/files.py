"""Files and folders that appear whole or not at all, and what is said where a place cannot be written."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from attar.core.errors import AttarError, Unwritable, reason

T = TypeVar("T")

STAND_IN = len("..partial") + 13
"""Bytes by which the longest stand-in for a name is longer than it (`appearing`)."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
_LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
_log = logging.getLogger("attar")


@contextmanager
def writing(place: Path, remedy: str = "") -> Iterator[None]:
    """The one door to a place that is written: where it is full, read-only or forbidden, the error names it.

    What goes wrong elsewhere, as where an image of the data may not be read, passes as it is.

    Raises:
        Unwritable: the place cannot be written; `remedy` says what else can be done than to clean up there.
    """
    try:
        yield
    except Exception as error:
        why = _why(error, place)
        if why is None:
            raise
        first = "free space there" if why in map(os.strerror, _FULL) else "make it writable"
        raise Unwritable(place, why, f"{first}, or {remedy}" if remedy else first) from error


def _why(error: Exception, place: Path) -> str | None:
    """Why a place could not be written, in words; None if the error is about something else."""
    if isinstance(error, Unwritable):
        return error.why if _concerns(error.place, place) else None
    if isinstance(error, AttarError):
        return None
    number, named = getattr(error, "errno", None), [getattr(error, name, None) for name in ("filename", "filename2")]
    if match := re.search(r"(?:os error|\[Errno) (\d+)", str(error)):  # of safetensors and shutil
        number = int(match[1])
    if isinstance(error, RuntimeError) and "inline_container.cc" in str(error):  # of torch.save
        number = errno.ENOSPC
    unnamed = number in _FULL and not any(named)
    here = unnamed or (number in (*_FULL, *_FORBIDDEN) and any(_concerns(file, place) for file in named if file))
    return os.strerror(number) if here and number is not None else None


def _concerns(file: Any, place: Path) -> bool:
    """Whether a file is a place, in it, above it, or its temporary stand-in."""
    path, place = Path(os.fsdecode(file)).absolute(), place.absolute()
    stand_in = str(place.with_name(f".{place.name}."))
    return path.is_relative_to(place) or place.is_relative_to(path) or str(path).startswith(stand_in)


@contextmanager
def locking(root: Path) -> Iterator[None]:
    """Within it a cache is locked.

    Raises:
        AttarError: its file system has no locks, as some network disks have none.
    """
    try:
        yield
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _LOCKLESS:
            raise
        raise AttarError(
            f"the cache {root} cannot be locked ({reason(error)}): its file system has no locks; set ATTAR_CACHE to a "
            "folder of a file system that has"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`, renamed onto it on success: readers see all of the file or none of it.

    It has the rights of any new file, whoever writes it (safetensors leaves them to the owner alone).

    Raises:
        Unwritable: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.unlink(missing_ok=True)
            temporary.touch(exist_ok=False)  # never through a link that someone put there
            rights = temporary.stat().st_mode
            yield temporary
            permit(temporary, rights)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def appearing(folder: Path, remedy: str = "", run: str | None = None) -> Iterator[Path]:
    """Yields a hidden folder beside `folder`, renamed onto it on success: readers see all of it or nothing.

    Missing parents are made, and an empty folder may stand in its place. What killed processes left beside it goes.

    Args:
        run: digits that name whoever writes, where an interruption keeps what is written so far for the same run to go
            on from; None: nothing of it stays.

    Raises:
        AttarError: something stands there.
        Unwritable: it cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.{run}.partial" if run else f".{folder.name}.partial")
    left = re.compile(rf"\.{re.escape(folder.name)}(\.[0-9a-f]+)?\.partial")
    with writing(folder, remedy):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for stale in [path for path in folder.parent.iterdir() if left.fullmatch(path.name)]:
            if stale.is_symlink():  # whoever put it there would have us write elsewhere
                stale.unlink()
            elif stale.is_dir() and (stale != temporary or run is None):
                shutil.rmtree(stale)
        temporary.mkdir(exist_ok=True)
        for half in temporary.rglob(".*.partial"):
            half.unlink()
        try:
            yield temporary
            _rename_onto(temporary, folder)
        finally:
            if run is None:
                shutil.rmtree(temporary, ignore_errors=True)


def _rename_onto(made: Path, folder: Path) -> None:
    try:
        if folder.is_dir():
            folder.rmdir()
        os.rename(made, folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR):
            raise
        raise AttarError(f"{folder}: cannot be written, something else is there ({error.strerror})") from error


def expand_user(name: str | Path) -> Path:
    """A path as it was named, its `~` made the home folder; the `~` of a user that there is none of stays."""
    return Path(os.path.expanduser(name))


def at_home(source: str) -> str:
    """A name that may be a path or an id of the hub: a path of the home folder is written out."""
    return str(expand_user(source)) if source.startswith("~") else source


def as_source(folder: Path) -> str:
    """The name of a folder as `at_home` reads it: a folder called `~` in the working folder is not the home folder."""
    return os.path.join(".", folder) if str(folder).startswith("~") else str(folder)


def permit(file: Path, rights: int) -> None:
    """Gives a file the rights of another."""
    if file.stat().st_mode != rights:
        file.chmod(rights & 0o7777)


def check_writable(path: Path, name: str) -> None:
    """Raises AttarError unless a file or folder of this name can be made: tried by a folder that goes at once."""
    parent = path.absolute().parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise AttarError(f"{name} {path}: {parent} is not a folder that can be written")
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".attar-", dir=parent))
    except OSError as error:
        raise AttarError(f"{name} {path}: nothing can be made in {parent} ({reason(error)})") from error
    most = os.pathconf(parent, "PC_NAME_MAX") - STAND_IN
    if len(os.fsencode(path.name)) > most:
        raise AttarError(f"{name} {path}: the name is too long; at most {most} bytes can be written there")


def as_json(value: Any, place: object) -> str:
    """A value as readable JSON, for a place in words.

    Raises:
        AttarError: it holds a NaN or an infinity, which JSON has no words for.
    """
    _check_finite(value, place)
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as readable JSON, atomically.

    Raises:
        AttarError: as `as_json`.
    """
    text = as_json(value, path)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _check_finite(value: Any, place: object) -> None:
    if wrong := _not_finite(value):
        raise AttarError(f"{place}: {wrong}, which JSON has no word for; nothing is written")


def _not_finite(value: Any, name: str = "it") -> str:
    """The first NaN or infinity within a value, as "it.measures.0.loss is nan"; nothing where there is none."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{name} is {value}"
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return next(filter(None, (_not_finite(part, f"{name}.{key}") for key, part in parts)), "")


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """Writes one line of JSON for each record, atomically.

    Raises:
        AttarError: as `as_json`.
    """
    lines = []
    for record in records:
        _check_finite(record, path)
        lines.append(json.dumps(record, allow_nan=False) + "\n")
    with replacing(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def read_lines(path: Path) -> list[Any]:
    """The records of such a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def resumed(file: Path, read: Callable[[Path], T]) -> T | None:
    """What a checkpoint holds; None where there is none, or where it cannot be read: then it is named and removed."""
    if not file.exists():
        return None
    try:
        return read(file)
    except Exception as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        _log.warning("%s cannot be read (%s): it is discarded, and its work begun again", file, why)
        shutil.rmtree(file) if file.is_dir() else file.unlink()
        return None
