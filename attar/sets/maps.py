"""Maps: where a set's images lie among the real ones of a class, along the directions in which these differ most."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np

FEWEST = 3
"""Real images of a class that a map needs."""


class PrincipalMap(TypedDict):
    """One class on the first two principal components of its real images; all lists are empty of very small classes."""

    variance: list[float]
    """The share of the real images' variance along each of the two axes."""
    real: list[list[float]]
    """Where some of the real images lie, (M, 2)."""
    images: list[list[float]]
    """Where the set's images lie, of mosaics each part."""
    starts: list[list[float]]
    """Where the prototypes lie that these began from, as far as they are kept with the set."""


def principal_map(rows: Any, chosen: Any, images: Any, starts: Any) -> PrincipalMap:
    """The map of a class.

    Args:
        rows: the features (N, D) of all its real images; the axes are theirs alone, so that all sets have the same.
        chosen: the places of those that are shown.
        images: the features of the set's images.
        starts: the features of its prototypes.
    """
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    if len(rows) < FEWEST:
        return PrincipalMap(variance=[], real=[], images=[], starts=[])
    with threadpool_limits(limits=1), np.errstate(invalid="ignore"):
        axes = PCA(2, svd_solver="randomized", random_state=0).fit(rows)
        real, own, began = (_rounded(axes.transform(of)) if len(of) else [] for of in (rows[chosen], images, starts))
    shares = np.nan_to_num(axes.explained_variance_ratio_)
    return PrincipalMap(variance=[round(float(share), 4) for share in shares], real=real, images=own, starts=began)


def _rounded(points: Any) -> list[list[float]]:
    return [[float(f"{value:.4g}") for value in point] for point in points]
