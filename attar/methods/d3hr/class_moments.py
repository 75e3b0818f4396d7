"""The fit of D3HR: a class's latents, inverted to some times, as running moments."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from attar.core.errors import AttarError
from attar.core.files import replacing, resumed
from attar.core.progress import Meter
from attar.core.store import note_seconds
from attar.diffusion import FixedPoint, Sampler, check_grid, grid, inverted, network_passes, sample
from attar.job import Job
from attar.methods.base import Fit, Group, Tensors
from attar.priors.latents import Shard
from attar.priors.prior import Prior

RETURNED = 16
"""Images of a class that exact inversion is checked on, by sampling them back."""
TYPICAL = 3
"""Network calls of a step of exact inversion, for the estimate; at guidance 1, on the shared CIFAR-10 prior."""


@dataclass(frozen=True)
class Invert(Fit):
    """DDIM inversion of each class's latents (D3HR, section 3.2), kept as count, mean and variance at some times."""

    times: tuple[int, ...] = (600,)
    """The times whose moments are kept (600: the paper's 30 of 50 steps). One inversion, to the last, serves all."""
    guidance: float = 4.0
    """Guidance of the inversion; 1 halves its cost."""
    steps: int = 50
    """Steps of the time grid."""
    per_class: int | None = None
    """Invert a random sample of so many images of each class; None inverts all of them, as the paper does."""
    clean_time: int = -1
    """The time that stands for the clean image: -1 is alpha-bar = 1 (the reference code: 0)."""
    exact: bool = False
    """Find what sampling would take back to the latents, by fixed-point iteration; plain inversion is the paper's."""
    tolerance: float = 1e-4
    """Of exact inversion: a step is solved when an iteration moves a latent by so much of its norm, or less."""
    iterations: int = 30
    """Of exact inversion: at most so many for each step."""
    seed: int = 0
    """Seed of the posterior samples."""

    uses_prior = True
    needs = 2

    def __post_init__(self) -> None:
        check_grid("fit", self.steps, "leading")
        if not self.times:
            raise AttarError("fit.times: at least one")
        for one in self.times:
            if one not in grid(self.steps):
                near = min(grid(self.steps), key=lambda time: abs(time - one))
                raise AttarError(f"fit.times {one} is not on the grid of {self.steps} steps; the nearest is {near}")
        if list(self.times) != sorted(set(self.times)):
            raise AttarError(f"fit.times {','.join(map(str, self.times))}: give them once each, rising")
        if not -1 <= self.clean_time < self.times[0]:
            raise AttarError(f"fit.clean_time {self.clean_time}: at least -1, and below fit.times, {self.times[0]}")
        if not math.isfinite(self.guidance):
            raise AttarError(f"fit.guidance {self.guidance}: must be a finite number")
        if self.per_class is not None and self.per_class < 2:
            raise AttarError(f"fit.per_class {self.per_class}: at least 2 images are needed for a variance")
        if not 0 < self.tolerance < 1:
            raise AttarError(f"fit.tolerance {self.tolerance}: above 0, below 1")
        if self.iterations < 1:
            raise AttarError(f"fit.iterations {self.iterations}: at least 1")

    def check(self, prior: Prior) -> None:
        if self.exact and prior.dtype != torch.float32:
            raise AttarError("fit.exact: exact inversion needs --dtype float32")

    def path(self) -> list[int]:
        """The grid's times that the inversion goes through, to the last that is kept."""
        return [t for t in grid(self.steps) if self.clean_time < t <= self.times[-1]]

    def images(self, count: int) -> int:
        """How many of a class's images are inverted."""
        return count if self.per_class is None else min(self.per_class, count)

    def passes(self, counts: Sequence[int]) -> int:
        calls = len(self.path()) * network_passes(self.guidance)
        images = sum(self.images(count) for count in counts)
        back = sum(min(self.images(count), RETURNED) for count in counts)
        return calls * (TYPICAL * images + back if self.exact else images)

    def encodings(self, counts: Sequence[int]) -> int:
        return sum(self.images(count) for count in counts)

    def run(self, job: Job, group: Group, scratch: Path) -> Tensors:
        """Inverts one class, shard by shard; a finished shard's moments survive an interruption.

        `mean` and `variance` are (T, C, H, W), float64, one for each of `times`. `error_of_mean` is the standard error
        that per_class costs each component of the means, in that component's deviations: the same at every time. Of
        exact inversion, `unconverged` is the share of the images of which some step was not solved, and `round_trip`
        the mean relative error of those that were sampled back.
        """
        (label,) = group
        whole = len(job.images.of_class(label))
        total = self.images(whole)
        error, told = error_of_mean(total, whole), f"inverting {job.classes[label]}"
        if total < whole:
            told += f" ({total:,} of {whole:,}: standard error of the mean {error:.2g} deviations)"
        meter = Meter(job.progress, told, total, "images")
        moments = Moments.of(torch.empty(0, len(self.times), *job.prior.codec.shape))
        unconverged, errors = torch.zeros(()), []
        for number, shard in enumerate(job.latents.shards(label, total, job.progress)):
            done = self._shard(job, label, shard, number == 0, scratch / f".{number}", meter)
            unconverged += done.pop("unconverged")
            errors.append(done.pop("errors"))
            moments = moments.merged(Moments(**done))
        fitted = {"count": moments.count, "mean": moments.mean, "variance": moments.variance()}
        fitted["error_of_mean"] = torch.tensor(error)
        if self.exact:
            fitted |= {"unconverged": unconverged / total, "round_trip": torch.cat(errors).mean()}
        return fitted

    def _shard(self, job: Job, label: int, shard: Shard, first: bool, checkpoint: Path, meter: Meter) -> Tensors:
        """The moments of a shard, how many of its images did not converge, and round-trip errors of the first."""
        if (there := resumed(checkpoint, load_file)) is not None:
            meter.add(len(shard.positions))
            return there
        begun = time.monotonic()
        moments = Moments.of(torch.empty(0, len(self.times), *job.prior.codec.shape))
        unconverged, errors = torch.zeros(()), torch.empty(0)
        for z in shard.sampled(self.seed, job.classes[label]).split(4 * job.prior.tile):
            y = job.conditions([label]).expand(len(z))
            kept, residual = self.kept(job.prior, z, y, meter)
            moments = moments.merged(Moments.of(kept))
            unconverged += (~(residual <= self.tolerance)).sum()
            if self.exact and first and not len(errors):
                errors = self.round_trip(job.prior, z[:RETURNED], kept[:RETURNED, -1], y[:RETURNED])
        done = {**moments.tensors(), "unconverged": unconverged, "errors": errors}
        with replacing(checkpoint) as temporary:
            save_file(done, temporary)
        note_seconds(checkpoint.parent, time.monotonic() - begun)
        return done

    def kept(self, prior: Prior, z: Tensor, y: Tensor, meter: Meter) -> tuple[Tensor, Tensor]:
        """Clean latents (N, C, H, W) at each of `times`, (N, T, C, H, W), and the largest residual of each, (N,)."""
        how = FixedPoint(self.tolerance, self.iterations) if self.exact else None
        path, there = self.path(), []
        moved = meter.within(len(z), len(path))
        residual = torch.zeros(len(z))
        steps = inverted(
            prior, z.to(prior.device), y, path, guidance=self.guidance, clean_time=self.clean_time, exact=how
        )
        for at in steps:
            if at.t in self.times:
                there.append(at.z.cpu())
            if at.residual is not None:
                residual = torch.maximum(residual, at.residual.cpu())
            moved(at.t)
        meter.add(len(z))
        return torch.stack(there, 1), residual

    def round_trip(self, prior: Prior, z: Tensor, at: Tensor, y: Tensor) -> Tensor:
        """Relative errors (N,) of latents sampled back from the last time, with the inversion's own guidance."""
        sampler = Sampler(steps=self.steps, guidance=self.guidance, clean_time=self.clean_time)
        back = sample(prior, at.to(prior.device), self.times[-1], y, sampler).cpu()
        return (back - z).flatten(1).norm(dim=1) / z.flatten(1).norm(dim=1)


