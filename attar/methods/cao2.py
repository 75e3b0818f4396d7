"""CaO2 (Wang et al., "CaO2: Rectifying Inconsistencies in Diffusion-Based Dataset Distillation", ICCV 2025).

Stage 1, objective-guided sampling (`LargerPool`): several times as many samples as are kept; of them a classifier keeps
those that it gets right, the surest first. Stage 2, condition-aware optimisation (`Likelihood`): the kept latents are
moved to where the prior predicts their noise best.
"""

from __future__ import annotations

from dataclasses import dataclass

from attar.core.errors import AttarError
from attar.diffusion import Sampler
from attar.methods.base import Select
from attar.methods.likelihood import Likelihood
from attar.methods.prior_samples import PriorSamples
from attar.methods.refinements import AnyRefinement


@dataclass(frozen=True)
class LargerPool(Select):
    """A choice among a multiple of the images that are kept."""

    times: int = 2
    """How many times the IPC are generated to choose from, m: 2 in the code for ImageNette, 4 for ImageWoof and
    ImageNet-1k. `select.pool` is the least number, whatever the IPC."""

    def candidates(self, ipc: int) -> int:
        return max(super().candidates(ipc), self.times * ipc)

    # Checks of the settings

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.times < 1:
            raise AttarError(f"select.times {self.times}: at least 1")


@dataclass(frozen=True)
class CaO2(PriorSamples):
    """Samples of the prior: the surest of those that a classifier gets right, moved to be likelier of their class.

    The classifier is `select.teacher`; the authors' is torchvision/resnet18 of ImageNet-1k. As their code:
    `codec=stabilityai/sd-vae-ft-mse`, and for ImageNette `refine=none` (docs/departures.toml).
    """

    sampler: Sampler = Sampler(solver="ddpm", steps=50, guidance=2.7, guided_channels=3, spacing="linspace")
    """How noise is denoised: as in the code, 50 steps of DDPM, guidance 2.7 of the first three channels."""
    select: LargerPool = LargerPool(rule="correct")
    """Which are kept of the samples (stage 1)."""
    refine: AnyRefinement | None = Likelihood()
    """How kept latents are improved (stage 2)."""
