"""Labelled images: what networks train and are tested on; their checks and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torchvision.transforms.v2 import functional

from attar.core.errors import AttarError
from attar.core.store import digest, fingerprint
from attar.core.wording import counted
from attar.evaluation.native import Native


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """A labelled set, in memory or mapped from a file."""

    images: np.ndarray | Native
    """uint8 (N, H, W, 3), or images of differing sizes."""
    labels: np.ndarray
    """int64 (N,)."""
    classes: tuple[str, ...]
    """Class names in label order."""
    original: LabelledImages | None = None
    """As they are on disk, where that is not as they are here."""
    weights: np.ndarray | None = None
    """(N,): what the loss of each image's label is multiplied by; None: all the same."""

    @property
    def whole(self) -> LabelledImages:
        """What fixed labels are of, whatever a recipe makes of the images."""
        return self.original or self

    @property
    def pixels(self) -> np.ndarray:
        """uint8 (N, H, W, 3).

        Raises:
            AttarError: the images differ in size.
        """
        if isinstance(self.images, Native):
            raise AttarError(
                "these images differ in size: bring them to one with attar.evaluation.labelled_images.resized"
            )
        return self.images

    @property
    def side(self) -> int:
        """The shorter side, in pixels; of differing sizes, the median."""
        return self.images.side if isinstance(self.images, Native) else min(self.images.shape[1:3])

    @cached_property
    def digest(self) -> str:
        """The fingerprint of the pixels, the labels and the number of classes; names do not enter."""
        labels = digest(self.labels.astype(np.int64).tobytes())
        if isinstance(self.images, Native):
            return fingerprint(self.images.digest, labels, len(self.classes))
        parts = [digest(self.pixels[i : i + 4096].tobytes()) for i in range(0, len(self.pixels), 4096)]
        return fingerprint(self.pixels.shape, parts, labels, len(self.classes))

    @property
    def identity(self) -> dict[str, Any]:
        """The set as keys hold it: how many images and classes there are, the digest, and weights where it has any."""
        about = {"images": len(self.labels), "classes": len(self.classes), "digest": self.digest}
        return (
            about if self.weights is None else {**about, "weights": digest(self.weights.astype(np.float64).tobytes())}
        )


def resized(pixels: np.ndarray | Native, size: int, shorter: int | None = None) -> np.ndarray:
    """Images in uint8 (N, size, size, 3): the shorter side resized to `shorter` (antialiased), then the middle."""
    shorter = shorter or size
    if isinstance(pixels, Native):
        return np.concatenate([resized(pixels.picture(i)[None], size, shorter) for i in range(len(pixels))])
    if pixels.shape[1] == pixels.shape[2] == shorter >= size:
        edge = round((shorter - size) / 2)
        return pixels[:, edge : edge + size, edge : edge + size]
    parts = []
    for start in range(0, len(pixels), 256):
        part = torch.tensor(np.ascontiguousarray(pixels[start : start + 256])).permute(0, 3, 1, 2)
        part = functional.resize(part, [shorter], antialias=True)
        parts.append(functional.center_crop(part, [size, size]).permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def check_sets(train: LabelledImages, test: LabelledImages) -> None:
    """Raises AttarError unless both sets are well formed and have the same classes in the same order."""
    for name, held in (("training", train), ("test", test)):
        pixels, labels = held.images, held.labels
        if isinstance(pixels, np.ndarray) and (pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8):
            raise AttarError(f"{name} images are {pixels.dtype} {pixels.shape}; they must be uint8 (N, H, W, 3)")
        if len(pixels) == 0 or len(labels) != len(pixels):
            has = f"{counted(len(pixels), 'image')} and {counted(len(labels), 'label')}"
            raise AttarError(f"the {name} set has {has}; it needs as many, and one")
        if labels.min() < 0 or labels.max() >= len(held.classes):
            raise AttarError(
                f"{name} labels run from {labels.min()} to {labels.max()} for {counted(len(held.classes), 'class')}"
            )
    weights = train.weights
    if weights is not None and (weights.shape != train.labels.shape or not (weights >= 0).all() or not weights.any()):
        raise AttarError(
            f"the training set's weights are {weights.shape} for {counted(len(train.labels), 'image')}; it needs as "
            "many, none below 0, and one above"
        )
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))[:5] or ["the same names in another order"]
        raise AttarError(f"training and test set differ in their classes: {', '.join(odd)}")
