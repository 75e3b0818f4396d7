"""DIVER (Xia et al., "DIVER: Diving Deeper into Distilled Data via Expressive Semantic Recovery", ICML 2026).

A second stage after any distillation: the prior makes its images anew, without real images and without training.
Written from public summaries; what they leave open is our choice, and says so.

    semantic inheritance   the kept latents z0, noised, stand where noise would begin
    semantic guidance      each step is pulled back to z0
    semantic fusion        in the middle of the way alone

The paper encodes finished images; here z0 are the kept latents themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.core.progress import Meter, timed_on
from attar.diffusion import EVEN, Move, Sampler, check_guided, network_passes, sample, sampling_times
from attar.job import Job, Spec
from attar.priors.prior import Prior


@dataclass(frozen=True)
class Diver:
    """Noises kept latents z0 and lets the prior take them back, pulled to z0 in the middle of the way.

        z_next = step(z) - scale * sigma_i * (z - z0)        while first >= i >= last, of i = steps - 1 ... 0

    sigma_i is the deviation of DDPM's step i, with any solver: DDIM's own would be 0, and the summaries do not say
    which is meant. It costs the passes of a sample from noise; the pull adds none.
    """

    sampler: Sampler = Sampler()
    """How the prior takes them back: 50 steps of DDIM. Guidance 4 is the original DiT's; the summaries name none."""
    noised: int = 25
    """Steps of noise that z0 gets, t_f, of the sampler's. The prior takes all of its steps whatever this is: it is
    given these latents at its first time, in place of noise."""
    first: int = 40
    """Index of the first step that is pulled, t_h. Whether both ends are pulled is our choice."""
    last: int = 25
    """Index of the last step that is pulled, t_l."""
    scale: float = 0.1
    """Weight gamma of the pull; 0.02 in the paper after NCFM."""

    space: ClassVar[Literal["latents"]] = "latents"

    def inputs(self, spec: Spec) -> dict[str, Any]:
        """Nothing: it looks at no images."""
        return {}

    def check(self, job: Job) -> None:
        """Any job's latents will do."""

    def seconds(self, job: Job, n: int) -> float:
        """Seconds that n latents of a class take: the calls of the network, one of which is timed."""
        prior = job.prior
        rows = prior.batch_size
        z = torch.zeros(rows, *prior.codec.shape, device=prior.device)
        y = torch.zeros(rows, dtype=torch.long, device=prior.device)
        guidance = map(self.sampler.guidance_at, sampling_times(self.sampler, prior))
        calls = sum(math.ceil(network_passes(weight) * n / rows) for weight in guidance)
        with torch.inference_mode():
            return calls * timed_on(lambda: prior(z, 500, y), prior.device)

    def __call__(self, job: Job, prior: Prior, label: int, z: Tensor) -> Tensor:
        """Latents (N, C, H, W), float32, on the CPU; each by noise of its own key."""
        meter = Meter(job.progress, f"refining {job.classes[label]}", len(z), "images")
        parts = torch.arange(len(z)).split(prior.batch_size)
        return torch.cat([self._recovered(job, prior, label, z[rows].float(), rows.tolist(), meter) for rows in parts])

    def _recovered(self, job: Job, prior: Prior, label: int, z0: Tensor, rows: list[int], meter: Meter) -> Tensor:
        """z0 (N, C, H, W), those of the class's numbers `rows`, taken to noise and back."""
        times, y = sampling_times(self.sampler, prior), job.conditions([label]).expand(len(rows))

        def noise(*parts: int) -> Tensor:
            return torch.stack([job.noise(tuple(z0.shape[1:]), "diver", label, row, *parts) for row in rows])

        start = prior.schedule.noised(z0, times[self.noised - 1], noise()).to(prior.device)
        near = z0.to(prior.device)
        step = meter.within(len(rows), len(times))
        made = sample(prior, start, times[-1], y, self.sampler, step, noise, lambda move: self.pull(move, near))
        meter.add(len(rows))
        return made.cpu()

    def pull(self, move: Move, z0: Tensor) -> Tensor:
        """What is added to the mean of the next latents (N, C, H, W)."""
        if not self.first >= move.left >= self.last:
            return torch.zeros_like(move.z)
        return -self.scale * move.deviation * (move.z - z0)

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self, "refine")
        check_guided(self.sampler)
        steps = self.sampler.steps
        if self.sampler.spacing == EVEN:
            raise AttarError(f"refine.sampler.spacing {EVEN}: its steps cannot be counted; choose leading or linspace")
        if not 1 <= self.noised <= steps:
            raise AttarError(f"refine.noised {self.noised}: from 1 to the {steps} of refine.sampler.steps")
        if not 0 <= self.last <= self.first:
            raise AttarError(f"refine.last {self.last}: from 0 to the {self.first} of refine.first")
        if self.last >= steps:
            raise AttarError(
                f"refine.last {self.last}: less than the {steps} of refine.sampler.steps, or none is pulled"
            )
        if not 0 <= self.scale < math.inf:
            raise AttarError(f"refine.scale {self.scale}: a number of 0 or more")
