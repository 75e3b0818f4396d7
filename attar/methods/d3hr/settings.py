"""D3HR, sections 3.2 and 3.3: the settings of the inversion, what it costs, their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.core.limits import check_guidance
from attar.diffusion import check_grid, check_on_grid, grid, network_passes
from attar.methods.base import Fit
from attar.priors.prior import Prior

RETURNED = 16
"""Images of a class that exact inversion is checked on, by sampling them back."""
TYPICAL_CALLS = 3
"""Network calls of a step of exact inversion, for the estimate; at guidance 1, on the shared CIFAR-10 prior."""


@dataclass(frozen=True)
class InvertSettings(Fit):
    """Which latents are inverted, through which times, with what guidance."""

    times: tuple[int, ...] = (600,)
    """The times whose moments are kept (600: the paper's 30 of 50 steps). One inversion, to the last, serves all."""
    guidance: float = 4.0
    """Guidance of the inversion; 1 halves its cost."""
    steps: int = 50
    """Steps of the time grid."""
    per_class: int | None = None
    """How many images of each class are inverted, drawn at random; None inverts all of them, as the paper does."""
    clean_time: int = -1
    """The time that stands for the clean image: -1 is alpha-bar = 1 (the authors' code: 0)."""
    exact: bool = False
    """Find what sampling would take back to the latents, by fixed-point iteration; plain inversion is the paper's."""
    tolerance: float = 1e-4
    """A step of exact inversion is solved when an iteration moves a latent by at most this share of its norm."""
    iterations: int = 30
    """The most iterations of a step of exact inversion."""
    seed: int = 0
    """Seed of the posterior samples."""

    uses_prior = True
    needs = 2

    def check(self, prior: Prior) -> None:
        if self.exact and prior.dtype != torch.float32:
            raise AttarError("`fit.exact`: exact inversion needs `dtype=float32`")

    def path(self) -> list[int]:
        """The grid's times that the inversion goes through, to the last that is kept."""
        return [t for t in grid(self.steps) if self.clean_time < t <= self.times[-1]]

    def inverted_images(self, count: int) -> int:
        """How many of a class's images are inverted."""
        return count if self.per_class is None else min(self.per_class, count)

    def passes(self, counts: Sequence[int]) -> int:
        calls = len(self.path()) * network_passes(self.guidance)
        images = sum(self.inverted_images(count) for count in counts)
        back = sum(min(self.inverted_images(count), RETURNED) for count in counts)
        return calls * (TYPICAL_CALLS * images + back if self.exact else images)

    def encodings(self, counts: Sequence[int]) -> int:
        return sum(self.inverted_images(count) for count in counts)

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self, "fit")
        check_grid("fit", self.steps, "leading")
        if not self.times:
            raise AttarError("fit.times: at least one")
        for t in self.times:
            check_on_grid("fit.times", t, grid(self.steps), f"the grid of {self.steps} steps")
        if list(self.times) != sorted(set(self.times)):
            raise AttarError(f"fit.times {','.join(map(str, self.times))}: give them once each, rising")
        if not -1 <= self.clean_time < self.times[0]:
            raise AttarError(f"fit.clean_time {self.clean_time}: at least -1, and below fit.times, {self.times[0]}")
        check_guidance("`fit.guidance`", self.guidance)
        if self.per_class is not None and self.per_class < 2:
            raise AttarError(f"fit.per_class {self.per_class}: at least 2 images are needed for a variance")
        if not 0 < self.tolerance < 1:
            raise AttarError(f"fit.tolerance {self.tolerance}: above 0, below 1")
        if self.iterations < 1:
            raise AttarError(f"fit.iterations {self.iterations}: at least 1")
