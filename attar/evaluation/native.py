"""Images of differing sizes, each at the size that it was decoded at, in bounded memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from attar.core.machine import memory
from attar.core.store import fingerprint
from attar.data.degenerate import ImageContents
from attar.data.threads import in_threads

SHARE = 4
"""Decoded images may fill this part (a quarter) of the memory; the others are decoded whenever they are needed."""
Decode = Callable[[int], np.ndarray]
"""The image of this number, uint8 (H, W, 3)."""


class Native:
    """Images by number; those asked for come as tensors (H, W, 3) on a device. Each is decoded once when it is made.

    Attributes:
        sizes: (height, width) of each.
        looks: what each shows.
        digest: the fingerprint of all pixels.
    """

    def __init__(self, count: int, decode: Decode) -> None:
        """Raises BadImage where one of the images cannot be decoded."""
        self.device = torch.device("cpu")
        self._decode, self._kept = decode, dict[int, np.ndarray]()
        self.sizes: list[tuple[int, int]] = []
        self.contents: list[ImageContents] = []
        room = memory() // SHARE
        for number, pixels in enumerate(in_threads(decode, range(count))):
            self.sizes.append((pixels.shape[0], pixels.shape[1]))
            self.contents.append(ImageContents.of(np.ascontiguousarray(pixels).tobytes()))
            if pixels.nbytes <= room:
                self._kept[number] = pixels
                room -= pixels.nbytes
        self.digest = fingerprint("native", self.sizes, [look.digest for look in self.contents])

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: Tensor) -> list[Tensor]:
        numbers = index.tolist()
        decoded = all(number in self._kept for number in numbers)
        pixels = map(self.picture, numbers) if decoded else in_threads(self.picture, numbers)
        return [torch.tensor(image, device=self.device) for image in pixels]

    def picture(self, number: int) -> np.ndarray:
        """The image of this number, uint8 (H, W, 3)."""
        pixels = self._kept.get(number)
        return self._decode(number) if pixels is None else pixels

    def to(self, device: torch.device) -> Native:
        """The same images for another device."""
        other = object.__new__(Native)
        other.__dict__.update(self.__dict__, device=device)
        return other

    @property
    def side(self) -> int:
        """The median of the shorter sides."""
        return int(statistics.median(min(size) for size in self.sizes))

    def stacked(self) -> np.ndarray | Native:
        """All images (N, H, W, 3), taken out of here, where they have one size and all are kept; else these."""
        if len(set(self.sizes)) != 1 or len(self._kept) < len(self):
            return self
        pixels = np.empty((len(self), *self.sizes[0], 3), np.uint8)
        for number in range(len(self)):
            pixels[number] = self._kept.pop(number)
        return pixels
