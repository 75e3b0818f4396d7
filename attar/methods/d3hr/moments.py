"""Running moments of a class's latents, in float64, merged shard by shard."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """Running count, mean and sum of squared deviations, merged pairwise (Chan et al., 1983)."""

    count: Tensor
    """(), the number of rows."""
    mean: Tensor
    """(...), float64."""
    squares: Tensor
    """(...), float64: the sum of the squared deviations from the mean."""

    @staticmethod
    def of(z: Tensor) -> Moments:
        """The moments of rows (N, ...); N may be 0."""
        wide = z.double()
        mean = wide.sum(0) / max(len(z), 1)
        return Moments(torch.tensor(len(z), dtype=torch.float64), mean, (wide - mean).square().sum(0))

    def merged(self, other: Moments) -> Moments:
        """The moments of both samples together."""
        count = self.count + other.count
        gap = other.mean - self.mean
        share = other.count / count.clamp(min=1)
        squares = self.squares + other.squares + gap.square() * self.count * share
        return Moments(count, self.mean + gap * share, squares)

    def variance(self) -> Tensor:
        """The variance with n - 1, as the authors' code takes it."""
        return self.squares / (self.count - 1)


def error_of_mean(count: int, total: int) -> float:
    """Standard error of a mean of `count` of `total` values drawn without replacement, in their standard deviations."""
    return ((1 - count / total) / count) ** 0.5
