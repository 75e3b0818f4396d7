"""D4M (Su et al., "D4M: Dataset Distillation via Disentangled Diffusion Model", CVPR 2024).

Section 3.2: prototypes of each class, the k-means centroids of its latents (`Prototypes`). Section 3.3: they are taken
partway to noise, and the prior denoises them (`D4M`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.core.rng import numpy_generator
from attar.core.store import canonical
from attar.diffusion import CHECKPOINT, Sampler, start_time
from attar.job import Job
from attar.methods.base import Fit, Group, LatentMethod, Select, Start, Tensors
from attar.methods.kmeans import LatentRows, Parts, cluster_means, count_nearest, lloyd, rows_at, streamed
from attar.methods.latent_rows import LatentShape, averaged, filled, loneliest, outlier_factors
from attar.methods.refinements import AnyRefinement
from attar.priors.prior import Prior


@dataclass(frozen=True)
class Prototypes(Fit):
    """Centroids of each class's latents, streamed: neither a U-Net nor a text encoder is run."""

    count: int | None = None
    """Prototypes of a class; none: one for each image of the distilled class, as in the paper."""
    algorithm: Literal["minibatch", "full", "random"] = "minibatch"
    """`minibatch` k-means, in memory that does not grow with the class; `full` (Lloyd's) on all of a class's latents
    in memory; or `random`: the latents of real images, as many, drawn by the seed, instead of centroids."""
    expand: int = 1
    """Latents in a mini-batch for each prototype: 1 in the scripts of D4M's authors, 10 by default in their code."""
    posterior: Literal["sample", "mean"] = "sample"
    """What stands for an image: a sample of the codec's posterior, as in the paper, or its mean."""
    seed: int = 0
    """Seed of k-means or of the draw of images, and of the posterior samples."""
    weights: Literal["none", "share", "root"] = "none"
    """What images weigh where networks learn from them, kept with the set (DDOQ; Tan and Slade, ICLR 2026): the `share`
    of the class's latents that are nearest to the image's prototype; its square `root`, which varies less and is said
    to be what DDOQ's authors train with; or `none`. No image depends on it."""
    outliers: float = 0.0
    """Share of a class's latents that k-means does not see, the loneliest by their local outlier factor (Breunig et
    al., 2000); 0: none. 0.1 is described."""
    neighbours: int = 10
    """Nearest latents among which an outlier is lonely."""
    pooled: int = 1
    """k-means compares latents of which squares of this side are averaged; 1: whole latents. A prototype is the mean of
    its cluster's whole latents, and outliers are sought among pooled ones; both are our choice."""

    LATER: ClassVar[Mapping[str, Any]] = {"weights": "none", "outliers": 0.0, "neighbours": 10, "pooled": 1}
    """Fields that older sets lack, with their defaults: a set that does not use them keeps its key."""

    def for_ipc(self, ipc: int) -> Self:
        return replace(self, count=ipc) if self.count is None else self

    @property
    def keyed(self) -> Self:
        return replace(self, weights="none")

    @property
    def weighs(self) -> bool:
        return self.weights != "none"

    def identity(self, job: Job) -> Any:
        """Its fields as keys and manifests hold them; those that came later only where they are set."""
        return canonical(self)

    def encodings(self, counts: Sequence[int]) -> int:
        return sum(counts)

    def run(self, job: Job, group: Group, scratch: Path) -> Tensors:
        """The prototypes (N, C, H, W), how many images are nearest to each, and the sum of their squared distances.

            min over p_1 ... p_N of  sum over z of min_k |z - p_k|^2        (k-means)

        A class with fewer images than `count` has as many prototypes as images.
        """
        (label,) = group
        assert self.count is not None, "for_ipc says how many"
        shape, latents = job.codec.shape, Parts(partial(self._rows, job, label), len(job.images.of_class(label)))
        if self.outliers:
            factors = outlier_factors(self._compared(latents, shape), self.neighbours, scratch)
            latents = latents.without(loneliest(factors, self.outliers))
        compared, count = self._compared(latents, shape), min(self.count, latents.count)
        prototypes = self._prototypes(latents, compared, self._centroids(compared, count, job.classes[label]), shape)
        sizes, inertia = count_nearest(compared, averaged(prototypes, shape, self.pooled))
        return {
            "prototypes": torch.from_numpy(prototypes).view(count, *shape),
            "sizes": torch.from_numpy(sizes),
            "inertia": torch.tensor(inertia, dtype=torch.float64),
        }

    def check(self, prior: Prior) -> None:
        _, height, width = prior.codec.shape
        if height % self.pooled or width % self.pooled:
            raise AttarError(f"`fit.pooled` {self.pooled}: does not divide the latents' {height} x {width}")

    def image_weights(self, fitted: Tensors, n: int) -> torch.Tensor | None:
        """The share of each image's prototype, or its root; images of one prototype have equal parts of it.

        w_k = |{z nearest to p_k}| / N
        """
        if not self.weighs:
            return None
        sizes, of_image = fitted["sizes"].double(), torch.arange(n) % len(fitted["sizes"])
        weights = sizes / sizes.sum()
        weights = weights.sqrt() if self.weights == "root" else weights
        return weights[of_image] / of_image.bincount()[of_image]

    def _rows(self, job: Job, label: int) -> Iterator[LatentRows]:
        for shard in job.latents.shards(label, progress=job.progress):
            means = self.posterior == "mean"
            z = shard.mean.float() if means else shard.sampled(self.seed, job.classes[label])
            yield z.flatten(1).numpy()

    def _compared(self, latents: Parts, shape: LatentShape) -> Parts:
        """What k-means compares of latents."""
        return latents if self.pooled == 1 else latents.mapped(lambda rows: averaged(rows, shape, self.pooled))

    def _prototypes(self, latents: Parts, compared: Parts, centroids: LatentRows, shape: LatentShape) -> LatentRows:
        """The prototypes (N, D) of centroids: these themselves, or, where latents are pooled, the clusters' means.

        A centroid without latents is enlarged.
        """
        if self.pooled == 1:
            return centroids
        means = cluster_means(latents, compared, centroids)
        return np.where(np.isnan(means), filled(centroids, shape, self.pooled), means)

    def _centroids(self, parts: Parts, count: int, name: str) -> LatentRows:
        if self.algorithm == "minibatch":
            return streamed(parts, count, count * self.expand, self.seed)
        if self.algorithm == "full":
            return lloyd(np.concatenate(list(parts)), count, self.seed)
        draw = numpy_generator(self.seed, "prototypes", name)
        return rows_at(parts, draw.permutation(parts.count)[:count].tolist())

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self, "fit")
        for name in ("count", "expand", "neighbours", "pooled"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise AttarError(f"fit.{name} {value}: at least 1")
        if not 0 <= self.seed < 2**32:
            raise AttarError(f"fit.seed {self.seed}: from 0 to {2**32 - 1:,}")
        if not 0 <= self.outliers <= 0.5:
            raise AttarError(f"fit.outliers {self.outliers}: from 0 to 0.5")
        if self.pooled > 1 and self.algorithm == "random":
            raise AttarError(
                f"fit.pooled {self.pooled}: fit.algorithm random compares nothing; choose minibatch or full"
            )


@dataclass(frozen=True)
class D4M(LatentMethod):
    """Takes each class's prototypes partway to noise; the prior takes them back, as images of the class.

    Where images outnumber prototypes, these are taken again, with fresh noise. As the authors' code:
    `preprocess=squash`, `output_size=224`, `output_filter=bicubic`, `dtype=float16` (docs/departures.toml). Without
    prototypes it is `d4m-noise`.
    """

    fit: Prototypes = Prototypes()
    """The prototypes (section 3.2)."""
    sampler: Sampler = Sampler(solver=CHECKPOINT, steps=50, guidance=8.0)
    """How they are denoised (section 3.3): by the checkpoint's own scheduler, 50 steps, guidance 8."""
    strength: float = 0.7
    """How far towards noise prototypes are taken: the share of the sampler's steps that brings them back."""
    select: Select = Select()
    """Which of the denoised images are kept."""
    refine: AnyRefinement | None = None
    """How kept latents are improved; none, true: by distribution matching, diver or likelihood: by the prior."""

    of_clusters = True

    def start_time(self, prior: Prior) -> int:
        return start_time(self.sampler, prior, self.strength)

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        """z_t = sqrt(abar_t) p + sqrt(1 - abar_t) noise, of one prototype p after another."""
        t, prototypes = self.start_time(job.prior), fitted["prototypes"]
        repeated = prototypes[torch.arange(n) % len(prototypes)]
        noise = torch.stack([job.noise(job.prior.codec.shape, "start", label, index) for index in range(n)])
        return Start(job.prior.schedule.noised(repeated, t, noise), t)

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self)
        steps = self.sampler.steps
        if not 1 <= steps * self.strength <= steps:
            raise AttarError(
                f"d4m.strength {self.strength}: at most 1, and at least one of {steps} steps ({1 / steps:.3g})"
            )
