"""A guide by entropic optimal transport: what is made of a class, as a whole, is drawn to points that stand for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attar.core.errors import AttarError
from attar.diffusion import Move
from attar.methods.base import Tensors
from attar.methods.energy import given, gradient
from attar.methods.guided_steps import GuidedSteps


def sinkhorn(cost: Tensor, rows: Tensor, columns: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The plan (N, M) that carries the masses `rows` (N,) to `columns` (M,), which are above 0, at this cost (N, M).

        P = diag(u) exp(-cost / epsilon) diag(v), its rows and columns in turn scaled to their masses

    In logarithms, so that no cost is too large.
    """
    plan = -cost / epsilon
    for _ in range(iterations):
        plan = plan + (rows.log() - plan.logsumexp(1))[:, None]
        plan = plan + columns.log() - plan.logsumexp(0)
    return plan.exp()


def cloud(fitted: Tensors, weighted: bool) -> Tensor:
    """Points of a class that have any mass, flattened, and behind each its mass: (M, D + 1).

    `fitted` has `prototypes` and their `sizes` (`Prototypes`); a point weighs as its cluster does, or all weigh alike.
    """
    points, sizes = fitted["prototypes"].flatten(1), fitted["sizes"].to(torch.float32)
    masses = sizes / sizes.sum() if weighted else torch.full_like(sizes, 1 / len(sizes))
    return torch.cat([points, masses[:, None]], 1)[masses > 0]


@dataclass(frozen=True)
class ByTransport(GuidedSteps):
    """Moves each image by the gradient of what it costs to carry the class's images so far to the class's points:

        mean -= scale * sigma_i * d<P, C> / dz        while first >= i >= last, of the steps' index i = steps - 1 ... 0

    C are the costs from the finished latents and this one's predicted x0, all of one mass, to the points, and P is
    Sinkhorn's plan, differentiated through, too. x0 depends on z as 1 / sqrt(abar): the predicted noise is held fixed.
    sigma_i is the deviation of DDPM's step i, with any solver. Images are made one after another.
    """

    scale: float = 0.5
    """Weight rho of the guide."""
    epsilon: float = 0.1
    """Entropic regularisation. In units of the cost; with `cost=l1`, of its mean over all pairs."""
    iterations: int = 5
    """Sinkhorn's iterations."""
    cost: Literal["sphere", "l1"] = "sphere"
    """`sphere`: the distance of the latents scaled to length 1; `l1`: the sum of their absolute differences."""

    looks_back = True
    together = False

    def __call__(self, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        assert aims is not None, "the starts say the points of each class"
        if not self.guides(move):
            return torch.zeros_like(move.z)
        slopes = [
            gradient(lambda x, before=before, points=points: self.energy(x, before, points), clean)  # type: ignore[misc]
            for clean, before, points in zip(move.clean, given(finished), given(aims), strict=True)
        ]
        return -self.scale * move.deviation * torch.stack(slopes) / move.abar**0.5

    def energy(self, clean: Tensor, finished: Tensor, points: Tensor) -> Tensor:
        """<P, C> of a latent (C, H, W) beside the finished ones (K, C, H, W), to points and their masses (M, D + 1)."""
        made = torch.cat([finished, clean[None]]).flatten(1)
        cost = self.costs(made, points[:, :-1])
        unit = cost.detach().mean() if self.cost == "l1" else 1.0
        alike = torch.full_like(made[:, 0], 1 / len(made))
        plan = sinkhorn(cost / unit, alike, points[:, -1] / points[:, -1].sum(), self.epsilon, self.iterations)
        return (plan * cost).sum()

    def costs(self, made: Tensor, points: Tensor) -> Tensor:
        """The cost (N, M) of each pair of latents (N, D) and (M, D)."""
        if self.cost == "l1":
            return torch.cdist(made, points, p=1)
        made, points = normalize(made, eps=0.0), normalize(points, eps=0.0)
        return torch.cdist(made, points, compute_mode="donot_use_mm_for_euclid_dist")

    # Checks of the settings

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.scale < math.inf:
            raise AttarError(f"guide.scale {self.scale}: a number of 0 or more")
        if not 0 < self.epsilon < math.inf:
            raise AttarError(f"guide.epsilon {self.epsilon}: a number above 0")
        if self.iterations < 1:
            raise AttarError(f"guide.iterations {self.iterations}: at least 1")


@dataclass(frozen=True, eq=False)
class Carried:
    """The guide, opened for some classes, so that no image has points of its own in memory."""

    how: ByTransport
    clouds: Mapping[int, Tensor]
    """By label, the class's points and their masses (M, D + 1)."""

    looks_back = True
    together = False

    def __call__(self, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        assert aims is not None, "the starts say each image's class"
        if not self.how.guides(move):
            return torch.zeros_like(move.z)
        moved = []
        for row, label in enumerate(aims.tolist()):
            own = slice(row, row + 1)
            moved.append(self.how(move.of(own), self.clouds[label][None], finished[own]))
        return torch.cat(moved)
