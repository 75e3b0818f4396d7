"""The sampler that a method owns, and denoising by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attar.core.arguments import check_fields
from attar.core.errors import AttarError, suggestion
from attar.core.limits import check_guidance
from attar.diffusion.schedule import Denoiser, Schedule, check_grid, check_on_grid, grid
from attar.diffusion.schedulers import (
    SCHEDULERS,
    by_scheduler,
    check_scheduler,
    falling_times,
    made_scheduler,
    own_scheduler,
)
from attar.diffusion.solvers import Noise, Shift, Walk, ddim, ddpm, dpm_plus_plus
from attar.diffusion.watched_denoiser import Watched

SOLVERS = {"ddim": ddim, "ddpm": ddpm, "dpm++": dpm_plus_plus}
EVEN = "log-snr"
"""The spacing whose times are made from the start's own down."""
CHECKPOINT = "checkpoint"
"""The solver that stands for the scheduler that the prior's checkpoint names; DDIM, leading, where it names none.

Of a rectified flow it is Euler's, which is DDIM with linspace (attar.diffusion.straight)."""


@dataclass(frozen=True)
class Sampler:
    """How starts are denoised: owned by the method, part of its identity."""

    solver: str = "ddim"
    """`ddim`, `ddpm` (draws noise; uses a learned variance where there is one), `dpm++` (DPM-Solver++ 2M), a
    diffusers scheduler by class name (EulerDiscreteScheduler), or `checkpoint`: the one that the prior comes with."""
    steps: int = 50
    """Steps of the time grid."""
    guidance: float = 4.0
    """Weight of classifier-free guidance; 1 is none, and costs one network pass where others cost two."""
    guided_times: tuple[int, ...] | None = None
    """Guide from the second of these times down to the first, as 200,600, and not at others, at half their cost; None
    guides at all (Kynkäänniemi et al., NeurIPS 2024)."""
    guided_channels: int | None = None
    """How many channels are guided, from the first (original DiT and Minimax: 3); None guides all (diffusers, D3HR)."""
    spacing: str = "leading"
    """`leading` 0 ... 980 and `trailing` 19 ... 999 (diffusers), `linspace` 0 ... 999 (original DiT and Minimax), or
    `log-snr`: all `steps` evenly in log-SNR from whatever time the start has, for dpm++ in 10 to 15 steps."""
    clean_time: int = -1
    """The time that stands for the clean image: -1 is alpha-bar = 1 (D3HR's code: 1)."""

    def __post_init__(self) -> None:
        check_fields(self, "sampler")
        choices = [*SOLVERS, CHECKPOINT, *SCHEDULERS]
        if self.solver not in choices:
            hint = suggestion(self.solver, choices)
            raise AttarError(f"sampler.solver {self.solver!r}{hint}: choose one of {', '.join(choices)}")
        if self.spacing != EVEN:
            check_grid("sampler", self.steps, self.spacing)
        elif self.solver not in SOLVERS:
            raise AttarError(
                f"sampler.spacing {EVEN}: for {', '.join(SOLVERS)}; with {self.solver} set sampler.spacing = leading, "
                "and sampler.steps, too"
            )
        elif not 2 <= self.steps <= 1000:
            raise AttarError(f"sampler.steps {self.steps}: with sampler.spacing = {EVEN} choose 2 to 1000")
        self._check_guidance()
        if not -1 <= self.clean_time <= 999:
            raise AttarError(f"sampler.clean_time {self.clean_time}: choose -1 to 999")
        if self.solver in SCHEDULERS:
            check_scheduler(self.solver, self.steps, self.spacing, self.clean_time)
        if self.solver == CHECKPOINT and (self.spacing, self.clean_time) != ("leading", -1):
            raise AttarError(
                "sampler.solver checkpoint: set sampler.spacing = leading and sampler.clean_time = -1; it has its own"
            )

    def _check_guidance(self) -> None:
        check_guidance("`sampler.guidance`", self.guidance)
        times = self.guided_times
        if times is not None and not (len(times) == 2 and 0 <= times[0] <= times[1]):
            raise AttarError(f"sampler.guided_times {','.join(map(str, times))}: two times, rising, or none for all")
        if self.guided_channels is not None and self.guided_channels < 1:
            raise AttarError(f"sampler.guided_channels {self.guided_channels}: at least 1, or none to guide all")

    def guidance_at(self, t: int) -> float:
        """The guidance at a time; 1 takes one network pass, any other two."""
        guided = self.guided_times is None or self.guided_times[0] <= t <= self.guided_times[1]
        return self.guidance if guided else 1.0


def check_guided(sampler: Sampler) -> None:
    """Raises AttarError for a solver whose steps a guide cannot move."""
    if sampler.solver not in SOLVERS:
        raise AttarError(f"sampler.solver {sampler.solver}: a guide moves the steps of {', '.join(SOLVERS)} alone")


