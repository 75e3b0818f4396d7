"""Real images kept by a selection rule: the baselines."""

from __future__ import annotations

from dataclasses import dataclass

from attar.diffusion import Sampler
from attar.job import Job
from attar.methods.base import Nothing, Refine, Start, Tensors
from attar.priors.prior import Prior
from attar.selection import Select


@dataclass(frozen=True)
class Real:
    """Real images of each class, copied pixel for pixel, chosen from all of the class by a rule."""

    select: Select = Select(rule="random")
    """How they are chosen."""

    @property
    def fit(self) -> Nothing:
        return Nothing()

    @property
    def sampler(self) -> Sampler | None:
        return None

    @property
    def refine(self) -> Refine | None:
        return None

    def start_time(self, prior: Prior) -> int:
        raise AssertionError("real images are not sampled")

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        raise AssertionError("real images are not sampled")

    def start_seconds(self, job: Job, n: int) -> float:
        return 0.0
