"""How well generated latents cover real ones: what the monitor of a fine-tuning measures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = 5
"""Nearest others of a latent; the farthest of them bounds its neighbourhood."""


def measures(real: Sequence[Tensor], generated: Sequence[Tensor], memory: int) -> dict[str, float]:
    """Means over the classes of the measures of each class's latents, (N, C, H, W) real and (M, C, H, W) generated.

    precision, recall (Kynkaanniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020) with 5
    neighbours in latent space; `farthest`, 1 minus the smallest cosine of a generated latent to `memory` real ones, and
    `nearest`, its largest cosine to another generated one: what representativeness and diversity make small.
    """
    by_class = []
    for of_real, of_generated in zip(real, generated, strict=True):
        farthest = (1 - (_unit(of_generated) @ _unit(of_real[:memory]).T).amin(1)).mean()
        cosines = {"farthest": float(farthest), "nearest": _nearest(of_generated)}
        by_class.append({**neighbourhoods(of_real.flatten(1), of_generated.flatten(1)), **cosines})
    return {name: sum(values[name] for values in by_class) / len(by_class) for name in by_class[0]}


def neighbourhoods(real: Tensor, generated: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density and coverage of features (M, D) for real ones (N, D); each needs more than k rows."""
    between = torch.cdist(generated.double(), real.double())
    real_radius, generated_radius = (_radius(features.double(), k) for features in (real, generated))
    near_real = between < real_radius
    return {
        "precision": float(near_real.any(1).double().mean()),
        "recall": float((between < generated_radius[:, None]).any(0).double().mean()),
        "density": float(near_real.double().sum(1).mean() / k),
        "coverage": float((between.amin(0) < real_radius).double().mean()),
    }


def _radius(features: Tensor, k: int) -> Tensor:
    """(N,): the distance of each row to its k-th nearest other row."""
    return torch.cdist(features, features).kthvalue(min(k + 1, len(features)), 1).values


def _nearest(z: Tensor) -> float:
    cosines = _unit(z) @ _unit(z).T
    return float(cosines.fill_diagonal_(-1).amax(1).mean())


def _unit(z: Tensor) -> Tensor:
    return F.normalize(z.flatten(1).float(), dim=1)
