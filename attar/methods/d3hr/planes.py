"""A plane to look at a class's inverted latents on: that of the two directions in which they differ most."""

from __future__ import annotations

import torch
from torch import Tensor

from attar.methods.base import Tensors

FEWEST = 3
"""Latents that a plane needs."""
SHOWN = 100
"""Latents at most whose place on it is kept."""


def planes(latents: Tensor) -> Tensors:
    """The planes of latents (N, T, ...), one for each of T times; nothing where there are too few, or not all finite.

    They are the first two principal `axes` (T, 2, ...), the share of the variance along each, `shares` (T, 2), and the
    `places` (T, M, 2) of the first M latents.
    """
    if len(latents) < FEWEST or not latents.isfinite().all():
        return {}
    axes, shares = zip(*(_principal(z.flatten(1).double()) for z in latents.unbind(1)), strict=True)
    found = torch.stack(axes).view(-1, 2, *latents.shape[2:])
    places = [places_on(plane, z) for plane, z in zip(found, latents[:SHOWN].unbind(1), strict=True)]
    return {"axes": found.float(), "shares": torch.stack(shares).float(), "places": torch.stack(places)}


def places_on(axes: Tensor, latents: Tensor) -> Tensor:
    """Where latents (N, ...) lie along the axes (2, ...) of a plane, (N, 2), float32."""
    return (latents.flatten(1).double() @ axes.flatten(1).double().T).float()


def _principal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The first two principal axes (2, D) of rows (N, D), and the share of the variance along each."""
    centred = rows - rows.mean(0)
    variances, own = torch.linalg.eigh(centred @ centred.T)
    largest = variances[-2:].flip(0).clamp(min=0)
    axes = own[:, -2:].flip(1).T @ centred / largest.sqrt().clamp(min=1e-12)[:, None]
    turned = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return axes * turned, largest / variances.clamp(min=0).sum().clamp(min=1e-12)
