"""Formation: a mosaic of K x K images in the place of one, each at 1/K of its size (IDC, Kim et al., ICML 2022, 3.2).

The parts of a mosaic stand row by row. Networks learn from each of them, enlarged to the size of the mosaic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from attar.core.errors import AttarError
from attar.data import decode
from attar.data.pixels import Pixels

if TYPE_CHECKING:
    from torch import Tensor


def check_divisible(side: int, formation: int) -> None:
    """Raises AttarError where images of this side cannot be mosaics of formation x formation parts."""
    if side % formation:
        remedy = "choose another, or an `output_size` that it divides"
        raise AttarError(f"`formation` {formation}: does not divide the images' {side} pixels; {remedy}")


def grid_words(formation: int) -> str:
    """ "2 x 2"."""
    return f"{formation} x {formation}"


def reduced(pixels: Pixels, side: int, how: str = "lanczos") -> Pixels:
    """An image (H, W, 3) brought to `side` x `side` pixels, antialiased, with a filter of PIL's, by name."""
    if pixels.shape[:2] == (side, side):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling[how.upper()]))


def enlarged(part: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A part brought to the size of its mosaic (width, height), bilinearly as in IDC."""
    return part if part.size == size else part.resize(size, Image.Resampling.BILINEAR)


def resampled(images: Tensor, side: int, how: str = "bilinear") -> Tensor:
    """What `reduced` and `enlarged` make of images (N, C, S, S) from 0 to 255, with gradients: (N, C, side, side).

    PIL's weights, and as there each of its two passes is held to the range; only its rounding to whole numbers is left
    out.
    """
    import torch

    if images.shape[-1] == side:
        return images
    weights = torch.from_numpy(_weights(images.shape[-1], side, how)).to(images.device)
    across = (images @ weights).clamp(0, 255)
    return (weights.T @ across).clamp(0, 255)


@cache
def _weights(side: int, to: int, how: str) -> np.ndarray:
    """(side, to): what each of `side` pixels in a row gives to each of `to`, by PIL's filter of this name."""
    single = Image.fromarray(np.eye(side, dtype=np.float32))
    return np.array(single.resize((to, side), Image.Resampling[how.upper()]))


def mosaic(parts: Sequence[Pixels]) -> Pixels:
    """K^2 images (H, W, 3) of one size in one, row by row."""
    formation = round(len(parts) ** 0.5)
    rows = [np.concatenate(parts[k * formation : (k + 1) * formation], axis=1) for k in range(formation)]
    return np.concatenate(rows)


@dataclass(frozen=True)
class Picture:
    """An image that networks learn from: that in a file, or a part of the mosaic in it."""

    file: Path
    """Where it lies."""
    formation: int = 1
    """Parts in each row and column of the mosaic; 1: the image is no mosaic."""
    part: int = 0
    """Which of the parts it is, row by row."""

    def within(self, image: Image.Image) -> Image.Image:
        """It, given what is in the file: a part is enlarged to the size of the mosaic.

        Raises:
            AttarError: the image cannot be divided into its parts.
        """
        if self.formation == 1:
            return image
        width, height = (side // self.formation for side in image.size)
        if (width * self.formation, height * self.formation) != image.size:
            size = f"{image.width} x {image.height} pixels"
            raise AttarError(f"{self.file}: {size} are no mosaic of {grid_words(self.formation)} parts")
        row, column = divmod(self.part, self.formation)
        corner = (column * width, row * height)
        return enlarged(image.crop((*corner, corner[0] + width, corner[1] + height)), image.size)

    def read(self) -> Image.Image:
        """It, opened.

        Raises:
            BadImage: the file cannot be decoded.
        """
        return self.within(decode.read(self.file))


def pictures(files: Sequence[Path], formation: int) -> list[Picture]:
    """All that is in some files, in order: the parts of each mosaic follow one another."""
    return [Picture(file, formation, part) for file in files for part in range(formation**2)]
