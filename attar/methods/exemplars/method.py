"""Exemplars: real images that stand for their class, made typical of it by the prior (our own; docs/exemplars.md).

Images are chosen by a rule and inverted to a time by DDIM (`ExemplarFit`); from there the prior denoises them with
guidance (`Exemplars`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.core.progress import Meter
from attar.data import load_pixels
from attar.diffusion import CHECKPOINT, EVEN, Sampler, check_on_grid, grid
from attar.job import Job
from attar.methods.base import Group, LatentMethod, Select, Start, Tensors
from attar.methods.exemplars.settings import ExemplarSettings
from attar.methods.refinements import AnyRefinement
from attar.priors.codec import to_float
from attar.priors.prior import Prior


@dataclass(frozen=True)
class ExemplarFit(ExemplarSettings):
    """Real images of each class, chosen by a rule, their latents inverted to a time by DDIM."""

    def run(self, job: Job, group: Group, scratch: Path) -> Tensors:
        """The exemplars' numbers in the data, `chosen` (N,); their latents (N, C, H, W), as they are and inverted."""
        (label,) = group
        assert self.count is not None, "for_ipc says how many"
        numbers = torch.from_numpy(job.images.of_class(label))
        chosen = numbers[self.select(job, label, numbers, self.count)]
        pixels = load_pixels(job.images, chosen.numpy(), job.codec.size, job.spec.preprocess)
        mean, _ = job.codec.encode(to_float(pixels))
        meter = Meter(job.progress, f"inverting {job.classes[label]}", len(mean), "images")
        y = job.conditions([label]).expand(len(mean))
        latents, residual = self.inversion.inverted_at_times(job.prior, mean, y, meter)
        fitted = {"chosen": chosen, "prototypes": mean, "inverted": latents[:, 0].contiguous()}
        if self.exact:
            fitted["unconverged"] = (~(residual <= self.inversion.tolerance)).float().mean()
        return fitted


@dataclass(frozen=True)
class Exemplars(LatentMethod):
    """Chooses real images that cover their class, inverts them, and denoises them with guidance.

    Each keeps its composition and becomes typical. With a teacher: `fit.select.teacher=DIR`. Refined:
    `refine=true`. Settings for your own data: `attar tune`.
    """

    fit: ExemplarFit = ExemplarFit()
    """Which images, and how far they are inverted. One inversion per image kept."""
    sampler: Sampler = Sampler()
    """How they are denoised: DDIM, guidance 4."""
    select: Select = Select()
    """Which of the denoised images are kept; of a pool, with as large a fit.count."""
    refine: AnyRefinement | None = None
    """How kept latents are improved; none, true: by distribution matching, diver or likelihood: by the prior."""

    def start_time(self, prior: Prior) -> int:
        return self.fit.turning_time

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        return Start(fitted["inverted"][:n], self.fit.turning_time)

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self)
        if self.select.pool > (self.fit.count or 0):
            raise AttarError(f"exemplars.select.pool {self.select.pool}: set fit.count to as many exemplars, too")
        sampler = self.sampler
        if sampler.spacing != EVEN and sampler.solver != CHECKPOINT:
            times, of = grid(sampler.steps, sampler.spacing), f"the grid of sampler.steps = {sampler.steps}"
            check_on_grid("fit.time", self.fit.turning_time, times, of)
