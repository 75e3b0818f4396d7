"""Views of a data set: long-tailed, or without the tenth that settings are chosen on."""

from __future__ import annotations

from attar.data.imageset import ImageSet, load_data


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
