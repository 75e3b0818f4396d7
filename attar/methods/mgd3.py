"""MGD3 (Chan-Santiago et al., "MGD3: Mode-Guided Dataset Distillation using Diffusion Models", ICML 2025).

Section 4.1, mode discovery: the k-means modes of each class's latents (`Prototypes`, those of D4M). Section 4.2, mode
guidance, and 4.3, stop guidance (`TowardMode`): each image is drawn towards a mode of its own, until a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.diffusion import Move, Sampler, check_guided
from attar.methods.base import Select, Tensors
from attar.methods.d4m import Prototypes
from attar.methods.prior_samples import FromNoise
from attar.methods.refinements import AnyRefinement


@dataclass(frozen=True)
class TowardMode:
    """Draws each latent towards its mode m, in proportion to the noise of the step (section 4.2):

        mean += scale * sigma_i * (m - x0)        while i > until, of the steps' index i = steps - 1 ... 0

    x0 is what the prior predicts as clean; sigma_i is the deviation of DDPM's step i. A solver that draws no noise
    forgets nothing of earlier moves, so that these would carry images far past their modes: x0 itself is moved as much
    there, and the mean by sqrt(abar) of the next time as much.
    """

    scale: float = 0.1
    """Weight lambda of the guide."""
    until: int = 25
    """The index of the last steps that are not guided any more, t_stop: it leaves details to the prior."""

    looks_back = False
    together = False

    def __call__(self, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        assert aims is not None, "MGD3 says the mode of each"
        if move.left <= self.until:
            return torch.zeros_like(move.z)
        kept = 1.0 if move.draws else move.abar_next**0.5
        return self.scale * kept * move.deviation * (aims - move.clean)

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.scale < math.inf:
            raise AttarError(f"guide.scale {self.scale}: a number of 0 or more")
        if self.until < 0:
            raise AttarError(f"guide.until {self.until}: at least 0")


@dataclass(frozen=True)
class MGD3(FromNoise):
    """Samples of the prior, each drawn towards a mode of its own among its class's latents.

    Nothing is trained, and no network pass is added. Where images outnumber modes, these are taken again. As the
    authors' code: `preprocess=resize-crop`, `codec=stabilityai/sd-vae-ft-ema` (docs/departures.toml).
    """

    fit: Prototypes = Prototypes(algorithm="full", posterior="mean")
    """The modes (section 4.1): k-means on all of a class's latents in memory, a mode for each image."""
    sampler: Sampler = Sampler(solver="ddpm", steps=50, guidance=4.0, guided_channels=3, spacing="linspace")
    """How noise is denoised: as the original DiT's code, 50 steps of DDPM, guidance 4; sampler.solver=ddim for DDIM."""
    guide: TowardMode = TowardMode()
    """How images are drawn to their modes (sections 4.2 and 4.3)."""
    select: Select = Select()
    """Which of the denoised images are kept."""
    refine: AnyRefinement | None = None
    """How kept latents are improved; none, true: by distribution matching, diver or likelihood: by the prior."""

    of_clusters = True
    aims_at_latents = True

    def aims(self, fitted: Tensors, label: int, n: int) -> Tensor:
        return fitted["prototypes"][torch.arange(n) % len(fitted["prototypes"])]

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self)
        check_guided(self.sampler)
        last = self.sampler.steps - 1
        if self.guide.until >= last:
            raise AttarError(f"guide.until {self.guide.until}: less than {last}, or nothing is guided")
