"""Plain samples of the prior: what every guided or tuned method has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attar.diffusion import Sampler, sampling_times
from attar.job import Job
from attar.methods.base import LatentMethod, Nothing, Select, Start, Tensors
from attar.methods.refinements import AnyRefinement
from attar.priors.prior import Prior


class FromNoise(LatentMethod):
    """A method whose images all begin as noise."""

    def start_time(self, prior: Prior) -> int:
        return sampling_times(self.sampler, prior)[-1]

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        noise = torch.stack([job.noise(job.prior.codec.shape, "start", label, index) for index in range(n)])
        return Start(noise, self.start_time(job.prior), self.aims(fitted, label, n))

    def aims(self, fitted: Tensors, label: int, n: int) -> Tensor | None:
        """What the guide is given of each of n images of a class, (n, ...), given what was learnt of it."""
        return None


@dataclass(frozen=True)
class PriorSamples(FromNoise):
    """Samples of the prior as it is, from noise, with classifier-free guidance (Ho and Salimans, 2022)."""

    sampler: Sampler = Sampler()
    """DDIM with 50 steps and guidance 4: the samples that D3HR starts from."""
    fit: Nothing = Nothing()
    """Nothing is learnt from the real data."""
    select: Select = Select()
    """Which of the samples are kept."""
    refine: AnyRefinement | None = None
    """How kept latents are improved; none, true: by distribution matching, diver or likelihood: by the prior."""
