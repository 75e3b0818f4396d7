"""RDED: random square crops of an image."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attar.core.rng import numpy_generator

LEAST = 0.08
"""Share of an image's area that a crop has at least, as torchvision's RandomResizedCrop."""


def random_squares(width: int, height: int, count: int, *key: str | int) -> Tensor:
    """Squares (count, 3) in an image, as left, top and side: torchvision's RandomResizedCrop of aspect ratio 1.

    The first of ten random areas whose square fits, else the largest square in the middle.
    """
    rng = numpy_generator(*key)
    tries = np.rint(np.sqrt(width * height * rng.uniform(LEAST, 1, (count, 10))))
    fits = (tries > 0) & (tries <= min(width, height))
    fitting = np.asarray(fits.any(1))
    side = np.where(fitting, tries[np.arange(count), fits.argmax(1)], min(width, height))
    place = np.where(fitting[:, None], rng.random((count, 2)), 0.5)
    left, top = (np.floor(place * (np.array([width, height]) - side[:, None] + 1))).T
    return torch.from_numpy(np.stack([left, top, side], 1).astype(np.int64))


def cropped(image: Image.Image, box: Tensor, width: int, height: int) -> np.ndarray:
    """The pixels (height, width, 3) in a square of an image, resized."""
    left, top, side = box.tolist()
    square = image.crop((left, top, left + side, top + side))  # a box given to resize lets pixels beside it in
    return np.asarray(square.resize((width, height), Image.Resampling.BILINEAR))