def sampling_times(sampler: Sampler, denoiser: Denoiser) -> list[int]:
    """The rising times at which a sampler asks this denoiser: those that `sample` can start from.

    Raises:
        AttarError: the checkpoint's scheduler is not supported, or a diffusers scheduler cannot follow the grid.
    """
    return sorted(set(_falling(sampler, denoiser.schedule)))


def start_time(sampler: Sampler, denoiser: Denoiser, strength: float) -> int:
    """The time from which image-to-image of this strength starts: after the first 1 - strength of the steps (SDEdit).

    As in diffusers' image-to-image pipelines, int(steps * strength) steps are left.

    Raises:
        AttarError: the strength is not above 0 and at most 1, or so small that no step is left, or such that PNDM,
            which begins its second and its third step at one time, would begin with the second.
    """
    if not 0 < strength <= 1:
        raise AttarError(f"strength {strength}: above 0 and at most 1")
    if sampler.spacing == EVEN:
        return int(strength * (len(denoiser.schedule) - 1))
    left = int(sampler.steps * strength)
    if left < 1:
        raise AttarError(
            f"strength {strength}: none of the {sampler.steps} steps is left; at least {1 / sampler.steps:.3g}"
        )
    times = _falling(sampler, denoiser.schedule)[sampler.steps - left :]
    if times[:1] == times[1:2]:
        raise AttarError(
            f"strength {strength}: PNDM cannot start at the second of {sampler.steps} steps;"
            f" choose 1, or less than {left / sampler.steps:.3g}"
        )
    return times[0]


def times_from(sampler: Sampler, denoiser: Denoiser, t: int) -> list[int]:
    """The rising times at which a sampler asks this denoiser when it starts from t, the last of them.

    Raises:
        AttarError: t is none of the `sampling_times`.
    """
    times = sampling_times(sampler, denoiser)
    check_on_grid("time", t, times, f"the sampler's grid of {sampler.steps} steps")
    return denoiser.schedule.even_times(t, sampler.steps) if sampler.spacing == EVEN else times[: times.index(t) + 1]


def _falling(sampler: Sampler, schedule: Schedule) -> list[int]:
    if sampler.spacing == EVEN:
        return list(range(len(schedule)))[::-1]
    scheduler = _scheduler(sampler, schedule)
    if scheduler is not None:
        return falling_times(scheduler)
    spacing = "linspace" if sampler.solver == CHECKPOINT and schedule.straight else sampler.spacing
    return grid(sampler.steps, spacing, len(schedule))[::-1]


def _scheduler(sampler: Sampler, schedule: Schedule) -> Any:
    """The diffusers scheduler that the sampler stands for, set to its times; None of the built-in solvers."""
    if sampler.solver == CHECKPOINT and schedule.scheduler is not None and not schedule.straight:
        return own_scheduler(*schedule.scheduler, sampler.steps)
    if sampler.solver in SCHEDULERS:
        times = grid(sampler.steps, sampler.spacing, len(schedule))
        return made_scheduler(sampler.solver, sampler.spacing, sampler.clean_time, schedule, times)
    return None


@torch.inference_mode()
def sample(
    denoiser: Denoiser,
    z: Tensor,
    t: int,
    y: Tensor,
    sampler: Sampler,
    step: Callable[[int], None] | None = None,
    noise: Noise | None = None,
    guide: Shift | None = None,
) -> Tensor:
    """Denoises latents z (N, C, H, W) from time t to the clean image, for prior labels y (N,).

    `t` must be one of the `sampling_times`, so that nothing is denoised from another time than it was made for.
    `step(t)` is called after each step. `noise(t)` gives the noise (N, C, H, W) of the step that leaves time t, which
    solvers that draw any need; its rows must not depend on one another, so that results do not depend on the batch.
    `guide(move)` gives what is added to the mean of each step, with one of the `SOLVERS`.

    Raises:
        AttarError: t does not lie on the sampler's grid, the solver needs noise and there is none, a diffusers
            scheduler cannot follow the grid, or there is a guide with a solver that takes none.
        NotFinite: an output of the denoiser was NaN or infinite, or the latents are; names the time and the rows.
    """
    watched = Watched(denoiser)
    walk = Walk(
        denoiser=watched,
        y=y,
        guidance=sampler.guidance_at,
        channels=sampler.guided_channels,
        times=times_from(sampler, denoiser, t)[::-1],
        clean_time=sampler.clean_time,
        noise=noise,
        step=step or (lambda time: None),
        guide=guide,
    )
    scheduler = _scheduler(sampler, denoiser.schedule)
    if guide is not None:
        check_guided(sampler)
    clean = SOLVERS.get(sampler.solver, ddim)(walk, z) if scheduler is None else by_scheduler(scheduler, walk, z)
    watched.check(clean)
    return clean
