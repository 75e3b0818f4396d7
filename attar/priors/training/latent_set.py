"""The latents that a prior is trained on: posteriors, mirrored ones too, drawn from by key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from PIL import Image, ImageOps
from torch import Tensor

from attar.core.limits import IN_MEMORY
from attar.core.progress import Progress, silent
from attar.core.rng import generator
from attar.core.store import fingerprint
from attar.data import ImageSet
from attar.priors.latents import Latents, Shard


@dataclass(frozen=True, eq=False)
class Joined:
    """The rows of several tensors, one after the other, as if of one; those of files stay there."""

    parts: Sequence[Tensor]
    """Each (n, ...)."""

    @cached_property
    def _begins(self) -> Tensor:
        return torch.tensor([0, *(len(part) for part in self.parts)]).cumsum(0)

    def __len__(self) -> int:
        return int(self._begins[-1])

    def __getitem__(self, picked: Tensor) -> Tensor:
        """The rows numbered in `picked` (n,)."""
        part = torch.searchsorted(self._begins, picked, right=True) - 1
        rows = zip(part.tolist(), (picked - self._begins[part]).tolist(), strict=True)
        return torch.stack([self.parts[number][row] for number, row in rows])


@dataclass(frozen=True, eq=False)
class LatentSet:
    """Posteriors of N images, in scaled units, V times: of all images as they are, then of all of them mirrored."""

    mean: Tensor | Joined
    """(V * N, C, H, W), bfloat16 or float32."""
    std: Tensor | Joined | None
    """Deviations, in the same shape; None where latents are exact."""
    labels: Tensor
    """(N,), int64; `evenly` wants them in order."""
    mirrored: bool = False
    """Mirror half of the latents themselves: for pixels, where that is what mirroring means."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.mean[torch.zeros(1, dtype=torch.int64)].shape[1:]
        return channels, height, width

    def batch(self, size: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch drawn with replacement: latents (size, C, H, W), float32, sampled afresh, and labels (size,)."""
        return self.take(torch.randint(len(self.labels), (size,), generator=draw), draw)

    def take(self, picked: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """The batch of the images numbered in `picked` (size,)."""
        z, _ = self.views(picked, draw)
        return z, self.labels[picked]

    def views(self, picked: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """The latents of these images, each as it is or mirrored, and their rows (size,): N more where mirrored."""
        size = len(picked)
        view = torch.randint(len(self.mean) // len(self.labels), (size,), generator=draw)
        rows = view * len(self.labels) + picked
        z = self.mean[rows].float()
        if self.std is not None:
            z = z + self.std[rows].float() * torch.randn(z.shape, generator=draw)
        if self.mirrored:
            flipped = torch.rand(size, generator=draw) < 0.5
            z = torch.where(flipped.view(-1, 1, 1, 1), z.flip(-1), z)
            rows = rows + len(self.labels) * flipped
        return z, rows

    def in_turn(self, size: int, step: int, seed: int) -> Tensor:
        """The images of a step (size,) that takes every image once an epoch, in a new order each; the rest is left."""
        epoch, place = divmod(step, len(self.labels) // size)
        order = _order(len(self.labels), seed, epoch)
        return order[place * size : (place + 1) * size]

    def evenly(self, size: int, draw: torch.Generator) -> Tensor:
        """Images (size,) drawn with replacement, each class as often as any other."""
        counts = self.labels.bincount()
        chosen = torch.randint(len(counts), (size,), generator=draw)
        within = (torch.rand(size, generator=draw) * counts[chosen]).long()
        return (counts.cumsum(0) - counts)[chosen] + within


@lru_cache(maxsize=1)
def _order(images: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(images, generator=generator(seed, "epoch", epoch))


def held_in_memory(latents: Tensor, labels: Tensor) -> LatentSet:
    """Exact latents (N, C, H, W), for example pixels in [-1, 1]."""
    return LatentSet(latents, None, labels)


def load_latents(latents: Latents, flip: bool, progress: Progress = silent) -> LatentSet:
    """The latents of all images, class by class; encoded where they are missing.

    With `flip`, mirrored images are encoded, too: a codec's latents of a mirrored image are not its mirrored latents.
    In memory they take at most IN_MEMORY bytes, and their deviations as many; larger ones stay in the cache's files.
    """
    images, shards = latents.images, _shards(latents, progress)
    exact = not any(bool(shard.std.any()) for shard in shards)
    if flip and not exact:
        shards += _mirrored(latents, progress)
    mean, std = _joined([shard.mean for shard in shards]), None if exact else _joined([shard.std for shard in shards])
    labels = torch.cat([torch.full((len(images.of_class(c)),), c) for c in range(len(images.classes))])
    return LatentSet(mean, std, labels, mirrored=flip and exact)


def load_maps(latents: Latents, flip: bool, progress: Progress = silent) -> Tensor | Joined:
    """What an encoder of feature maps makes of all images, class by class, and with `flip` of all of them mirrored."""
    shards = _shards(latents, progress) + (_mirrored(latents, progress) if flip else [])
    return _joined([shard.mean for shard in shards])


def _mirrored(latents: Latents, progress: Progress) -> list[Shard]:
    return _shards(replace(latents, images=Mirrored(latents.images)), progress)


def _shards(latents: Latents, progress: Progress) -> list[Shard]:
    return [s for label in range(len(latents.images.classes)) for s in latents.shards(label, progress=progress)]


def _joined(parts: list[Tensor]) -> Tensor | Joined:
    return torch.cat(parts) if sum(part.nbytes for part in parts) <= IN_MEMORY else Joined(parts)


class Mirrored(ImageSet):
    """The same images, left and right exchanged."""

    def __init__(self, images: ImageSet) -> None:
        self.__dict__ |= images.__dict__
        self._digests, self._images = {}, images

    def __reduce__(self) -> tuple[type[Mirrored], tuple[ImageSet]]:
        return Mirrored, (self._images,)

    def open(self, index: int) -> Image.Image:
        """The image, upright, as RGB, mirrored."""
        return ImageOps.mirror(super().open(index))

    def digest(self, label: int) -> str:
        """Another digest than that of the images as they are."""
        return fingerprint("mirrored", super().digest(label))
