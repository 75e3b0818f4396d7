"""The images of a set on the page: one picture, a sprite, with a row for each class."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from attar.core.errors import AttarError, reason
from attar.data.decode import opened, upright

LARGEST_CELL = 128
"""Pixels: larger images are shown as thumbnails of this size."""
LOSSLESS_CELL = 64
"""Pixels: up to here a sprite keeps every pixel."""
SHOWN_CELL = 56
"""About how large a small image stands on the page, in CSS pixels."""
SHOWN_THUMBNAIL = 96
"""How large a thumbnail stands there, at most."""


@dataclass(frozen=True)
class Strip:
    """A row of a sprite: the images of one class."""

    name: str
    shown: int
    total: int
    y: int
    width: int


@dataclass(frozen=True)
class Sprite:
    """One picture with the images of a set: a row for each class that is shown."""

    uri: str
    width: int
    height: int
    cell: int
    scale: float
    sizes: tuple[tuple[int, int], ...]
    """(width, height) of the images, each once, as they are in their files."""
    strips: tuple[Strip, ...]

    @property
    def pixelated(self) -> bool:
        """Whether the images are shown larger than they are."""
        return self.scale > 1


def sprite(classes: Sequence[tuple[str, Sequence[Path], int]]) -> Sprite:
    """A sprite of (class name, files to show, images that there are) for each class to show.

    Images keep their shape; where sizes differ, smaller ones are enlarged by whole factors and centred.

    Raises:
        AttarError: an image cannot be read.
    """
    opened = [[_open(file) for file in files] for _, files, _ in classes]
    largest = max((max(image.size) for images in opened for image in images), default=1)
    cell = min(largest, LARGEST_CELL)
    gap = max(1, cell // 16)
    step = cell + gap
    columns = max((len(images) for images in opened), default=1)
    sheet = Image.new("RGBA", (max(1, columns * step - gap), max(1, len(opened) * step - gap)))
    strips = []
    for y, ((name, _, total), images) in enumerate(zip(classes, opened, strict=True)):
        for x, image in enumerate(images):
            fitted = _fitted(image, cell)
            sheet.paste(fitted, (x * step + (cell - fitted.width) // 2, y * step + (cell - fitted.height) // 2))
        strips.append(Strip(name, len(images), total, y * step, max(1, len(images) * step - gap)))
    scale = max(1, round(SHOWN_CELL / cell)) if cell <= LOSSLESS_CELL else SHOWN_THUMBNAIL / cell
    sizes = tuple(sorted({image.size for images in opened for image in images}))
    return Sprite(_uri(sheet, cell), sheet.width, sheet.height, cell, scale, sizes, tuple(strips))


def _open(file: Path) -> Image.Image:
    try:
        return upright(opened(file.read_bytes()))
    except Exception as error:  # PIL raises many kinds on what is no image
        raise AttarError(
            f"{file} cannot be read ({reason(error)}); `attar verify {file.parent.parent.parent}` checks all"
        ) from error


def _fitted(image: Image.Image, cell: int) -> Image.Image:
    scale = cell / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, Image.Resampling.LANCZOS)
    return image.resize((image.width * int(scale), image.height * int(scale)), Image.Resampling.NEAREST)


def _uri(sheet: Image.Image, cell: int) -> str:
    data = io.BytesIO()
    if cell <= LOSSLESS_CELL:
        sheet.save(data, "PNG", optimize=True)
        kind = "png"
    else:
        sheet.save(data, "WEBP", quality=82)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
