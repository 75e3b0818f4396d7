"""Condition-aware optimisation, the second stage of CaO2 (Wang et al., ICCV 2025, arXiv 2506.22637).

Kept latents z are moved by gradients to where the prior predicts their noise best, told their class:

    min over z of  mean (e - eps(z_t, t, y))^2 + largest * max |e - eps(z_t, t, y)|

z_t is z with the noise e, which stays the same for each image, at a time t drawn anew in each step. After any method:
`refine=likelihood`. Values are those of the code; what is otherwise is in docs/departures.toml.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.core.finite import finite
from attar.core.progress import Meter, timed_on
from attar.core.rng import numpy_generator
from attar.diffusion import grid
from attar.job import Job, Spec
from attar.priors.prior import Prior

GRID = 50
"""Steps of the respaced schedule that `first` and `last` count in."""


@dataclass(frozen=True)
class Likelihood:
    """Moves kept latents to where the prior predicts their noise best, given their class."""

    steps: int = 100
    """Steps of Adam for each image, each with one gradient through the network."""
    lr: float = 6e-4
    """Learning rate of Adam, in units of latents."""
    largest: float = 10.0
    """Weight of the largest error beside the mean squared one."""
    first: int = 1
    """Index of the earliest time that latents are noised to, of 50 times."""
    last: int = 11
    """Index of the latest: early times alone, where details are decided."""
    told: Literal["class", "none"] = "class"
    """What the prior is told: each image's `class`, as in the paper; or `none`, the null label, as in the code."""

    space: ClassVar[Literal["latents"]] = "latents"

    def inputs(self, spec: Spec) -> dict[str, Any]:
        """Nothing: it looks at no images."""
        return {}

    def check(self, job: Job) -> None:
        """Raises AttarError for a prior in float16."""
        if job.prior.weights == torch.float16:
            raise AttarError("refine=likelihood: gradients vanish in `dtype` float16; choose bfloat16 or float32")

    def seconds(self, job: Job, n: int) -> float:
        """Seconds that n latents of a class take: one gradient is timed."""
        rows = min(n, job.prior.batch_size)
        z = torch.zeros(rows, *job.codec.shape, device=job.prior.device)
        once = timed_on(lambda: self._gradient(job.prior, z, z, 0, job.conditions([0] * rows)), job.prior.device)
        return once * self.steps * math.ceil(n / rows)

    def __call__(self, job: Job, prior: Prior, label: int, z: Tensor) -> Tensor:
        """Latents (N, C, H, W), float32, on the CPU; all images of a class meet the same times."""
        meter = Meter(job.progress, f"refining {job.classes[label]}", self.steps * len(z), "steps")
        parts = torch.arange(len(z)).split(prior.batch_size)
        return torch.cat([self._moved(job, prior, label, z[rows].float(), rows.tolist(), meter) for rows in parts])

    def _moved(self, job: Job, prior: Prior, label: int, z: Tensor, rows: list[int], meter: Meter) -> Tensor:
        """The class's latents (N, C, H, W) of these numbers."""
        times = numpy_generator(job.spec.seed, "likelihood", job.classes[label]).choice(self.times, self.steps)
        noise = torch.stack([job.noise(tuple(z.shape[1:]), "likelihood", label, row) for row in rows]).to(prior.device)
        y = job.conditions([label] * len(rows))
        y = y if self.told == "class" else torch.full_like(y, prior.null)
        z = z.to(prior.device).clone()
        optimiser = torch.optim.Adam([z], self.lr)
        for step, t in enumerate(times.tolist()):
            z.grad = self._gradient(prior, z, noise, t, y)
            optimiser.step()
            finite(z, f"the latents after step {step + 1} of {self.steps} (refine.lr = {self.lr:g})")
            meter.add(len(rows))
        return z.cpu()

    @property
    def times(self) -> list[int]:
        """The times that latents are noised to."""
        return grid(GRID, "linspace")[self.first : self.last + 1]

    def _gradient(self, prior: Prior, z: Tensor, noise: Tensor, t: int, y: Tensor) -> Tensor:
        """Of the sum of the images' losses at time t, which depend on one image each."""
        z = z.detach().requires_grad_()
        noisy = prior.schedule.noised(z, t, noise)
        times = torch.full((len(z),), t, device=prior.device)
        output = prior.network(noisy.to(prior.dtype), times, y).float()
        error = (prior.schedule.epsilon(output[:, : z.shape[1]], noisy, t) - noise).flatten(1)
        loss = error.square().mean(1) + self.largest * error.abs().amax(1)
        (gradient,) = torch.autograd.grad(loss.sum(), z)
        return gradient

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self, "refine")
        if self.steps < 1:
            raise AttarError(f"refine.steps {self.steps}: at least 1")
        if not 0 < self.lr < math.inf:
            raise AttarError(f"refine.lr {self.lr}: a number above 0")
        if not 0 <= self.largest < math.inf:
            raise AttarError(f"refine.largest {self.largest}: a number of 0 or more")
        if not 0 <= self.first <= self.last < GRID:
            raise AttarError(f"refine.first {self.first}, refine.last {self.last}: from 0 to {GRID - 1}, in this order")
