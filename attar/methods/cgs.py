"""CGS, collaborative guided sampling ("Mitigating The Distribution Shift of Diffusion-based Dataset Distillation", CVPR
2026), written from public summaries.

All images of a class are denoised together, as one coupled system. They repel one another (`Collaborative`, equation 5:
a determinantal point process), and their mean is held at the class's (equation 7). The paper samples a prior that was
tuned for sparse latents (RSM); here it is the prior as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.diffusion import Move, Sampler, check_guided
from attar.methods.base import Select, Tensors
from attar.methods.d4m import Prototypes
from attar.methods.energy import given, gradient
from attar.methods.prior_samples import FromNoise
from attar.methods.refinements import AnyRefinement


@dataclass(frozen=True)
class Collaborative:
    """Moves the images of a class at each step by the gradient of both losses at their latents z (equation 8):

        mean -= d(repulsion L_dpp + matching L_dm) / dz
        L_dpp = -log det(K + epsilon I),    K_ij = cos(z_i, z_j)
        L_dm  = |mean_i z_i - sqrt(abar) m|^2 / D,    m the mean of the class's real latents

    D, the latents' size, is our reading of "mean squared": without it the published weights diverge.
    """

    repulsion: float = 100.0
    """Weight of the repulsion, eta_dpp; 30 to 300 in the paper."""
    matching: float = 100.0
    """Weight of the match of the means, eta_dm; 30 to 300 in the paper."""
    epsilon: float = 1e-3
    """What is added to the kernel's diagonal; the summaries name no value."""

    looks_back = False
    together = True

    def __call__(self, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        assert aims is not None, "the starts say the class's mean"
        mean = move.abar**0.5 * given(aims)[0]
        return -gradient(lambda z: self.repulsion * self.crowding(z) + self.matching * drift(z, mean), move.z)

    def crowding(self, z: Tensor) -> Tensor:
        """L_dpp of latents (N, C, H, W)."""
        directions = normalize(z.flatten(1), eps=0.0)
        return -(directions @ directions.T + self.epsilon * torch.eye(len(z), dtype=z.dtype)).logdet()

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self, "guide")
        for name in ("repulsion", "matching"):
            if not 0 <= getattr(self, name) < math.inf:
                raise AttarError(f"guide.{name} {getattr(self, name)}: a number of 0 or more")
        if not 0 < self.epsilon < math.inf:
            raise AttarError(f"guide.epsilon {self.epsilon}: a number above 0")


def drift(z: Tensor, mean: Tensor) -> Tensor:
    """L_dm of latents (N, C, H, W) whose mean is to be this (C, H, W)."""
    return (z.mean(0) - mean).square().mean()


@dataclass(frozen=True)
class CGS(FromNoise):
    """Samples of the prior, those of a class made together: far from one another, and around the class's mean.

    Nothing is trained, and no network pass is added. All candidates of a class share its batch: another IPC, or another
    pool, gives other images.
    """

    fit: Prototypes = Prototypes(count=1, algorithm="full", posterior="mean")
    """The mean of the class's latents: the centroid of a single cluster."""
    sampler: Sampler = Sampler(solver="ddpm", steps=50, guidance=4.0, guided_channels=3, spacing="linspace")
    """How noise is denoised: as the original DiT's code, 50 steps of DDPM, guidance 4; sampler.solver=ddim for DDIM."""
    guide: Collaborative = Collaborative()
    """What couples the images of a class."""
    select: Select = Select()
    """Which of the denoised images are kept."""
    refine: AnyRefinement | None = None
    """How kept latents are improved; none, true: by distribution matching, diver or likelihood: by the prior."""

    def aims(self, fitted: Tensors, label: int, n: int) -> Tensor:
        return fitted["prototypes"].expand(n, -1, -1, -1)

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self)
        check_guided(self.sampler)
        if self.fit.count != 1:
            raise AttarError(f"fit.count {self.fit.count}: 1, for there is one mean")
