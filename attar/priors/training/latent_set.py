"""The latents that a prior is trained on, held in memory: posteriors, mirrored ones too, drawn from by key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from PIL import Image, ImageOps
from torch import Tensor

from attar.core.progress import Progress, silent
from attar.core.rng import generator
from attar.core.store import fingerprint
from attar.data import ImageSet
from attar.priors.latents import Latents


@dataclass(frozen=True, eq=False)
class LatentSet:
    """Posteriors of N images, in scaled units, each V times: as it is, and mirrored."""

    mean: Tensor
    """(V, N, C, H, W), bfloat16 or float32."""
    std: Tensor | None
    """Deviations, in the same shape; None where latents are exact."""
    labels: Tensor
    """(N,), int64; `evenly` wants them in order."""
    mirrored: bool = False
    """Mirror half of the latents themselves: for pixels, where that is what mirroring means."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.mean.shape[2:]
        return channels, height, width

    def batch(self, size: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch drawn with replacement: latents (size, C, H, W), float32, sampled afresh, and labels (size,)."""
        return self.take(torch.randint(self.mean.shape[1], (size,), generator=draw), draw)

    def take(self, picked: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """The batch of the images numbered in `picked` (size,)."""
        size = len(picked)
        view = torch.randint(len(self.mean), (size,), generator=draw)
        z = self.mean[view, picked].float()
        if self.std is not None:
            z = z + self.std[view, picked].float() * torch.randn(z.shape, generator=draw)
        if self.mirrored:
            flipped = torch.rand(size, generator=draw) < 0.5
            z = torch.where(flipped.view(-1, 1, 1, 1), z.flip(-1), z)
        return z, self.labels[picked]

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
    return LatentSet(latents[None], None, labels)


def load_latents(latents: Latents, flip: bool, progress: Progress = silent) -> LatentSet:
    """The latents of all images, class by class, in memory; encoded where they are missing.

    With `flip`, mirrored images are encoded, too: a codec's latents of a mirrored image are not its mirrored latents.
    Takes 4 bytes a value in memory (2 where latents are exact), twice as many with `flip`.
    """
    images, stacks = latents.images, [_stacked(latents, progress)]
    exact = not stacks[0][1].any()
    if flip and not exact:
        stacks.append(_stacked(replace(latents, images=Mirrored(images)), progress))
    mean, std = (torch.stack(parts) for parts in zip(*stacks, strict=True))
    labels = torch.cat([torch.full((len(images.of_class(c)),), c) for c in range(len(images.classes))])
    return LatentSet(mean, None if exact else std, labels, mirrored=flip and exact)


def _stacked(latents: Latents, progress: Progress) -> tuple[Tensor, Tensor]:
    shards = [s for label in range(len(latents.images.classes)) for s in latents.shards(label, progress=progress)]
    return torch.cat([shard.mean for shard in shards]), torch.cat([shard.std for shard in shards])


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
