"""k-means of latents that come in parts, on one thread: the same centroids on every machine of a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.metrics import pairwise_distances_argmin_min
from threadpoolctl import ThreadpoolController, threadpool_limits

from attar.selection.rules import Indices

LatentRows = np.ndarray[Any, np.dtype[np.float32]]
"""Flattened latents (N, D)."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Latents (N, D) in parts, read anew each time that they are gone through, so that few are in memory."""

    read: Callable[[], Iterator[LatentRows]]
    count: int
    """How many latents there are."""

    def __iter__(self) -> Iterator[LatentRows]:
        return self.read()

    def mapped(self, change: Callable[[LatentRows], LatentRows]) -> Parts:
        """The same parts, each changed."""
        return Parts(lambda: map(change, self), self.count)

    def without(self, places: Indices) -> Parts:
        """All latents but those at these places in the sequence of all parts."""

        def rest() -> Iterator[LatentRows]:
            begin = 0
            for part in self:
                own = np.delete(part, places[(places >= begin) & (places < begin + len(part))] - begin, axis=0)
                begin += len(part)
                if len(own):
                    yield own

        return Parts(rest, self.count - len(places))


def streamed(parts: Iterable[LatentRows], count: int, batch: int, seed: int) -> LatentRows:
    """Mini-batch k-means of latents (N, D) that come in parts: `count` centroids (count, D), float32.

    `batch` latents are fitted at a time; the last batch may be smaller.
    """
    model = MiniBatchKMeans(n_clusters=count, random_state=seed, batch_size=batch, n_init="auto")
    controller = ThreadpoolController()
    for rows in row_batches(parts, batch):
        with controller.limit(limits=1):
            model.partial_fit(rows)
    return model.cluster_centers_


def lloyd(rows: LatentRows, count: int, seed: int) -> LatentRows:
    """Full k-means of latents (N, D): `count` centroids (count, D), float32."""
    with threadpool_limits(limits=1):
        return KMeans(n_clusters=count, random_state=seed, n_init="auto").fit(rows).cluster_centers_


def rows_at(parts: Iterable[LatentRows], places: Iterable[int]) -> LatentRows:
    """The rows (count, D) at these places in the sequence of all parts, in its order."""
    wanted, rows = set(places), enumerate(chain.from_iterable(parts))
    return np.stack([row.copy() for place, row in rows if place in wanted])


def count_nearest(
    parts: Iterable[LatentRows], centroids: LatentRows
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], float]:
    """How many latents are nearest to each centroid, (K,), and the inertia: the sum of their squared distances."""
    sizes, inertia = np.zeros(len(centroids), np.int64), 0.0
    for closest, distances in _nearest(parts, centroids):
        sizes += np.bincount(closest, minlength=len(centroids))
        inertia += float(distances.sum(dtype=np.float64))
    return sizes, inertia


def cluster_means(latents: Parts, compared: Parts, centroids: LatentRows) -> LatentRows:
    """The mean (K, D) of the latents whose compared rows are nearest to each centroid; NaN where there are none."""
    sizes, sums = np.zeros((len(centroids), 1)), np.zeros(())
    for rows, (closest, _) in zip(latents, _nearest(compared, centroids), strict=True):
        sums = sums if sums.ndim else np.zeros((len(centroids), rows.shape[1]))
        np.add.at(sums, closest, rows)
        np.add.at(sizes, closest, 1)
    with np.errstate(invalid="ignore"):
        return (sums / sizes).astype(np.float32)


def nearest_in_clusters(parts: Iterable[LatentRows], centroids: LatentRows, count: int) -> list[list[int]]:
    """The places of the `count` latents nearest to each centroid, nearest first, among those nearest to no other."""
    closest, distances = map(np.concatenate, zip(*_nearest(parts, centroids), strict=True))
    order = np.lexsort((distances, closest))
    return [order[closest[order] == cluster][:count].tolist() for cluster in range(len(centroids))]


def _nearest(parts: Iterable[LatentRows], centroids: LatentRows) -> Iterator[tuple[Any, Any]]:
    """Of each part, which centroid is nearest to each latent, and its squared distance."""
    controller = ThreadpoolController()
    for rows in parts:
        with controller.limit(limits=1):
            nearest = pairwise_distances_argmin_min(rows, centroids, metric="sqeuclidean")
        yield nearest


def row_batches(parts: Iterable[LatentRows], size: int) -> Iterator[LatentRows]:
    """The rows of all parts, in order, `size` at a time; the last batch is what remains."""
    rest: list[LatentRows] = []
    for part in parts:
        rows = np.concatenate([*rest, part])
        whole = len(rows) // size * size
        yield from (rows[begin : begin + size] for begin in range(0, whole, size))
        rest = [rows[whole:]]
    if rest and len(rest[0]):
        yield rest[0]