@dataclass(frozen=True, eq=False)
class Moments:
    """Running count, mean and sum of squared deviations, float64, merged pairwise (Chan et al., 1983)."""

    count: Tensor
    mean: Tensor
    squares: Tensor

    @staticmethod
    def of(z: Tensor) -> Moments:
        """The moments of rows (N, ...); N may be 0."""
        wide = z.double()
        mean = wide.sum(0) / max(len(z), 1)
        return Moments(torch.tensor(len(z), dtype=torch.float64), mean, (wide - mean).square().sum(0))

    def merged(self, other: Moments) -> Moments:
        """The moments of both samples together."""
        count = self.count + other.count
        gap = other.mean - self.mean
        share = other.count / count.clamp(min=1)
        squares = self.squares + other.squares + gap.square() * self.count * share
        return Moments(count, self.mean + gap * share, squares)

    def variance(self) -> Tensor:
        """With n - 1, as the reference code takes it."""
        return self.squares / (self.count - 1)

    def tensors(self) -> dict[str, Tensor]:
        """What `Moments(**tensors)` makes again."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}


def error_of_mean(count: int, total: int) -> float:
    """Standard error of a mean of `count` of `total` values drawn without replacement, in their standard deviations."""
    return ((1 - count / total) / count) ** 0.5
