"""What k-means is given of latents: averages over squares, and none that are outliers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import LocalOutlierFactor
from threadpoolctl import threadpool_limits

from attar.methods.kmeans import LatentRows, Parts
from attar.selection.rules import Indices

LatentShape = tuple[int, int, int]
"""(C, H, W) of a latent."""


def averaged(rows: LatentRows, shape: LatentShape, side: int) -> LatentRows:
    """Flattened latents (N, D), squares of `side` x `side` places of which are averaged: (N, D / side^2)."""
    if side == 1:
        return rows
    channels, height, width = shape
    squares = rows.reshape(-1, channels, height // side, side, width // side, side)
    return squares.mean((3, 5), dtype=np.float64).astype(np.float32).reshape(len(rows), -1)


def filled(rows: LatentRows, shape: LatentShape, side: int) -> LatentRows:
    """The other way: averages (N, D / side^2) that stand in all places of their squares, (N, D)."""
    channels, height, width = shape
    small = rows.reshape(-1, channels, height // side, width // side)
    return small.repeat(side, 2).repeat(side, 3).reshape(len(rows), -1)


def outlier_factors(parts: Parts, neighbours: int, scratch: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The local outlier factor of each latent (Breunig et al., 2000): the higher, the lonelier.

    They are written to a file of `scratch` (by plain writes, for which a full disk is an error) and compared there, a
    block at a time. A single latent's factor is 1.
    """
    if parts.count < 2:
        return np.ones(parts.count)
    file = scratch / ".rows"
    with file.open("wb") as written:
        for part in parts:
            written.write(np.ascontiguousarray(part, np.float32).data)
    rows = np.memmap(file, np.float32, "r").reshape(parts.count, -1)
    with threadpool_limits(limits=1):
        found = LocalOutlierFactor(n_neighbors=min(neighbours, parts.count - 1), algorithm="brute").fit(rows)
    file.unlink()
    return -found.negative_outlier_factor_


def loneliest(factors: np.ndarray[Any, np.dtype[np.float64]], share: float) -> Indices:
    """The places of a share of the latents, rounded down: those with the highest factors, in rising order."""
    return np.sort(factors.argsort(kind="stable")[len(factors) - int(share * len(factors)) :])
