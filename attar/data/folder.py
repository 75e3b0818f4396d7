"""A folder of class folders, as torchvision's ImageFolder reads it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from attar.core.errors import AttarError, explained
from attar.core.wording import counted, listed
from attar.data.decode import opened
from attar.data.source_contract import SUFFIXES, Ints, file_bytes, is_no_file, shown, state

_warn_once = lru_cache(logging.getLogger("attar").warning)

SPLITS = ("train", "test", "validation", "valid", "val")


def splits(where: str) -> tuple[str, ...]:
    """The children named as splits are, in capitals or not, where they hold class folders; else none."""
    root = Path(where)
    with _reading(root):
        if lost := [name for name in _lost(root) if Path(name).name.lower() in SPLITS]:
            raise AttarError(f"{listed(lost)}: a link that leads nowhere, perhaps a split; mend it, or remove it")
        named = [name for name in _class_folders(root) if name.lower() in SPLITS and _is_split(root, name)]
    return tuple(sorted(named, key=lambda name: (SPLITS.index(name.lower()), name)))


def beside_splits(where: str) -> tuple[str, ...]:
    """The folders of images that lie beside those named as splits are."""
    root = Path(where)
    with _reading(root):
        others = [name for name in _class_folders(root) if name.lower() not in SPLITS]
        return tuple(sorted(name for name in others if any(_images(root, name))))


def linked(root: Path) -> list[Path]:
    """The class folders and splits that are links to folders elsewhere."""
    with _reading(root):
        inside = [root / name for name in _class_folders(root)]
        splits = [folder for folder in inside if folder.name.lower() in SPLITS]
        of_splits = [split / name for split in splits for name in _class_folders(split)]
    return [folder for folder in (*inside, *of_splits) if folder.is_symlink()]


def load(where: str, split: str | None) -> Folder:
    """The images under PATH or PATH/SPLIT.

    Raises:
        AttarError: it is not a folder of class folders, a class folder holds no image or is a link that leads nowhere,
            or a name is not UTF-8.
    """
    root = Path(where) / split if split else Path(where)
    if not root.is_dir():
        raise AttarError(f"{root} is not a folder; imagefolder: needs a folder of class folders")
    with _reading(root):
        classes = _class_folders(root)
        if lost := _lost(root):
            raise AttarError(f"{listed(lost)}: a link that leads nowhere, perhaps a class; mend it, or remove it")
        if not classes:
            raise AttarError(f"{root} has no class folders: put the images of each class into a folder named after it")
        if classes in (["images"], ["images", "labels"]) and (root / "manifest.json").is_file():
            raise AttarError(f"{root} is a distilled set: its class folders are in {root / 'images'}")
        if len(classes) > 1 and all(name.lower() in SPLITS for name in classes):
            raise AttarError(
                f"{root}: {listed(classes)} hold images and no class folders; put a folder for each class into them"
            )
        of_classes = [list(_images(root, name)) for name in classes]
    files = [file for of_class in of_classes for file in of_class]
    if odd := [shown(name) for name in (*classes, *files) if shown(name) != name]:
        raise AttarError(
            f"{root}: these names are not UTF-8, and no record could hold them: {listed(odd)}; rename them"
        )
    if empty := [str(root / name) for name, of_class in zip(classes, of_classes, strict=True) if not of_class]:
        raise AttarError(f"no images ({' '.join(sorted(SUFFIXES))}) in {listed(empty)}: add some, or remove the folder")
    _warn_of_rest(root, of_classes)
    counts = [len(of_class) for of_class in of_classes]
    return Folder(root, tuple(classes), np.repeat(np.arange(len(classes), dtype=np.int64), counts), files)


def _warn_of_rest(root: Path, of_classes: list[list[str]]) -> None:
    """A line each for images that are no class's, and for those that are in folders below one."""
    with _reading(root):
        loose, _ = _inside(root)
        hidden = [entry.name for entry in os.scandir(root) if entry.name.startswith(".") and _is_folder(entry)]
        unseen = {name: sum(1 for _ in _images(root, name)) for name in sorted(hidden)}
    below = sum(file.count("/") > 1 for of_class in of_classes for file in of_class)
    if loose:
        count, names = counted(len(loose), "image"), listed(sorted(loose), 3)
        _warn_once(f"{root}: left out: {count} beside the class folders ({names})")
    if holding := [name for name, images in unseen.items() if images]:
        count, names = counted(sum(unseen.values()), "image"), listed(holding, 3)
        _warn_once(f"{root}: left out: {count} in hidden folders ({names})")
    if below:
        _warn_once(f"{root}: taken for their class's: {counted(below, 'image')} in folders below a class folder")


class Folder:
    """Images by their paths relative to `root`, classes and files in sorted order."""

    def __init__(self, root: Path, classes: tuple[str, ...], labels: Ints, files: list[str]) -> None:
        self.root, self.classes, self.labels, self.files = root, classes, labels, files

    def name(self, index: int) -> str:
        return self.files[index]

    def image(self, index: int) -> Image.Image:
        return opened(self.content(index))

    def content(self, index: int) -> bytes:
        return file_bytes(self.root / self.files[index])

    def signature(self, indices: Ints) -> object:
        """Path, size and times of every file; the path alone of a link that leads nowhere."""
        states: list[list[str | int]] = []
        for name in (self.files[index] for index in indices.tolist()):
            try:
                states.append([name, *state(self.root / name)[1:]])
            except OSError as error:
                if not is_no_file(error):
                    raise
                states.append([name])
        return [str(self.root), states]


def _lost(root: Path) -> list[str]:
    """The links in a folder that lead nowhere."""
    links = [entry.path for entry in os.scandir(root) if entry.is_symlink()] if root.is_dir() else []
    return sorted(shown(link) for link in links if not os.path.exists(link))


def _class_folders(root: Path) -> list[str]:
    return _inside(root)[1] if root.is_dir() else []


def _is_split(root: Path, name: str) -> bool:
    """Whether a folder named as a split holds class folders, and not, as a class would, images alone."""
    own, inside = _inside(root / name)
    return any(any(_images(root / name, child)) for child in inside) or (bool(inside) and not own)


def _inside(folder: Path) -> tuple[list[str], list[str]]:
    """The images and the folders in a folder, both sorted; a pipe that is named as an image is taken for one."""
    images, folders = [], []
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            folders.append(entry.name)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            images.append(entry.name)
    return sorted(images), sorted(folders)


def _images(root: Path, folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Relative paths of the images below a folder: its own first, then each subfolder's; links are followed.

    But not those that lead to a folder in which they lie: `above` are the folders on the way, links resolved.
    """
    real, above = os.path.realpath(root / folder), above or (os.path.realpath(root),)
    if any(os.path.commonpath([real, folder_above]) == real for folder_above in above):
        return
    images, folders = _inside(root / folder)
    yield from (f"{folder}/{name}" for name in images)
    for name in folders:
        yield from _images(root, f"{folder}/{name}", (*above, real))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link to itself, which Python takes for an error, is none."""
    try:
        return entry.is_dir()
    except OSError as error:
        if not is_no_file(error):
            raise
        return False


def _reading(root: Path) -> AbstractContextManager[None]:
    return explained(f"{root} cannot be read as a folder of class folders", OSError)
