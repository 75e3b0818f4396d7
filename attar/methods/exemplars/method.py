"""Exemplars: real images that stand for their class, made typical of it by the prior (our own; docs/exemplars.md).

Images are chosen by a rule and inverted to a time by DDIM (`ExemplarFit`); from there the prior denoises them with
guidance (`Exemplars`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.core.progress import Meter
from attar.data import load_pixels
from attar.diffusion import CHECKPOINT, EVEN, Sampler, grid, sampling_times
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
        """The exemplars' `places` (N,) in their class; their latents (N, C, H, W), as they are and inverted.

        Where a race decides: `share`, what they were chosen from, and how many of the images left out were right, in
        per cent, after learning from typical ones and from all. Where typical ones are no better, the prior, which
        makes images typical, is of no use either; where they are, a second race says whether it improves them:
        `by_prior` and `as_they_are` are what that found. Where it does not, `denoised` is 0, and nothing is inverted.
        """
        assert self.count is not None, "for_ipc says how many"
        race = self.race(job)
        if race is None:
            return self._inverted(job, group)
        outcome, select, denoised = race.outcome(), self.decided(job), self.denoises(job)
        settled = replace(self, select=select, typical=100, time=self.turning_time)
        fitted = settled._inverted(job, group) if denoised else settled._encoded(job, group)
        found = {"share": select.share, "denoised": denoised, "typical": outcome.typical, "all": outcome.all}
        if (second := self.prior_race(job)) is not None and outcome.typical_wins:
            by_prior = second.outcome()
            found |= {"by_prior": by_prior.typical, "as_they_are": by_prior.all}
        return {**fitted, **{name: torch.tensor(float(value)) for name, value in found.items()}}

    def _encoded(self, job: Job, group: Group) -> Tensors:
        (label,) = group
        assert self.count is not None, "for_ipc says how many"
        numbers = torch.from_numpy(job.images.of_class(label))
        places = self.select(job, label, numbers, self.count)
        pixels = load_pixels(job.images, numbers[places].numpy(), job.codec.size, job.spec.preprocess)
        mean, _ = job.codec.encode(to_float(pixels))
        return {"places": places, "prototypes": mean}

    def _inverted(self, job: Job, group: Group) -> Tensors:
        (label,), fitted = group, self._encoded(job, group)
        mean = fitted["prototypes"]
        meter = Meter(job.progress, f"inverting {job.classes[label]}", len(mean), "images")
        y = job.conditions([label]).expand(len(mean))
        latents, residual = self.inversion.inverted_at_times(job.prior, mean, y, meter)
        fitted["inverted"] = latents[:, 0].contiguous()
        if self.exact:
            fitted["unconverged"] = (~(residual <= self.inversion.tolerance)).float().mean()
        return fitted

    def keeps_real(self, fitted: Tensors) -> bool:
        return "places" in fitted and "inverted" not in fitted

    def real_places(self, fitted: Tensors, n: int) -> torch.Tensor | None:
        return fitted["places"][:n] if "places" in fitted else None


@dataclass(frozen=True)
class Exemplars(LatentMethod):
    """Chooses real images that cover their class, inverts them, and denoises them with guidance.

    Each keeps its composition and becomes typical. With a teacher: `fit.select.teacher=DIR`. Refined:
    `refine=true`. Settings for your own data: `attar tune`.
    """

    fit: ExemplarFit = ExemplarFit()
    """Which images, and how far they are inverted. One inversion per image kept."""
    sampler: Sampler = Sampler(solver="dpm++", steps=12, spacing="log-snr")
    """How they are denoised: 12 calls of DPM-Solver++ evenly spaced in log-SNR, guidance 4."""
    select: Select = Select()
    """Which of the denoised images are kept; of a pool, with as large a fit.count."""
    refine: AnyRefinement | None = None
    """How kept latents are improved; none, true: by distribution matching, diver or likelihood: by the prior."""

    def start_time(self, prior: Prior) -> int:
        if self.sampler.solver == CHECKPOINT:
            self._check_start(sampling_times(self.sampler, prior))
        return self.fit.turning_time

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        if "inverted" not in fitted:
            return Start(fitted["prototypes"][:n], None)
        return Start(fitted["inverted"][:n], self.fit.turning_time)

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self)
        if self.select.pool > (self.fit.count or 0):
            raise AttarError(f"exemplars.select.pool {self.select.pool}: set fit.count to as many exemplars, too")
        if self.sampler.spacing != EVEN and self.sampler.solver != CHECKPOINT:
            self._check_start(grid(self.sampler.steps, self.sampler.spacing))

    def _check_start(self, times: Sequence[int]) -> None:
        """Raises AttarError unless the time of the start is one of the sampler's `times`."""
        sampler, start, steps = self.sampler, self.fit.turning_time, self.fit.steps
        if start in times:
            return
        of_the_inversion = {"spacing": "leading", "steps": steps}
        other = [
            f"sampler.{name} = {value}" for name, value in of_the_inversion.items() if getattr(sampler, name) != value
        ]
        nearest = min(set(times) & set(grid(steps)), key=lambda time: abs(time - start), default=None)
        instead = "" if nearest is None else f", or fit.time = {nearest}, which is on both grids"
        raise AttarError(
            f"fit.time {start} is not on the grid of sampler.steps = {sampler.steps}: set "
            f"{' and '.join(other or ['sampler.solver = ddim'])}, for the grid of the inversion{instead}"
        )
