"""D3HR (Zhao et al., "Taming Diffusion for Dataset Distillation with High Representativeness", ICML 2025).

3.2  domain mapping           z_0 -> z_T by DDIM inversion                        class_moments.py
3.3  distribution matching    mu, sigma^2 of the class's z_T                      class_moments.py
3.4  group sampling           the best of many groups z ~ N(mu, sigma^2)          matching.py, scores.py
     then DDIM takes the group back to images                                     the sampler
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Literal

import torch
from torch import Tensor

from attar.core.config import Range, check_ranges
from attar.core.errors import AttarError
from attar.core.rng import seed_of
from attar.diffusion import EVEN, Sampler, check_on_grid, grid
from attar.job import Job
from attar.methods.base import LatentMethod, NoiseMap, Select, Start, Tensors
from attar.methods.d3hr.class_moments import Invert
from attar.methods.d3hr.matching import elsewhere, groups_at_once, matched, reference_draws, search
from attar.methods.d3hr.planes import places_on
from attar.methods.d3hr.scores import ScoreFunction, kl_score, paper_score, sinkhorn_score
from attar.methods.refinements import AnyRefinement
from attar.priors.prior import Prior

TIMED_PIECES = 4
"""How many pieces of a search are timed for the estimate."""


@dataclass(frozen=True)
class D3HR(LatentMethod):
    """Inverts every latent to a near-Gaussian domain; starts from the drawn group that best matches the class there.

    Variants: `matching=moments` (no search), `fit.exact=true` (in `dtype=float32`), and 12 network calls instead of 31
    by `sampler.solver=dpm++`, `sampler.steps=12` and `sampler.spacing=log-snr`. As the authors' code:
    `reference_quirks=true`, `preprocess=resize-crop`, `output_size=224`, `dtype=float16` (docs/departures.toml).
    """

    fit: Invert = Invert()
    """Domain mapping (section 3.2) and distribution matching (3.3): the moments of the class's inverted latents."""
    sampler: Sampler = Sampler()
    """How the group is denoised: DDIM, 50 steps, guidance 4."""
    time: int | None = None
    """The time of the starts, one of fit.times; none is the last of them."""
    matching: Literal["search", "moments"] = "search"
    """`search`, the paper's; or `moments`: one drawn group, moved and scaled to have the class's mean and deviation. At
    IPC 1 a draw has no deviation to match, at 2 the starts mirror each other, at 3 little is free (see `matched`)."""
    subsets: int = 100_000
    """Groups that the search draws, of which the best is kept (section 3.4)."""
    score: Literal["paper", "kl", "sinkhorn"] = "paper"
    """The score by which the search finds the best group. At IPC 1 every score is the gap of the mean."""
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
    """Which of the denoised images are kept."""
    refine: AnyRefinement | None = None
    """How kept latents are improved; none, true: by distribution matching, diver or likelihood: by the prior."""

    keeps_statistics = True

    @property
    def matched_time(self) -> int:
        """The time of the moments that starts are to match."""
        return self.fit.times[-1] if self.time is None else self.time

    def statistics(self, fitted: Tensors) -> Tensors:
        """mu and sigma (C, H, W) of a class at the matched time, float32: all that starts are made from."""
        at = self.fit.times.index(self.matched_time)
        return {"mean": fitted["mean"][at].float(), "std": fitted["variance"][at].sqrt().float()}

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        """Group sampling: of many groups of n latents, z ~ N(mu, sigma^2), the one with the lowest score."""
        seed = seed_of(job.spec.seed, "d3hr", job.classes[label], n)
        group = self._group(self.statistics(fitted), n, seed, job.prior.device)
        at = self.fit.times.index(self.matched_time)
        places = places_on(fitted["axes"][at], group) if "axes" in fitted else None
        return Start(group, self.start_time(job.prior), places=places)

    def noise_map(self, fitted: Tensors) -> NoiseMap | None:
        if "axes" not in fitted:
            return None
        at = self.fit.times.index(self.matched_time)
        axes, moments = fitted["axes"][at].flatten(1).double(), self.statistics(fitted)
        spread = axes * moments["std"].flatten().double().square() @ axes.T
        return NoiseMap(fitted["shares"][at], fitted["places"][at], places_on(axes, moments["mean"][None])[0], spread)

    def _group(self, statistics: Tensors, n: int, seed: int, device: torch.device) -> Tensor:
        mean, std = statistics["mean"], statistics["std"]
        if self.matching == "moments":
            return matched(mean, std, n, torch.Generator("cpu").manual_seed(seed))
        draws = reference_draws(self.subsets) if self.reference_quirks else [(seed, self.subsets)]
        score = self._score_function()
        glance = None if device.type == "cpu" else elsewhere(mean, std, score, device)
        return search(mean, std, n, draws, score, glance)

    def _score_function(self) -> ScoreFunction:
        if self.score == "paper":
            return partial(
                paper_score, mean_weight=self.mean_weight, std_weight=self.std_weight, skew_weight=self.skew_weight
            )
        return {"kl": kl_score, "sinkhorn": sinkhorn_score}[self.score]

    def start_time(self, prior: Prior) -> int:
        if not self.reference_quirks:
            return self.matched_time
        times = _sampler_grid(self)
        return times[times.index(self.matched_time) + 1]

    def start_seconds(self, job: Job, n: int) -> float:
        mean = torch.zeros(job.prior.codec.shape)
        timed = min(self.subsets, TIMED_PIECES * groups_at_once(n, mean.numel()))
        begun = monotonic()
        replace(self, subsets=timed)._group({"mean": mean, "std": mean + 1}, n, 0, job.prior.device)
        seconds = monotonic() - begun
        return seconds * self.subsets / timed if self.matching == "search" else seconds

    # Checks of the settings

    def __post_init__(self) -> None:
        if self.reference_quirks:
            object.__setattr__(self, "fit", replace(self.fit, clean_time=0))
            object.__setattr__(self, "sampler", replace(self.sampler, clean_time=1))
        weights = ("mean_weight", "std_weight", "skew_weight")
        ranges: tuple[Range, ...] = (("a number of 0 or more", lambda x: 0 <= x < math.inf, weights),)
        check_ranges(self, ranges, "d3hr")
        if self.subsets < 1:
            raise AttarError(f"d3hr.subsets {self.subsets}: at least 1")
        times = ",".join(map(str, self.fit.times))
        if self.matched_time not in self.fit.times:
            raise AttarError(f"d3hr.time {self.time} is none of d3hr.fit.times {times}; set that too")
        if self.sampler.spacing == EVEN:
            if self.reference_quirks:
                raise AttarError(f"d3hr.sampler.spacing {EVEN}: reference_quirks start on a grid; choose leading")
            return
        check_on_grid("d3hr.fit.times", self.matched_time, _sampler_grid(self), "the sampler's grid")
        if self.reference_quirks and self.matched_time == _sampler_grid(self)[-1]:
            raise AttarError(
                f"d3hr.fit.times {times}: with reference_quirks, below the last time of the sampler's grid"
            )


def _sampler_grid(method: D3HR) -> list[int]:
    return grid(method.sampler.steps, method.sampler.spacing)
