"""The fit of D4M: prototypes of each class, the k-means centroids of its latents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from attar.core.errors import AttarError
from attar.core.rng import numpy_generator
from attar.diffusion import CHECKPOINT, Sampler, start_time
from attar.job import Job
from attar.methods.base import Fit, Group, LatentMethod, Select, Start, Tensors
from attar.methods.refine import Refinement
from attar.priors.prior import Prior

Rows = np.ndarray[Any, np.dtype[np.float32]]
"""Flattened latents (N, D)."""


@dataclass(frozen=True)
class Prototypes(Fit):
    """Centroids of each class's latents (D4M, section 3.2), streamed: neither a U-Net nor a text encoder is run."""

    count: int | None = None
    """Prototypes of a class; none is one for each image of the distilled class, as in the paper."""
    algorithm: Literal["minibatch", "full", "random"] = "minibatch"
    """`minibatch` k-means, in memory that does not grow with the class; `full` (Lloyd's) on all of a class's latents
    in memory; or `random`: the latents of so many real images, drawn by the seed, instead of centroids."""
    expand: int = 1
    """Latents in a mini-batch for each prototype: 1 in the scripts of D4M's authors, 10 by default in their code."""
    posterior: Literal["sample", "mean"] = "sample"
    """What stands for an image: a sample of the codec's posterior, as in the paper, or its mean."""
    seed: int = 0
    """Seed of k-means or of the draw of images, and of the posterior samples."""

    def __post_init__(self) -> None:
        for name in ("count", "expand"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise AttarError(f"fit.{name} {value}: at least 1")
        if not 0 <= self.seed < 2**32:
            raise AttarError(f"fit.seed {self.seed}: from 0 to {2**32 - 1:,}")

    def for_ipc(self, ipc: int) -> Prototypes:
        return replace(self, count=ipc) if self.count is None else self

    def encodings(self, counts: Sequence[int]) -> int:
        return sum(counts)

    def run(self, job: Job, group: Group, scratch: Path) -> Tensors:
        """The prototypes (N, C, H, W), how many images are nearest to each, and the sum of their squared distances.

        A class with fewer images than `count` has as many prototypes as images.
        """
        (label,) = group
        assert self.count is not None, "for_ipc says how many"
        count = min(self.count, len(job.images.of_class(label)))
        centroids = self._centroids(job, label, count)
        sizes, inertia = nearest(self._rows(job, label), centroids)
        return {
            "prototypes": torch.from_numpy(centroids).view(count, *job.codec.shape),
            "sizes": torch.from_numpy(sizes),
            "inertia": torch.tensor(inertia, dtype=torch.float64),
        }

    def _rows(self, job: Job, label: int) -> Iterator[Rows]:
        for shard in job.latents.shards(label, progress=job.progress):
            mean = self.posterior == "mean"
            z = shard.mean.float() if mean else shard.sampled(self.seed, job.classes[label])
            yield z.flatten(1).numpy()

    def _centroids(self, job: Job, label: int, count: int) -> Rows:
        parts = self._rows(job, label)
        if self.algorithm == "minibatch":
            return streamed(parts, count, count * self.expand, self.seed)
        if self.algorithm == "full":
            return lloyd(np.concatenate(list(parts)), count, self.seed)
        draw = numpy_generator(self.seed, "prototypes", job.classes[label])
        return taken(parts, draw.permutation(len(job.images.of_class(label)))[:count].tolist())


def streamed(parts: Iterable[Rows], count: int, batch: int, seed: int) -> Rows:
    """Mini-batch k-means of latents (N, D) that come in parts: `count` centroids (count, D), float32.

    As in D4M's code, `batch` latents at a time; unlike there, the last and smaller batch of every class is fitted too.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import ThreadpoolController

    model = MiniBatchKMeans(n_clusters=count, random_state=seed, batch_size=batch, n_init="auto")
    controller = ThreadpoolController()
    for rows in batches(parts, batch):
        with controller.limit(limits=1):
            model.partial_fit(rows)
    return model.cluster_centers_


def lloyd(rows: Rows, count: int, seed: int) -> Rows:
    """Full k-means of latents (N, D): `count` centroids (count, D), float32."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        return KMeans(n_clusters=count, random_state=seed, n_init="auto").fit(rows).cluster_centers_


def taken(parts: Iterable[Rows], places: Iterable[int]) -> Rows:
    """The rows (count, D) at these places in the sequence of all parts, in its order."""
    wanted, rows = set(places), enumerate(chain.from_iterable(parts))
    return np.stack([row.copy() for place, row in rows if place in wanted])


def nearest(parts: Iterable[Rows], centroids: Rows) -> tuple[np.ndarray[Any, np.dtype[np.int64]], float]:
    """How many latents are nearest to each centroid, (K,), and the inertia: the sum of their squared distances."""
    from sklearn.metrics import pairwise_distances_argmin_min
    from threadpoolctl import ThreadpoolController

    sizes, inertia = np.zeros(len(centroids), np.int64), 0.0
    controller = ThreadpoolController()
    for rows in parts:
        with controller.limit(limits=1):
            closest, distances = pairwise_distances_argmin_min(rows, centroids, metric="sqeuclidean")
        sizes += np.bincount(closest, minlength=len(centroids))
        inertia += float(distances.sum(dtype=np.float64))
    return sizes, inertia


def batches(parts: Iterable[Rows], size: int) -> Iterator[Rows]:
    """The rows of all parts, in order, `size` at a time; the last batch is what remains."""
    left: list[Rows] = []
    for part in parts:
        rows = np.concatenate([*left, part])
        whole = len(rows) // size * size
        yield from (rows[begin : begin + size] for begin in range(0, whole, size))
        left = [rows[whole:]]
    if left and len(left[0]):
        yield left[0]


@dataclass(frozen=True)
class D4M(LatentMethod):
    """Takes each class's prototypes partway to noise; the prior takes them back, as images of the class.

    Where images outnumber prototypes, these are taken again, with fresh noise. The code squashes images to the prior's
    size and saves 224 pixels: --preprocess squash --output-size 224 --output-filter bicubic --dtype float16. Unlike it,
    this fits a class's last, smaller mini-batch too, and has no safety checker. Without prototypes it is `d4m-noise`.
    """

    fit: Prototypes = Prototypes()
    """The prototypes (section 3.2)."""
    sampler: Sampler = Sampler(solver=CHECKPOINT, steps=50, guidance=8.0)
    """How they are denoised (section 3.3): by the checkpoint's own scheduler, 50 steps, guidance 8."""
    strength: float = 0.7
    """How far towards noise prototypes are taken: the share of the sampler's steps that brings them back."""
    select: Select = Select()
    refine: Refinement | None = None
    """How kept latents are improved, if they are: --set refine=true."""

    def __post_init__(self) -> None:
        if not 1 <= self.sampler.steps * self.strength <= self.sampler.steps:
            raise AttarError(
                f"d4m.strength {self.strength}: at most 1, and at least one of {self.sampler.steps} steps"
                f" ({1 / self.sampler.steps:.3g})"
            )

    def start_time(self, prior: Prior) -> int:
        return start_time(self.sampler, prior, self.strength)

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        t, prototypes = self.start_time(job.prior), fitted["prototypes"]
        repeated = prototypes[torch.arange(n) % len(prototypes)]
        noise = torch.stack([job.noise(job.prior.codec.shape, "start", label, index) for index in range(n)])
        return Start(job.prior.schedule.noised(repeated, t, noise), t)
