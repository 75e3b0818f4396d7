"""DMGD (Wang et al., "DMGD: Train-Free Dataset Distillation with Semantic-Distribution Matching in Diffusion Models",
CVPR 2026), after public summaries and the authors' code.

Semantic matching (section 4.2, `DiffusedLabel`): far from the image, the prior is told a label that is taken to noise.
Distribution matching (section 4.3, `ByTransport`): each image moves so that it and those finished before it (greedy
progressive matching) are carried at less cost to the class's k-means centroids, each of the mass of its cluster
(distribution approximate matching).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.core.rng import numpy_generator
from attar.diffusion import Schedule
from attar.job import Job
from attar.methods.d4m import Prototypes
from attar.methods.ot import OT
from attar.methods.transport import ByTransport
from attar.priors.prior import Prior


@dataclass(frozen=True)
class DiffusedLabel:
    """Tells the prior, in place of a label's embedding f (section 4.2):

        sqrt(s) f + sqrt(1 - s) (other f* + noise n),    s = (upper - t) / (upper - lower), from 0 to 1

    brought to f's mean and deviation. f* is the embedding of another label, one for each image; n is noise, anew in
    each step. Above `upper` it is n alone, below `lower` the label. The null label stays, as in the paper; the authors'
    code diffuses it, too, with noise from 0 to 1 in place of normal noise.
    """

    upper: int = 900
    """The last time, of 1000, that knows the label; of 50 steps, that before 45."""
    lower: int = 500
    """The time from which on it is told as it is; of 50 steps, 24."""
    noise: float = 0.06
    """Weight beta_n of the noise."""
    other: float = 0.01
    """Weight beta_s of the other label: any other of the prior's, not only of the data's, so that an image does not
    depend on which classes are made. There is none where the prior takes prompts."""

    def __call__(self, job: Job, prior: Prior, rows: Sequence[tuple[int, int]]) -> Diffused:
        return Diffused(self, job, prior, rows)

    def mixed(self, t: int, own: Tensor, other: Tensor, noise: Tensor) -> Tensor:
        """What is told at a time in place of embeddings (N, ...)."""
        s = min(max((self.upper - t) / (self.upper - self.lower), 0.0), 1.0)
        away = self.noise * noise + (self.other * other if t <= self.upper else 0.0)
        return like(s**0.5 * own + (1 - s) ** 0.5 * away, own)

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self, "told")
        if not 0 <= self.lower < self.upper < 1000:
            raise AttarError(
                f"told.lower {self.lower}: from 0 to less than the {self.upper} of told.upper, at most 999"
            )
        if not 0 < self.noise < math.inf:
            raise AttarError(f"told.noise {self.noise}: a number above 0")
        if not 0 <= self.other < math.inf:
            raise AttarError(f"told.other {self.other}: a number of 0 or more")


def like(rows: Tensor, others: Tensor) -> Tensor:
    """Rows (N, ...), each brought to the mean and the deviation of the other's."""
    flat, aims = rows.flatten(1), others.flatten(1)
    scaled = (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True)
    return (scaled * aims.std(1, keepdim=True) + aims.mean(1, keepdim=True)).view_as(rows)


@dataclass(frozen=True, eq=False)
class Diffused:
    """A prior that is told the diffused labels of some rows, whatever labels it is given."""

    how: DiffusedLabel
    job: Job
    prior: Prior
    rows: Sequence[tuple[int, int]]
    """(label, index) of each."""

    @property
    def schedule(self) -> Schedule:
        return self.prior.schedule

    @property
    def null(self) -> int:
        return self.prior.null

    def __call__(self, z: Tensor, t: int, y: Tensor) -> Tensor:
        return self.prior(z, t, self.told(t, y))

    def both(self, z: Tensor, t: int, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.prior.both(z, t, self.told(t, y))

    def told(self, t: int, y: Tensor) -> Tensor:
        """The labels (N,) at a time, or what is told in their place (N, ...)."""
        if t < self.how.lower:
            return y
        own = self.prior.embedded(y).cpu()
        others = self.prior.embedded(self._others(y)).cpu() if self._has_others else torch.zeros_like(own)
        shape = tuple(own.shape[1:])
        noise = torch.stack([self.job.noise(shape, "label", label, index, t) for label, index in self.rows])
        return self.how.mixed(t, own, others, noise).to(y.device)

    @property
    def _has_others(self) -> bool:
        return self.prior.prompts is None and self.prior.n_classes > 1

    def _others(self, y: Tensor) -> Tensor:
        """Another label of the prior for each of y (N,), by its own key."""
        job, most = self.job, self.prior.n_classes - 1
        keys = [("other label", job.classes[label], index) for label, index in self.rows]
        drawn = [int(numpy_generator(job.spec.seed, *key).integers(most)) for key in keys]
        others = torch.tensor(drawn, device=y.device)
        return others + (others >= y)


@dataclass(frozen=True)
class DMGD(OT):
    """Samples of the prior that is told diffused labels, made one after another and carried to the class's centroids.

    Nothing is trained, and no network pass is added.
    """

    fit: Prototypes = Prototypes(count=10, algorithm="full", posterior="sample")
    """The points that images are carried to: the centroids of K = 10 clusters of samples of the codec's posterior."""
    weighted: bool = True
    """Whether a centroid weighs as much as its cluster has latents; if not, all weigh alike."""
    guide: ByTransport = ByTransport()
    """The transport, with the code's default weight 0.5; its own example for ImageNette takes 0.05."""
    told: DiffusedLabel | None = DiffusedLabel()
    """How labels are diffused; none: not at all."""
