"""A folder of class folders, as torchvision's ImageFolder reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from attar.core.errors import AttarError
from attar.data.decode import opened
from attar.data.source import Ints, listed

SPLITS = ("train", "test", "validation", "valid", "val")
SUFFIXES = frozenset(
    f".{name}" for name in ("jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "tif", "tiff")
) | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".tga"}
"""Files with these suffixes, in capitals or not, are images; all others are passed over."""


def splits(where: str) -> tuple[str, ...]:
    """The children named as splits are, in capitals or not, where they hold class folders; else none."""
    root = Path(where)
    named = [name for name in _class_folders(root) if name.lower() in SPLITS and any(_class_folders(root / name))]
    return tuple(sorted(named, key=lambda name: (SPLITS.index(name.lower()), name)))


def load(where: str, split: str | None) -> Folder:
    """The images under PATH or PATH/SPLIT.

    Raises:
        AttarError: it is not a folder of class folders, or a class folder holds no image.
    """
    root = Path(where) / split if split else Path(where)
    if not root.is_dir():
        raise AttarError(f"{root} is not a folder; imagefolder: needs a folder of class folders")
    classes = sorted(_class_folders(root))
    if not classes:
        raise AttarError(f"{root} has no class folders: put the images of each class into a folder named after it")
    if classes == ["images"] and (root / "manifest.json").is_file():
        raise AttarError(f"{root} is a distilled set: its class folders are in {root / 'images'}")
    files: list[str] = []
    counts = []
    for name in classes:
        found = list(_images(root, name, ()))
        files += found
        counts.append(len(found))
    empty = [str(root / name) for name, count in zip(classes, counts, strict=True) if count == 0]
    if empty:
        raise AttarError(f"no images ({' '.join(sorted(SUFFIXES))}) in {listed(empty)}: add some, or remove the folder")
    return Folder(root, tuple(classes), np.repeat(np.arange(len(classes), dtype=np.int64), counts), files)


class Folder:
    """Images by their paths relative to `root`, classes and files in sorted order."""

    def __init__(self, root: Path, classes: tuple[str, ...], labels: Ints, files: list[str]) -> None:
        self.root, self.classes, self.labels, self.files = root, classes, labels, files

    def name(self, index: int) -> str:
        return self.files[index]

    def image(self, index: int) -> Image.Image:
        return opened(self.content(index))

    def content(self, index: int) -> bytes:
        return (self.root / self.files[index]).read_bytes()

    def signature(self, indices: Ints) -> object:
        """Path, size and times of every file."""
        found: list[list[str | int]] = []
        for index in indices.tolist():
            name = self.files[index]
            try:
                state = os.stat(self.root / name)
                found.append([name, state.st_size, state.st_mtime_ns, state.st_ctime_ns])
            except FileNotFoundError:  # a broken link
                found.append([name])
        return [str(self.root), found]


def _class_folders(root: Path) -> Iterator[str]:
    if root.is_dir():
        for entry in os.scandir(root):
            if entry.is_dir() and not entry.name.startswith("."):
                yield entry.name


def _images(root: Path, folder: str, above: tuple[str, ...]) -> Iterator[str]:
    """Relative paths of the images below a folder: its own first, then each subfolder's; links are followed."""
    real = os.path.realpath(root / folder)
    if real in above:
        return
    entries = sorted(
        (entry for entry in os.scandir(root / folder) if not entry.name.startswith(".")), key=lambda entry: entry.name
    )
    for entry in entries:
        if not entry.is_dir() and os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            yield f"{folder}/{entry.name}"
    for entry in entries:
        if entry.is_dir():
            yield from _images(root, f"{folder}/{entry.name}", (*above, real))
