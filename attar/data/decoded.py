"""All images of a set at one size: in memory while they are few, else decoded once into a file that is mapped."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import PIL

from attar.core.files import replacing, resumed
from attar.core.limits import IN_MEMORY
from attar.core.progress import Meter, Progress, silent
from attar.core.store import Artefact, Store, digest
from attar.data.imageset import ImageSet
from attar.data.pixels import Pixels, load_pixels

FILE = "pixels.npy"
PART = 2048
"""Images between two notes of how far the decoding is."""
SPARE = 1.1
"""The disk must have room for this many times the file."""


class Undecoded:
    """Images that are decoded whenever they are asked for, for their pixels have room neither in memory nor on disk."""

    def __init__(self, images: ImageSet, size: int, how: str) -> None:
        self._asked = (images, size, how)

    def __len__(self) -> int:
        return len(self._asked[0])

    def __getitem__(self, indices: np.ndarray) -> Pixels:
        images, size, how = self._asked
        return load_pixels(images, indices, size, how)


def decoded(images: ImageSet, size: int, how: str, store: Store, progress: Progress = silent) -> Pixels | Undecoded:
    """All images as uint8 (N, size, size, 3), in their order, or what decodes those asked for.

    Up to IN_MEMORY bytes are an array in memory, more an array that is mapped from a file of the cache, which is made
    once. Where the cache's disk has no room for it, images are decoded whenever they are asked for.

    Raises:
        BadImage: one of them cannot be decoded.
    """
    if pixel_bytes(images, size) <= IN_MEMORY:
        return load_pixels(images, np.arange(len(images)), size, how)
    artefact = _artefact(images, size, how)
    begun = store.scratch(artefact) / FILE
    if not store.has(artefact) and not has_room(images, size, store, begun):
        return Undecoded(images, size, how)

    def make(scratch: Path) -> None:
        _decode(images, size, how, scratch, progress)

    return np.load(store.once(artefact, make) / FILE, mmap_mode="c", allow_pickle=False)


def pixel_bytes(images: ImageSet, size: int) -> int:
    """What all images take at this size."""
    return len(images) * size * size * 3


def has_room(images: ImageSet, size: int, store: Store, begun: Path) -> bool:
    """Whether the cache's disk has room for all images at this size; those that are in the file `begun` have theirs."""
    there = next(folder for folder in (store.root, *store.root.absolute().parents) if os.path.isdir(folder))
    held = begun.stat().st_size if begun.is_file() else 0
    return shutil.disk_usage(there).free > SPARE * (pixel_bytes(images, size) - held)


def _artefact(images: ImageSet, size: int, how: str) -> Artefact:
    order = digest(images.labels.tobytes())
    asked = {"images": images.identities, "order": order, "size": size, "preprocess": how}
    return Artefact("pixels", {**asked, "pillow": PIL.__version__})


def _decode(images: ImageSet, size: int, how: str, scratch: Path, progress: Progress) -> None:
    """Writes pixels.npy, from where it was broken off.

    By plain writes: a full disk is an error there, and of a mapped file the process's end.
    """
    file, noted = scratch / FILE, scratch / ".decoded"
    done = resumed(noted, lambda note: int(note.read_text())) or 0
    meter = Meter(progress, f"decoding {images.spec}", len(images), "images")
    with file.open("r+b" if file.is_file() else "w+b") as written:
        shape = (len(images), size, size, 3)
        np.lib.format.write_array_header_1_0(written, {"descr": "|u1", "fortran_order": False, "shape": shape})
        row, header = size * size * 3, written.tell()
        begin = min(done, max(0, os.fstat(written.fileno()).st_size - header) // row)
        written.truncate(header + begin * row)
        written.seek(0, os.SEEK_END)
        meter.add(begin)
        for first in range(begin, len(images), PART):
            part = np.arange(first, min(first + PART, len(images)))
            written.write(load_pixels(images, part, size, how).data)
            written.flush()
            os.fsync(written.fileno())
            with replacing(noted) as temporary:
                temporary.write_text(str(part[-1] + 1))
            meter.add(len(part))
