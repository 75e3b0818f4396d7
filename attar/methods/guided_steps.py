"""The steps that a guide moves: those in the middle of the way, as IGD and those after it count them."""

from __future__ import annotations

from dataclasses import dataclass

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.diffusion import Move


@dataclass(frozen=True)
class GuidedSteps:
    """A guide of the steps with first >= i >= last, of their index i = steps - 1 ... 0."""

    first: int = 45
    """Index of the first step that is guided."""
    last: int = 30
    """Index of the last step that is guided."""

    def guides(self, move: Move) -> bool:
        """Whether a step is guided."""
        return self.first >= move.left >= self.last

    def check(self, steps: int) -> None:
        """Raises AttarError where none of a sampler's steps is guided."""
        if self.last >= steps:
            raise AttarError(f"guide.last {self.last}: less than the {steps} of sampler.steps, or nothing is guided")

    def __post_init__(self) -> None:
        check_fields(self, "guide")
        if not 0 <= self.last <= self.first:
            raise AttarError(f"guide.last {self.last}: from 0 to the {self.first} of guide.first")
