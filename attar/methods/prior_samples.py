"""Plain samples of the prior: what every guided or tuned method has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attar.diffusion import Sampler, grid
from attar.job import Job
from attar.methods.method import First, Nothing, Refine, Start, Tensors


@dataclass(frozen=True)
class PriorSamples:
    """Samples of the prior as it is, from noise, with classifier-free guidance (Ho and Salimans, 2022)."""

    sampler: Sampler = Sampler()
    """DDIM with 50 steps and guidance 4: the samples that D3HR starts from."""
    fit: Nothing = Nothing()
    select: First = First()
    refine: Refine | None = None

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        shape = job.prior.codec.shape
        last = grid(self.sampler.steps, self.sampler.spacing, len(job.prior.schedule))[-1]
        return Start(torch.stack([job.noise(shape, "start", label, index) for index in range(n)]), last)

    def start_seconds(self, job: Job, n: int) -> float:
        return 0.0
