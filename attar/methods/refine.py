"""Refinement by distribution matching (Zhao and Bilen, WACV 2023), of kept latents or of the pixels of a set.

The mean features of images are brought near those of the class's real images, in fresh random networks. In a formation
these are the images that networks will learn from: reduced to a part of a mosaic, and enlarged again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attar.core.config import Range, by_ipc, check_ranges, entries
from attar.core.errors import AttarError
from attar.core.fingerprints import canonical
from attar.core.finite import finite
from attar.core.progress import Meter, timed_on
from attar.core.rng import numpy_generator, seed_of
from attar.data import load_pixels
from attar.job import Job, Spec
from attar.methods.refine_gap import aims_of, check_depths, gap, seen
from attar.networks import build, check, check_size
from attar.networks.depths import FeatureExtractor, features_of
from attar.priors.codec import Codec
from attar.priors.prior import Prior
from attar.sets.mosaics import resampled
from attar.training.augment import Augmentation, draw


@dataclass(frozen=True)
class Refinement:
    """Distribution matching of latents through the decoder, or of pixels: minimises gap + pull * mean (z - start)^2."""

    steps: int | str = "1:300, 49:100, 50"
    """Steps of Adam, each with a network of its own, by the number of images of a class: many need few."""
    lr: float = 0.02
    """Learning rate, in units of latents, or of pixels from -1 to 1; it falls to 0 in a straight line."""
    pull: float = 1.0
    """Weight of the mean squared distance from the start; that of the gap is 1. See `gap`."""
    networks: tuple[str, ...] | None = None
    """Taken in turn; none: two ConvNets as deep as the images' size asks for, of instance and of batch norm, and a
    narrow ResNet."""
    depths: int = 3
    """1: what goes into the last linear layer is compared; 2, 3 ...: the deepest maps of other sizes, too."""
    real: int = 64
    """Real images in a step."""
    pool: int = 1000
    """Random images of the class that they are drawn from, held in memory."""
    dsa: bool = True
    """DSA's colours, shift, scale and rotation (Zhao and Bilen, 2021): in a step the same for real images and ours."""
    part: int = 16
    """Images that are decoded at a time: bounds the memory that gradients take."""
    space: Literal["latents", "pixels"] = "latents"
    """What is moved: latents; or pixels, at the size that the set stores, from the images that the latents make."""

    LATER: ClassVar[Mapping[str, Any]] = {"space": "latents"}
    """Fields that older sets lack, with their defaults: a set that does not use them keeps its key."""

    def identity(self, job: Job) -> Any:
        """Its fields as keys and manifests hold them; those that came later only where they are set."""
        return canonical(self)

    def inputs(self, spec: Spec) -> dict[str, Any]:
        """How images are stored, where it looks at that."""
        if self.space == "latents" and spec.formation == 1:
            return {}
        return {name: getattr(spec, name) for name in ("formation", "output_size", "output_filter")}

    def side(self, job: Job) -> int:
        """Side of the images that its networks see, in pixels."""
        return (self.inputs(job.spec) and job.spec.output_size) or job.codec.size

    def check(self, job: Job) -> None:
        """Raises AttarError where one of its networks cannot take the images, or a class has a single one."""
        side = self.side(job)
        for name in self.mix(side):
            check_size(name, 2, side)
            check_depths(name, build(name, 2, side, 0), side, self.depths)
        single = [name for label, name in enumerate(job.classes) if len(job.images.of_class(label)) < 2]
        if single:
            raise AttarError(f"refine: needs 2 images of each class; too few: {', '.join(map(repr, single))}")

    def mix(self, side: int) -> tuple[str, ...]:
        """The networks for images of `side` x `side` pixels."""
        if self.networks is not None:
            return self.networks
        depth = min(max(round(math.log2(side)) - 2, 3), 6)
        return (f"convnet{depth}-w64", f"convnet{depth}-bn-w64", "resnet10-w16")

    def seconds(self, job: Job, n: int) -> float:
        """Seconds that n images of a class take: one gradient in each network is timed, and nothing is moved."""
        names, pixels = self.mix(self.side(job)), self.space == "pixels"
        part = (3, *[self.side(job) // job.spec.formation] * 2)
        z = torch.zeros(n, *(part if pixels else job.codec.shape), requires_grad=True)
        pool = replace(self, pool=self.real)._pool(job, 0)
        decoding = _decoding(job.codec) * n if pixels else 0.0
        begun = time.monotonic()
        for step in range(len(names)):
            self._gap(job, job.prior.device, 0, z, pool, step).backward()
        return decoding + (time.monotonic() - begun) / len(names) * by_ipc(self.steps, n, "refine.steps")

    def __call__(self, job: Job, prior: Prior, label: int, z: Tensor) -> Tensor:
        """Latents (N, C, H, W), or images (N, 3, S, S) from -1 to 1, moved by the steps that are set for N; on the CPU.

        Networks depend on the seed and the step alone, so that all classes meet the same ones.
        """
        start = z.float()
        z, steps = start.clone().requires_grad_(), by_ipc(self.steps, len(start), "refine.steps")
        optimiser = torch.optim.Adam([z], self.lr)
        falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
        pool = self._pool(job, label)
        meter = Meter(job.progress, f"refining {job.classes[label]}", steps, "steps")
        for step in range(steps):
            loss = self._gap(job, prior.device, label, z, pool, step) + self.pull * (z - start).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            falling.step()
            if self.space == "pixels":
                z.data.clamp_(-1, 1)
            finite(z.detach(), f"the {self.space} after step {step + 1} of {steps} (refine.lr = {self.lr:g})")
            meter.add()
        return z.detach()

    def _gap(self, job: Job, device: torch.device, label: int, z: Tensor, pool: Tensor, step: int) -> Tensor:
        """How far images are from a class's real ones, in the network of a step."""
        side = self.side(job)
        names = self.mix(side)
        network = build(names[step % len(names)], 2, side, seed_of(job.spec.seed, "refine", step))
        how = Augmentation(side, dsa=self.dsa, normalise="half")
        shared = draw(how, 1, job.spec.seed, "refine", step)
        places = numpy_generator(job.spec.seed, "refine", job.classes[label], step).permutation(len(pool))
        real = pool[torch.from_numpy(places[: self.real])]
        features = features_of(network.to(device).requires_grad_(False), self.depths)
        see = partial(seen, features, shared, how, device)
        aims = aims_of(network, see, real)
        codec = job.codec.with_batch_size(min(self.part, len(z)))
        return gap(aims, self._means(partial(self._shown, job.spec, codec), see, z))

    def _pool(self, job: Job, label: int) -> Tensor:
        """Random real images (N, S, S, 3) of a class, uint8."""
        numbers = job.images.of_class(label)
        draw = numpy_generator(job.spec.seed, "refine", job.classes[label])
        chosen = draw.permutation(numbers)[: self.pool]
        return torch.from_numpy(load_pixels(job.images, chosen, self.side(job), job.spec.preprocess))

    def _shown(self, spec: Spec, codec: Codec, z: Tensor) -> Tensor:
        """What networks learn from, (N, 3, S, S) from 0 to 255, of what is moved; with gradients."""
        images = ((codec.decode(z) if self.space == "latents" else z) + 1) * 127.5
        if not self.inputs(spec):
            return images
        whole = spec.output_size or codec.size
        return resampled(resampled(images, whole // spec.formation, spec.output_filter), whole)

    def _means(self, shown: Callable[[Tensor], Tensor], see: FeatureExtractor, z: Tensor) -> list[Tensor]:
        """The mean features (D,) of images; of several parts, each is made again for its gradient."""

        def total(part: Tensor) -> list[Tensor]:
            return [features.sum(0) for features in see(shown(part).permute(0, 2, 3, 1))]

        parts = z.split(self.part)
        sums = total if len(parts) == 1 else partial(checkpoint, total, use_reentrant=False)
        totals = zip(*(sums(part) for part in parts), strict=True)
        return [torch.stack(of_parts).sum(0) / len(z) for of_parts in totals]

    # Checks of the settings

    def __post_init__(self) -> None:
        ranges: tuple[Range, ...] = (
            ("1 or more", lambda x: x >= 1, ("depths", "part")),
            ("2 or more", lambda x: x >= 2, ("real", "pool")),
            ("a number above 0", lambda x: 0 < x < math.inf, ("lr",)),
            ("a number of 0 or more", lambda x: 0 <= x < math.inf, ("pull",)),
        )
        check_ranges(self, ranges, "refine", part=True)
        if not all(1 <= steps < math.inf and steps == int(steps) for _, steps in entries(self.steps, "refine.steps")):
            raise AttarError(f"refine: steps = {self.steps!r}: give whole numbers of 1 or more")
        for name in self.networks or ():
            check(name)


def _decoding(codec: Codec) -> float:
    """Seconds that decoding an image takes; a call is timed."""
    z = torch.zeros(codec.batch_size, *codec.shape)
    return timed_on(lambda: codec.decode(z), torch.device("cpu")) / len(z)
