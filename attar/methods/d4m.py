"""D4M (Su et al., "D^4M: Dataset Distillation via Disentangled Diffusion Model", CVPR 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attar.diffusion import CHECKPOINT, Sampler, start_time
from attar.errors import AttarError
from attar.job import Job
from attar.methods.method import Select, Start, Tensors
from attar.methods.prototypes import Prototypes
from attar.methods.refine import Refinement
from attar.priors.prior import Prior


@dataclass(frozen=True)
class D4M:
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

    def start_seconds(self, job: Job, n: int) -> float:
        return 0.0
