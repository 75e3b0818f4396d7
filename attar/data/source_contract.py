"""What every form of image set offers: encoded images, their labels and names, read one at a time."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from attar.core.errors import AttarError
from attar.core.wording import counted, listed

Ints = npt.NDArray[np.int64]

_FORMATS = ("jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm")
SUFFIXES = frozenset(f".{name}" for name in (*_FORMATS, "jp2", "avif", "tga"))
"""Files with these suffixes, in capitals or not, are images; all others are passed over."""


class Source(Protocol):
    """One split of one data set, opened once per process; holds labels and places, never decoded images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Original class names in label order, unique."""

    @property
    def labels(self) -> Ints:
        """int64 (N,), each an index into `classes`."""

    def name(self, index: int) -> str:
        """What a message calls this image."""

    def image(self, index: int) -> Image.Image:
        """The image in the mode it is stored in; raises whatever PIL raises."""

    def content(self, index: int) -> bytes:
        """The bytes that identify this image, wherever it lies."""

    def signature(self, indices: Ints) -> object:
        """What changes whenever the content of these images does, without reading them; None where reading is cheap."""


def file_bytes(path: Path) -> bytes:
    """The bytes of a file, or of one that a link leads to.

    Raises:
        NotAFile: it is a pipe, a socket or a device, reading which might never end.
    """
    refuse_no_file(path)
    return path.read_bytes()


def refuse_no_file(path: Path) -> None:
    """Raises NotAFile unless it is a file, or a link to one; an OSError where nothing is there."""
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind):
        raise NotAFile(f"it is no file, but a {NO_FILES.get(stat.S_IFMT(kind), 'folder')}")


NO_FILES = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}


class NotAFile(OSError):
    """Something else stands where a file should be."""


def is_no_file(error: OSError) -> bool:
    """Whether this says that there is no file to read: gone, forbidden, a link to itself, or a pipe."""
    gone = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR)
    return isinstance(error, NotAFile) or error.errno in gone


def shown(name: str) -> str:
    """A file's name as it can be printed and stored, escaped where it is not UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names, the second and later bearers of one with their label: "crane", "crane (517)"."""
    taken: set[str] = set()
    unique = []
    for label, name in enumerate(names):
        chosen = name if name not in taken else f"{name} ({label})"
        while chosen in taken:
            chosen += "'"
        taken.add(chosen)
        unique.append(chosen)
    return tuple(unique)


def labelled(
    values: Sequence[object] | npt.NDArray[np.generic],
    names: Sequence[str] | None,
    where: str,
    row: Callable[[int], str] | None = None,
) -> tuple[tuple[str, ...], Ints]:
    """Class names and int64 labels from a column of labels: whole numbers (with names, if known) or text (sorted).

    Args:
        row: what a message calls the image of a label; None: "where, row 7".

    Raises:
        AttarError: a label is missing, no number and no text, negative (as in hidden test labels) or beyond the names
            or the number of images, or a class is empty.
    """
    called = row or (lambda number: f"{where}, row {number}")
    if not len(values):
        raise AttarError(f"{where}: no images")
    plain: Sequence[Any] = values.tolist() if isinstance(values, np.ndarray) else values
    number, wrong = _first_wrong(plain)
    if wrong:
        raise AttarError(f"{called(number)} {wrong}")
    if isinstance(plain[0], str):
        distinct, places = np.unique(np.asarray(plain, dtype=str), return_inverse=True)
        return tuple(str(name) for name in distinct), places.astype(np.int64)
    number, wrong = _first_beyond(plain, len(plain) if names is None else len(names), named=names is not None)
    if wrong:
        raise AttarError(f"{called(number)} {wrong}")
    labels = np.asarray(plain, dtype=np.int64)
    names = [str(label) for label in range(int(labels.max()) + 1)] if names is None else names
    classes = unique_names(names)
    refuse_empty(classes, labels, where)
    return classes, labels


def state(file: str | Path) -> list[str | int]:
    """What changes whenever a file does: its path, size and times."""
    seen = os.stat(file)
    return [str(file), seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns]


def refuse_empty(classes: Sequence[str], labels: Ints, where: str) -> None:
    """Raises an AttarError that names every class without an image."""
    empty = [
        repr(classes[label]) for label in np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0).tolist()
    ]
    if empty:
        raise AttarError(f"{where}: no images of class {listed(empty)}; add some, or remove the class from the data")


def _first_wrong(values: Sequence[Any]) -> tuple[int, str]:
    """The place of the first value that is no label, and why; "" of labels that are all whole numbers, or all text."""
    kinds = set(map(type, values))
    if kinds <= {int, bool} or (kinds == {str} and not any(map(_is_no_name, set(values)))):
        return 0, ""
    for place, value in enumerate(values):
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            return place, "has no label"
        if isinstance(value, str) and _is_path(value):
            return place, f"has the label {value!r}, which is the path of an image; labels are class names or numbers"
        if not isinstance(value, (int, str)):
            text = f"{value!r}"[:60]
            return place, f"has the label {text}, a {type(value).__name__}; labels are whole numbers or text"
        if isinstance(value, str) != isinstance(values[0], str):
            return place, f"has the label {value!r}, where that of the first image is {values[0]!r}: numbers or text"
    return 0, ""


def _is_no_name(label: str) -> bool:
    return not label.strip() or _is_path(label)


def _is_path(label: str) -> bool:
    return os.path.splitext(label)[1].lower() in SUFFIXES


def _first_beyond(values: Sequence[int], count: int, named: bool) -> tuple[int, str]:
    """The place of a label that is negative, or not below `count`, and why; "" where there is none."""
    least, most = min(values), max(values)
    if least < 0:
        why = "which means unlabelled; name a split that has labels"
        return values.index(least), f"has label {least}, {why}"
    if most < count:
        return 0, ""
    why = (
        f"but only {counted(count, 'class')} in the list of names"
        if named
        else f"but the data has {counted(count, 'image')}: labels count from 0"
    )
    return values.index(most), f"has label {most}, {why}"
