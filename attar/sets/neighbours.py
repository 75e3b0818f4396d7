"""Nearest neighbours among features, by search through all, on one thread."""

from __future__ import annotations

from typing import Any

import numpy as np

NEIGHBOURS = 5
"""A real image is covered if an image is nearer to it than its so many nearest other real ones."""


def nearest_of(rows: Any, points: Any, own: Any = None) -> tuple[Any, Any]:
    """The distance of each point (M, D) to the nearest of some rows (N, D), and its place, both (M,).

    `own`, (M,), are the places of the points among the rows, where they are rows: these do not count.
    """
    places = _nearest_places(rows, points, 1 if own is None else 2)
    chosen = places[:, 0] if own is None else np.where(places[:, 0] == own, places[:, 1], places[:, 0])
    return _distances(points, rows[chosen]), chosen


def covered_share(rows: Any, chosen: Any, points: Any) -> float:
    """The share of chosen rows (M places among all, (N, D)) that have a point nearer than NEIGHBOURS other rows.

    That is the coverage of Naeem et al., ICML 2020; there must be more rows than NEIGHBOURS.
    """
    radii = _distances(rows[chosen], rows[_nearest_places(rows, rows[chosen], NEIGHBOURS + 1)[:, -1]])
    return float((nearest_of(points, rows[chosen])[0] < radii).mean())


def _nearest_places(rows: Any, points: Any, count: int) -> Any:
    """The places (M, count) of the nearest rows to each point, nearest first."""
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        return (
            NearestNeighbors(n_neighbors=count, algorithm="brute").fit(rows).kneighbors(points, return_distance=False)
        )


def _distances(points: Any, others: Any) -> Any:
    """Euclidean distances (M,) of points to as many others, in float64."""
    return np.linalg.norm(points.astype(np.float64) - others, axis=1)
