"""DAP (Su et al., "Diffusion Models as Dataset Distillation Priors", ICLR 2026), written from public summaries.

Each sample is drawn to where the prior's own features are those of the class's real images (`Representative`): by the
gradient, at every step, of the distance that a linear kernel induces on the output of one of the prior's blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attar.core.arguments import check_fields
from attar.core.batching import in_batches
from attar.core.errors import AttarError
from attar.core.progress import Meter, timed_on
from attar.diffusion import Move, Sampler, check_guided
from attar.job import Job
from attar.methods.base import Fit, Group, Guide, Select, Tensors
from attar.methods.energy import gradients
from attar.methods.prior_samples import FromNoise
from attar.methods.refinements import AnyRefinement
from attar.priors.features import TIME, features_at
from attar.priors.prior import Prior


@dataclass(frozen=True)
class RealFeatures(Fit):
    """What a block of the prior makes of a class's real latents, as good as clean: told the class's label, once.

    The paper takes phi(x_t, t) for phi(x_0), so that no time needs features of its own.
    """

    depth: float = 0.3
    """Which of a DiT's blocks it is, as a share of all: the ninth of DiT-XL's 28; the paper's best are 4 to 12. Of a
    U-Net it is the one at the bottom."""
    per_class: int | None = None
    """The most real latents of a class; None: all, as in the paper."""

    uses_prior = True

    def encodings(self, counts: Sequence[int]) -> int:
        return sum(map(self._taken, counts))

    def passes(self, counts: Sequence[int]) -> int:
        return sum(map(self._taken, counts))

    def run(self, job: Job, group: Group, scratch: Path) -> Tensors:
        """The features (N, D); an output's mean over its places, which is our choice."""
        (label,) = group
        prior, taken = job.prior, self._taken(len(job.images.of_class(label)))
        meter, rows = Meter(job.progress, f"fitting {job.classes[label]}", taken, "images"), []
        for shard in job.latents.shards(label, taken, job.progress):
            z = shard.mean.float().to(prior.device)
            rows.append(self._features(prior, z, job.conditions([label]).expand(len(z))).cpu())
            meter.add(len(z))
        return {"features": torch.cat(rows)}

    @torch.inference_mode()
    def _features(self, prior: Prior, z: Tensor, y: Tensor) -> Tensor:
        noiseless = prior.schedule.noised(z, TIME, torch.zeros_like(z))
        return in_batches(lambda z, y: features_at(prior, z, TIME, y, self.depth), prior.batch_size, noiseless, y)

    def _taken(self, count: int) -> int:
        return count if self.per_class is None else min(count, self.per_class)

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self, "fit")
        if not 0 <= self.depth < 1:
            raise AttarError(f"fit.depth {self.depth}: from 0 to less than 1")
        if self.per_class is not None and self.per_class < 1:
            raise AttarError(f"fit.per_class {self.per_class}: at least 1")


@dataclass(frozen=True)
class Representative:
    """Moves each latent by the gradient of its features' mean distance to the real ones, at every step (algorithm 1):

    mean -= scale * d/dz mean_i |phi(z, t) - phi_i|
    """

    scale: float = 1.0
    """Weight gamma of the guide; 0.5 and 1 in the paper's ablation."""

    looks_back = False
    together = False

    def __call__(self, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        raise AssertionError("it is opened with the features of some classes")

    def __post_init__(self) -> None:
        check_fields(self, "guide")
        if not 0 <= self.scale < math.inf:
            raise AttarError(f"guide.scale {self.scale}: a number of 0 or more")


@dataclass(frozen=True, eq=False)
class Drawn:
    """The guide, opened for some classes. Each image is asked about by itself."""

    how: Representative
    prior: Prior
    depth: float
    features: Mapping[int, Tensor]
    """By label, those of real latents (N, D), on the prior's device."""

    looks_back = False
    together = False

    def __call__(self, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        assert aims is not None, "the starts say each image's class"
        rows = zip(move.z, move.y, aims.tolist(), strict=True)
        return -self.how.scale * torch.stack([self.slope(z, move.t, y, self.features[label]) for z, y, label in rows])

    def slope(self, z: Tensor, t: int, y: Tensor, real: Tensor) -> Tensor:
        """The gradient (C, H, W) of the distance at a latent."""
        with gradients():
            x = z.clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.distance(x, t, y.clone(), real), x)
        return slope

    def distance(self, z: Tensor, t: int, y: Tensor, real: Tensor) -> Tensor:
        """The mean distance of the features of a latent (C, H, W) from real ones (N, D)."""
        return (features_at(self.prior, z[None], t, y[None], self.depth) - real).norm(dim=1).mean()


@dataclass(frozen=True)
class DAP(FromNoise):
    """Samples of the prior, each drawn to where the prior sees what it sees in the class's real images.

    Nothing is trained; each step takes gradients through the prior's blocks up to the one that is compared.
    """

    fit: RealFeatures = RealFeatures()
    """What the prior sees in real images."""
    sampler: Sampler = Sampler(solver="ddpm", steps=50, guidance=4.0, guided_channels=3, spacing="linspace")
    """How noise is denoised: as the original DiT's code, 50 steps of DDPM, guidance 4."""
    guide: Representative = Representative()
    """How images are drawn to it."""
    select: Select = Select()
    """Which of the denoised images are kept."""
    refine: AnyRefinement | None = None
    """How kept latents are improved; none, true: by distribution matching, diver or likelihood: by the prior."""

    def aims(self, fitted: Tensors, label: int, n: int) -> Tensor:
        return torch.full((n,), label)

    def guiding(self, job: Job, fitted: Mapping[int, Tensors]) -> Guide:
        features = {label: learnt["features"].to(job.prior.device) for label, learnt in fitted.items()}
        return Drawn(self.guide, job.prior, self.fit.depth, features)

    def start_seconds(self, job: Job, n: int) -> float:
        """Seconds that the gradients of n images of a class take on their way; nothing where weights are unread."""
        if job.unread:
            return 0.0
        prior, z = job.prior, torch.zeros(job.codec.shape, device=job.prior.device)
        y = torch.tensor(prior.null, device=prior.device)
        opened = Drawn(self.guide, prior, self.fit.depth, {})
        real = torch.ones(1, 1, device=prior.device)
        return n * self.sampler.steps * timed_on(lambda: opened.slope(z, 500, y, real), prior.device)

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self)
        check_guided(self.sampler)
