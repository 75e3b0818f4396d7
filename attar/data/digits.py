"""scikit-learn's 1,797 handwritten digits, 8 x 8 grey: the data set that is always at hand."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from attar.data.source_contract import Ints


def splits(where: str) -> tuple[str, ...]:
    """The splits: of each class every fifth image, from the first, is "test", and the others are "train"."""
    return ("train", "test", "all")


def load(where: str, split: str | None) -> Digits:
    """The images of a split."""
    return Digits(split or "train")


class Digits:
    """The images of one split; grey values 0 to 16 become 0 to 255."""

    classes = tuple("0123456789")
    side = 8

    def __init__(self, split: str) -> None:
        self.split = split

    @cached_property
    def labels(self) -> Ints:
        """int64 (N,)"""
        return np.asarray(_bunch().target, np.int64)[self._places]

    @cached_property
    def _pixels(self) -> npt.NDArray[np.uint8]:
        return np.asarray(np.round(_bunch().images[self._places] * (255 / 16)), np.uint8)

    @cached_property
    def _places(self) -> Ints:
        target = _bunch().target
        rank = np.zeros(len(target), np.int64)
        for label in range(10):
            of_class = np.flatnonzero(target == label)
            rank[of_class] = np.arange(len(of_class))
        wanted = {"train": rank % 5 != 0, "test": rank % 5 == 0, "all": rank >= 0}[self.split]
        return np.flatnonzero(wanted)

    def name(self, index: int) -> str:
        return f"digits, image {self._places[index]}"

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self._pixels[index])

    def content(self, index: int) -> bytes:
        return bytes(self._pixels[index].tobytes())

    def signature(self, indices: Ints) -> object:
        return None


@cache
def _bunch() -> Any:
    from sklearn.datasets import load_digits

    return load_digits()
