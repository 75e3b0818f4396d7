"""Minimax Diffusion (Gu et al., "Efficient Dataset Distillation via Minimax Diffusion", CVPR 2024).

Section 3.2: the prior is fine-tuned (finetune.py) by its own loss and two criteria (loss.py), representativeness and
diversity (criteria.py); then it is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass

from attar.diffusion import Sampler
from attar.job import Job
from attar.methods.base import LatentMethod, Select, Start, Tensors
from attar.methods.minimax.finetune import Tune
from attar.methods.prior_samples import PriorSamples
from attar.methods.refinements import AnyRefinement
from attar.priors.prior import Prior


@dataclass(frozen=True)
class Minimax(LatentMethod):
    """Tunes the prior to cover its classes, then samples it: the first n of one pool are the set of IPC n.

    As the authors' code, from the original DiT-XL-2-256x256.pt: `fit.max_steps=12000`, `fit.ema_warmup=false`,
    `codec=stabilityai/sd-vae-ft-mse`, `dtype=float32` (docs/departures.toml).
    """

    fit: Tune = Tune()
    """Fine-tuning with the representativeness and diversity criteria (section 3.2)."""
    sampler: Sampler = Sampler(solver="ddpm", steps=50, guidance=4.0, guided_channels=3, spacing="linspace")
    """Ancestral sampling with guidance of the first three channels, as in the code."""
    select: Select = Select(pool=100)
    """Which are kept of a pool of 100 samples of each class: the first."""
    refine: AnyRefinement | None = None
    """How kept latents are improved; none, true: by distribution matching, diver or likelihood: by the prior."""

    def start_time(self, prior: Prior) -> int:
        return PriorSamples(self.sampler).start_time(prior)

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        return PriorSamples(self.sampler).start(job, fitted, label, n)
