"""The rules themselves, on plain arrays: values of N candidates in, the places of those kept out.

The values are features (N, D), a teacher's losses (N,), or an order (N,). Ties go to the lowest place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from attar.core.registry import Registry

FeatureRows = np.ndarray[Any, np.dtype[np.float32]]
"""Features (N, D)."""
Indices = np.ndarray[Any, np.dtype[np.int64]]
Numbers = np.ndarray[Any, np.dtype[np.float64]]

CHUNK = 1024
"""Rows whose differences are held in float64 at a time."""


def herding(rows: FeatureRows, count: int) -> Indices:
    """Each next one brings the mean of those kept nearest to the mean of all (Welling, 2009; iCaRL, 2017, section 2.2).

    A smaller choice begins a larger one.
    """
    mean, total = rows.mean(0, dtype=np.float64), np.zeros(rows.shape[1])
    chosen: list[int] = []
    for number in range(1, count + 1):
        far = distances(rows, number * mean - total)
        far[chosen] = np.inf
        chosen.append(int(far.argmin()))
        total += rows[chosen[-1]]
    return np.array(chosen, np.int64)


def k_center(rows: FeatureRows, count: int) -> Indices:
    """The one nearest to the mean, then each time the one that is farthest from all kept (Sener and Savarese, 2018).

    A smaller choice begins a larger one.
    """
    chosen = [int(distances(rows, rows.mean(0, dtype=np.float64)).argmin())]
    nearest = distances(rows, rows[chosen[0]])
    while len(chosen) < count:
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distances(rows, rows[chosen[-1]]))
    return np.array(chosen, np.int64)


def medoids(rows: FeatureRows, count: int) -> Indices:
    """The one nearest to each centre of `count` k-means clusters, of those not yet taken by an earlier centre.

    Not nested. k-means begins from a fixed seed and runs on one thread.
    """
    from sklearn.cluster import KMeans

    with threadpool_limits(limits=1):
        centres = KMeans(n_clusters=count, random_state=0, n_init="auto").fit(rows).cluster_centers_
    chosen: list[int] = []
    for centre in centres:
        far = distances(rows, centre)
        far[chosen] = np.inf
        chosen.append(int(far.argmin()))
    return np.array(chosen, np.int64)


def surest(losses: Numbers, count: int) -> Indices:
    """The candidates with the lowest losses or doubts (N,), in rising order. A smaller choice begins a larger one."""
    return losses.argsort(kind="stable")[:count]


def margins(rows: FeatureRows, own: Numbers, others: Sequence[Numbers]) -> Numbers:
    """How much nearer rows (N, D) are to their own class's mean (D,) than to the nearest of the others', as a loss.

    |x - m_own|^2 - min over others of |x - m_other|^2
    """
    return distances(rows, own) - np.min([distances(rows, mean) for mean in others], axis=0)


def distances(rows: FeatureRows, point: np.ndarray[Any, Any]) -> Numbers:
    """Squared distances (N,) to a point (D,), in float64; equal rows have equal ones wherever they stand."""
    parts = (rows[begin : begin + CHUNK] for begin in range(0, len(rows), CHUNK))
    return np.concatenate([np.square(part - point.astype(np.float64)).sum(1) for part in parts])


def foremost(order: Indices, count: int) -> Indices:
    """The first of an order. A smaller choice begins a larger one."""
    return order[:count]


class Rule(Protocol):
    """Which of N candidates are kept, by what is known of each."""

    def __call__(self, values: Any, count: int, /) -> Indices:
        """The places (count,) of those kept, in the order of the choice."""


RULES = Registry[Rule](
    "selection rule",
    {
        "first": (foremost, "those that were made first"),
        "random": (foremost, "a random choice: the first of a random order"),
        "herding": (herding, "their mean feature comes near the mean of all (iCaRL)"),
        "k-center": (k_center, "each is the farthest from those kept before it (Sener and Savarese)"),
        "medoid": (medoids, "the nearest to the centres of as many k-means clusters"),
        "margin": (surest, "those that are nearer to their class's mean than to another class's by the most"),
        "confident": (surest, "those that a teacher classifies most surely"),
        "correct": (surest, "those that a teacher classifies rightly, the surest first, then the others (CaO2)"),
    },
)

JOINT = ("margin",)
"""The rules that look at the candidates of all classes."""
COMPARING = ("herding", "k-center", "medoid", *JOINT)
"""The rules that compare features."""
RANKING = ("confident", "correct")
"""The rules that go by how sure a teacher is."""
BY_TEACHER = ("teacher", "answers")
"""The features that a teacher makes."""
