"""Preprocessing: how the published methods bring an image of any size to a square of uint8."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from attar.core.errors import AttarError, suggestion
from attar.data.imageset import ImageSet
from attar.data.source_contract import Ints
from attar.data.threads import in_threads

Pixels = npt.NDArray[np.uint8]

PANORAMA = 64
"""Images longer than this many times their short side are never resized whole."""


def preprocess(image: Image.Image, size: int, how: str) -> Pixels:
    """The image as uint8 (size, size, 3).

    Raises:
        AttarError: `how` is not in PREPROCESSING.
    """
    if how not in PREPROCESSING:
        raise AttarError(
            f"unknown preprocessing {how!r}{suggestion(how, PREPROCESSING)}; there are {', '.join(PREPROCESSING)}"
        )
    return np.asarray(PREPROCESSING[how](image, size), np.uint8)


def load_pixels(images: ImageSet, indices: Ints | Sequence[int], size: int, how: str) -> Pixels:
    """The images of these indices as uint8 (N, size, size, 3), decoded with a few threads.

    Raises:
        BadImage: one of them cannot be decoded.
    """
    pixels = np.empty((len(indices), size, size, 3), np.uint8)
    for place, made in enumerate(in_threads(lambda index: preprocess(images.open(int(index)), size, how), indices)):
        pixels[place] = made
    return pixels


def at_side(pixels: Pixels, side: int) -> Pixels:
    """Images, uint8 (N, S, S, 3), brought to (N, side, side, 3), antialiased."""
    if pixels.shape[1] == side:
        return pixels
    import torch
    from torchvision.transforms.v2.functional import resize

    images = resize(torch.from_numpy(pixels).permute(0, 3, 1, 2), [side, side], antialias=True)
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())


def _adm(image: Image.Image, size: int) -> Image.Image:
    """Guided diffusion's, also DiT's and Minimax's: halve by boxes while twice too large, bicubic, centre crop."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    whole = (round(image.width * scale), round(image.height * scale))
    corner = ((whole[0] - size) // 2, (whole[1] - size) // 2)
    return _part_of_resized(image, whole, corner, size, Image.Resampling.BICUBIC)


def _resize_crop(image: Image.Image, size: int) -> Image.Image:
    """D3HR's: torchvision's Resize (bilinear, the short side exact, the long side rounded down) and CenterCrop."""
    short = min(image.size)
    whole = (image.width * size // short, image.height * size // short)
    corner = (round((whole[0] - size) / 2), round((whole[1] - size) / 2))
    return _part_of_resized(image, whole, corner, size, Image.Resampling.BILINEAR)


def _squash(image: Image.Image, size: int) -> Image.Image:
    """D4M's: torchvision's Resize to a square (bilinear), whatever the shape was."""
    return image.resize((size, size), Image.Resampling.BILINEAR)


def _part_of_resized(
    image: Image.Image, whole: tuple[int, int], corner: tuple[int, int], size: int, how: Image.Resampling
) -> Image.Image:
    """The square at `corner` of the image resized to `whole`.

    The rest of a long panorama is never made, at the price of rounding: PIL takes the box in float32.
    """
    left, top = corner
    if whole[0] * whole[1] <= PANORAMA * size * size:
        return image.resize(whole, how).crop((left, top, left + size, top + size))
    across, down = image.width / whole[0], image.height / whole[1]
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    return image.resize((size, size), how, box)


PREPROCESSING: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "adm": _adm,
    "resize-crop": _resize_crop,
    "squash": _squash,
}
