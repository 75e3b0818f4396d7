"""D3HR (Zhao et al., "Taming Diffusion for Dataset Distillation with High Representativeness", ICML 2025)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from attar.core.config import Range, check_ranges
from attar.core.errors import AttarError
from attar.core.rng import seed_of
from attar.diffusion import EVEN, Sampler, grid
from attar.job import Job
from attar.methods.base import LatentMethod, Select, Start, Tensors
from attar.methods.d3hr.class_moments import Invert
from attar.methods.d3hr.matching import (
    CHUNK,
    Metric,
    elsewhere,
    kl_score,
    matched,
    paper_score,
    reference_draws,
    search,
    sinkhorn_score,
)
from attar.methods.refine import Refinement
from attar.priors.prior import Prior

PIECES = 4
"""Of a search that are timed for the estimate."""


_RANGES: tuple[Range, ...] = (
    ("a number of 0 or more", lambda x: 0 <= x < math.inf, ("mean_weight", "std_weight", "skew_weight")),
)


@dataclass(frozen=True)
class D3HR(LatentMethod):
    """Inverts every latent to a near-Gaussian domain; starts from the drawn group that best matches the class there.

    Variants: --set matching=moments (no search), --set fit.exact=true, and 12 network calls instead of 31: --set
    sampler.solver=dpm++ --set sampler.steps=12 --set sampler.spacing=log-snr. The code differs: --set
    reference_quirks=true --preprocess resize-crop --output-size 224 --dtype float16, and searches more groups.
    """

    fit: Invert = Invert()
    """Domain mapping (section 3.2): DDIM inversion of the class's latents, and their moments."""
    sampler: Sampler = Sampler()
    """How the group is denoised: DDIM, 50 steps, guidance 4."""
    time: int | None = None
    """The time of the starts, one of fit.times; none is the last of them."""
    matching: Literal["search", "moments"] = "search"
    """`search`, the paper's; or `moments`: one drawn group, moved and scaled to have the class's mean and deviation. At
    IPC 1 a draw has no deviation to match, at 2 the starts mirror each other, at 3 little is free (see `matched`)."""
    subsets: int = 100_000
    """Of the search: how many groups are drawn, of which the best is kept (section 3.4)."""
    score: Literal["paper", "kl", "sinkhorn"] = "paper"
    """Of the search: what the best is. At IPC 1 every score is the gap of the mean."""
    mean_weight: float = 1.0
    """Weight of the gap of the means in the paper's score."""
    std_weight: float = 1.0
    """Weight of the gap of the deviations."""
    skew_weight: float = 0.1
    """Weight of the skewness."""
    reference_quirks: bool = False
    """Do as the authors' code does: it begins to invert at alpha-bar(0) and ends sampling at alpha-bar(1), starts one
    step of the sampler above the time of the moments (620 for 600), and draws from the same seeds for every class,
    whatever the seed. Its m = 100000 stands for subsets=100000000."""
    select: Select = Select()
    refine: Refinement | None = None
    """How kept latents are improved, if they are: --set refine=true."""

    keeps_statistics = True

    def __post_init__(self) -> None:
        if self.reference_quirks:
            object.__setattr__(self, "fit", replace(self.fit, clean_time=0))
            object.__setattr__(self, "sampler", replace(self.sampler, clean_time=1))
        check_ranges(self, _RANGES, "d3hr")
        if self.subsets < 1:
            raise AttarError(f"d3hr.subsets {self.subsets}: at least 1")
        kept = ",".join(map(str, self.fit.times))
        if self.matched_time not in self.fit.times:
            raise AttarError(f"d3hr.time {self.time} is none of d3hr.fit.times {kept}; set that too")
        if self.sampler.spacing == EVEN:
            if self.reference_quirks:
                raise AttarError(f"d3hr.sampler.spacing {EVEN}: reference_quirks start on a grid; choose leading")
            return
        if self.matched_time not in (times := self._grid()):
            near = min(times, key=lambda time: abs(time - self.matched_time))
            raise AttarError(
                f"d3hr.fit.times {self.matched_time} is not a time of the sampler's grid; the nearest is {near}"
            )
        if self.reference_quirks and self.matched_time == times[-1]:
            raise AttarError(f"d3hr.fit.times {kept}: with reference_quirks, below the last time of the sampler's grid")

    @property
    def matched_time(self) -> int:
        """The time of the moments that starts are to match."""
        return self.fit.times[-1] if self.time is None else self.time

    def start_time(self, prior: Prior) -> int:
        if not self.reference_quirks:
            return self.matched_time
        times = self._grid()
        return times[times.index(self.matched_time) + 1]

    def statistics(self, fitted: Tensors) -> Tensors:
        """Mean and deviation (C, H, W) of a class at the matched time, float32: all that starts are made from."""
        at = self.fit.times.index(self.matched_time)
        return {"mean": fitted["mean"][at].float(), "std": fitted["variance"][at].sqrt().float()}

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        seed = seed_of(job.spec.seed, "d3hr", job.classes[label], n)
        group = self._group(self.statistics(fitted), n, seed, job.prior.device)
        return Start(group, self.start_time(job.prior))

    def start_seconds(self, job: Job, n: int) -> float:
        mean = torch.zeros(job.prior.codec.shape)
        tried = min(self.subsets, PIECES * max(1, CHUNK // (n * mean.numel())))
        begun = time.monotonic()
        replace(self, subsets=tried)._group({"mean": mean, "std": mean + 1}, n, 0, job.prior.device)
        seconds = time.monotonic() - begun
        return seconds * self.subsets / tried if self.matching == "search" else seconds

    def _group(self, statistics: Tensors, n: int, seed: int, device: torch.device) -> Tensor:
        mean, std = statistics["mean"], statistics["std"]
        if self.matching == "moments":
            return matched(mean, std, n, torch.Generator("cpu").manual_seed(seed))
        draws = reference_draws(self.subsets) if self.reference_quirks else [(seed, self.subsets)]
        metric = self._metric()
        glance = None if device.type == "cpu" else elsewhere(mean, std, metric, device)
        return search(mean, std, n, draws, metric, glance)

    def _metric(self) -> Metric:
        if self.score == "paper":
            return partial(
                paper_score, mean_weight=self.mean_weight, std_weight=self.std_weight, skew_weight=self.skew_weight
            )
        return {"kl": kl_score, "sinkhorn": sinkhorn_score}[self.score]

    def _grid(self) -> list[int]:
        return grid(self.sampler.steps, self.sampler.spacing)
