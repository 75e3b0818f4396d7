"""Views of a data set: long-tailed, or without the tenth that settings are chosen on; its images' usual size."""

from __future__ import annotations

import statistics
from contextlib import suppress

from attar.core.errors import AttarError, BadImage
from attar.data.imageset import ImageSet, load_data

LOOKED = 99
"""Images that the usual size is read off, about."""


def load_view(spec: str, imbalance_factor: float | None = None, hold_out: bool = False) -> ImageSet:
    """The images of `spec`; without the fixed tenth if `hold_out`; then long-tailed by the factor (CIFAR-LT's profile).

    Both choices are the same for every seed and whichever classes are picked afterwards.

    Raises:
        AttarError: as `load_data`; a factor below 1; a class with too few images to hold any out.
    """
    images = load_data(spec)
    if hold_out:
        images, _ = images.held_out()
    return images if imbalance_factor is None else images.long_tailed(imbalance_factor, seed=0)


def load_held_out(spec: str) -> ImageSet:
    """The fixed tenth of the images of `spec`: what settings are chosen on, so that test images are read once."""
    return load_data(spec).held_out()[1]


def usual_side(images: ImageSet) -> int:
    """The median of the shorter sides, in pixels, of some images from all over the set, unreadable ones left out.

    Raises:
        AttarError: none of them can be read.
    """
    return int(statistics.median_low(map(min, _sizes(images))))


def only_side(images: ImageSet) -> int | None:
    """The side, in pixels, that all of these images have; None where they differ, or are not square.

    Raises:
        AttarError: none of them can be read.
    """
    sides = {side for size in _sizes(images) for side in size}
    return sides.pop() if len(sides) == 1 else None


def _sizes(images: ImageSet) -> list[tuple[int, int]]:
    sizes = []
    for index in range(0, len(images), max(1, len(images) // LOOKED)):
        with suppress(BadImage):
            sizes.append(images.open(index).size)
    if not sizes:
        raise AttarError(f"{images.spec}: none of the images that were tried can be read")
    return sizes
