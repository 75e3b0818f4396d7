"""The images of a set on the page: a picture, a sprite, for each of its classes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from attar.core.errors import AttarError, reason
from attar.data import decode

LARGEST_CELL = 128
"""Pixels: larger images are shown as thumbnails of this size."""
SHOWN_CELL = 56
"""About how large a small image stands on the page, in CSS pixels."""
SHOWN_THUMBNAIL = 96
"""How large a thumbnail stands there, at most."""
COLUMNS = 10
"""Images in a row of a sprite."""
BUDGET = 4_600_000
"""Characters that all sprites of a page may take."""
SHOWN_CHOICES: tuple[tuple[int, int | None], ...] = ((50, None), (50, 90), (50, 70), (10, 80), (10, 50), (3, 50))
"""(images of a class, WebP quality or None: every pixel is kept); a page has the first that keeps to its budget."""


@dataclass(frozen=True)
class Sheet:
    """Images of one class in rows of ten, each in a cell."""

    name: str
    shown: int
    total: int
    picture: Image.Image
    cell: int
    """Side of a cell in pixels."""
    step: int
    """From one cell to the next."""
    scale: float
    """CSS pixels for each of its pixels."""
    sizes: tuple[tuple[int, int], ...]
    """(width, height) of the images, each once, as they are in their files."""

    @property
    def pixelated(self) -> bool:
        """Whether the images are shown larger than they are."""
        return self.scale > 1


@dataclass(frozen=True)
class ShownImages:
    """How the images stand on a page."""

    images: int
    """Of a class, at most."""
    quality: int | None
    """Of WebP; None: every pixel is kept."""


def sheet(name: str, images: Sequence[Image.Image], total: int) -> Sheet:
    """A sheet of some of the `total` images of a class.

    Images keep their shape; where sizes differ, smaller ones are enlarged by whole factors and centred.
    """
    cell = min(max((max(image.size) for image in images), default=1), LARGEST_CELL)
    gap = max(1, cell // 16)
    step = cell + gap
    columns, rows = max(1, min(len(images), COLUMNS)), max(1, -(-len(images) // COLUMNS))
    picture = Image.new("RGBA", (columns * step - gap, rows * step - gap))
    for place, image in enumerate(images):
        fitted = _fitted(image, cell)
        x, y = place % COLUMNS * step, place // COLUMNS * step
        picture.paste(fitted, (x + (cell - fitted.width) // 2, y + (cell - fitted.height) // 2))
    scale = max(1, round(SHOWN_CELL / cell)) if cell <= SHOWN_CELL else min(1.0, SHOWN_THUMBNAIL / cell)
    return Sheet(name, len(images), total, picture, cell, step, scale, tuple(sorted({one.size for one in images})))


def fitting(draw: Callable[[int], Sequence[Sheet]], budget: int = BUDGET) -> tuple[ShownImages, list[str]]:
    """How the images of a page stand on it, and their sheets as data URIs.

    Args:
        draw: makes the sheets with so many images of a class at most.
    """
    sheets: Sequence[Sheet] = []
    drawn = None
    for count, quality in SHOWN_CHOICES:
        if drawn != count:
            sheets, drawn = draw(count), count
        uris = [_uri(one.picture, quality) for one in sheets]
        if sum(map(len, uris)) <= budget:
            break
    return ShownImages(count, quality), uris


def image_of(file: Path) -> Image.Image:
    """An image of a set.

    Raises:
        AttarError: it cannot be read.
    """
    try:
        return decode.upright(decode.opened(file.read_bytes()))
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


def _uri(picture: Image.Image, quality: int | None) -> str:
    data = io.BytesIO()
    if quality is None:
        picture.save(data, "WEBP", lossless=True)
    else:
        picture.save(data, "WEBP", quality=quality)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
