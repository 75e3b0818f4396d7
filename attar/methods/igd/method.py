"""IGD (Chen et al., "Influence-Guided Diffusion for Dataset Distillation", ICLR 2025), after public summaries and the
settings of the authors' code; how its guides are computed there was not at hand.

A surrogate is trained on the classes (surrogate.py). Then images are made one after another, each moved to a larger
influence on the surrogate's training, and away from those finished before it (guides.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attar.core.arguments import check_fields
from attar.core.progress import timed_on
from attar.diffusion import Sampler, check_guided
from attar.job import Job
from attar.methods.base import Guide, Select, Tensors
from attar.methods.igd.guides import Guidance, Influence
from attar.methods.igd.surrogate import Surrogate
from attar.methods.prior_samples import FromNoise
from attar.methods.refinements import AnyRefinement


@dataclass(frozen=True)
class IGD(FromNoise):
    """Samples of the prior, made one after another: each to teach as real ones do, and unlike those before it.

    No pass of the prior is added; each guided step takes gradients through the decoder and the surrogate. The surrogate
    tells the classes of a run apart: which these are changes every image. As the authors' code:
    `codec=stabilityai/sd-vae-ft-mse`, `preprocess=resize-crop`.
    """

    fit: Surrogate = Surrogate()
    """The surrogate (section 3.2)."""
    sampler: Sampler = Sampler(solver="ddpm", steps=50, guidance=4.0, guided_channels=3, spacing="linspace")
    """How noise is denoised: as the original DiT's code, 50 steps of DDPM, guidance 4."""
    guide: Guidance = Guidance()
    """What moves images (section 3.3): their influence, and their deviation from one another."""
    select: Select = Select()
    """Which of the denoised images are kept."""
    refine: AnyRefinement | None = None
    """How kept latents are improved; none, true: by distribution matching, diver or likelihood: by the prior."""

    def aims(self, fitted: Tensors, label: int, n: int) -> Tensor:
        return torch.full((n,), label)

    def guiding(self, job: Job, fitted: Mapping[int, Tensors]) -> Guide:
        if not self.guide.influence:
            return self.guide
        weights = next(iter(fitted.values()))["weights"]
        return self._influence(job, weights.to(job.prior.device))

    def _influence(self, job: Job, weights: torch.Tensor | None = None) -> Influence:
        network = self.fit.built(job, len(job.classes)).to(job.prior.device)
        if weights is None:
            count = sum(parameter.numel() for parameter in network.parameters())
            weights = torch.full((len(self.fit.kept), count), 0.01, device=job.prior.device)
        return Influence(self.guide, job, network, weights)

    def start_seconds(self, job: Job, n: int) -> float:
        """Seconds that the influence of n images of a class takes on their way; nothing where weights are unread."""
        if job.unread or not self.guide.influence:
            return 0.0
        opened, clean = self._influence(job), torch.zeros(job.codec.shape, device=job.prior.device)
        opened.followed[0] = opened.weights
        steps = sum(self.guide.first >= left >= self.guide.last for left in range(self.sampler.steps))
        return n * steps * timed_on(lambda: opened.slope(clean, 0), job.prior.device)

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self)
        check_guided(self.sampler)
        self.guide.check(self.sampler.steps)
