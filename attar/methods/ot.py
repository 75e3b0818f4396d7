"""OT-guided sampling (Cui et al., "Optimizing Distributional Geometry Alignment with Optimal Transport for Generative
Dataset Distillation", NeurIPS 2025).

The first of its three parts, written from public summaries: each image of a class moves so that it and those finished
before it are carried to real latents of the class at less cost (`ByTransport`). The paper adds this guide to both of
IGD's, and trains with soft labels matched by transport, too; neither is in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attar.core.arguments import check_fields
from attar.diffusion import Sampler, check_guided
from attar.job import Job
from attar.methods.base import Guide, Select, Tensors
from attar.methods.d4m import Prototypes
from attar.methods.prior_samples import FromNoise
from attar.methods.refinements import AnyRefinement
from attar.methods.transport import ByTransport, Carried, cloud


@dataclass(frozen=True)
class OT(FromNoise):
    """Samples of the prior, made one after another, each moved to where the class's finished images are lacking.

    Nothing is trained, and no network pass is added.
    """

    fit: Prototypes = Prototypes(count=100, algorithm="random", posterior="mean")
    """The points that images are carried to: real latents. How many is our choice."""
    weighted: bool = False
    """Whether a point weighs as many latents as are nearest to it; if not, all weigh alike."""
    sampler: Sampler = Sampler(solver="ddpm", steps=50, guidance=4.0, guided_channels=3, spacing="linspace")
    """How noise is denoised: as the original DiT's code, 50 steps of DDPM, guidance 4."""
    guide: ByTransport = ByTransport(scale=0.02, cost="l1")
    """The transport: costs are absolute differences. The summaries name neither its weight, its steps nor its epsilon:
    the weight is our choice, the steps are IGD's and DMGD's, epsilon and iterations DMGD's."""
    select: Select = Select()
    """Which of the denoised images are kept."""
    refine: AnyRefinement | None = None
    """How kept latents are improved; none, true: by distribution matching, diver or likelihood: by the prior."""

    def aims(self, fitted: Tensors, label: int, n: int) -> Tensor:
        return torch.full((n,), label)

    def guiding(self, job: Job, fitted: Mapping[int, Tensors]) -> Guide:
        return Carried(self.guide, {label: cloud(learnt, self.weighted) for label, learnt in fitted.items()})

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self)
        check_guided(self.sampler)
        self.guide.check(self.sampler.steps)
