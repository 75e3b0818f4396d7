"""diffusers' schedulers as solvers: driven on the sampler's own time grid, from any of its times."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attar.diffusion.schedule import SPACINGS, Schedule, grid
from attar.diffusion.solvers import Noise, Walk
from attar.errors import AttarError
from attar.keys import seed_of

SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)
"""Those that can be given any schedule, ask the network at whole times and draw noise from generators."""


def check_scheduler(owner: str, name: str, steps: int, spacing: str, clean_time: int) -> None:
    """Raises AttarError where the scheduler cannot follow a grid of 1000 times made of these fields of `owner`."""
    takes = inspect.signature(_class(name).__init__).parameters
    if clean_time != -1 and not (clean_time == 0 and "set_alpha_to_one" in takes):
        raise AttarError(f"{owner}.clean_time {clean_time}: {name} knows -1" + " and 0" * ("set_alpha_to_one" in takes))
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    schedule = Schedule((1 - betas).cumprod(0).float())
    if _follows(name, spacing, clean_time, schedule, grid(steps, spacing)):
        return
    able = [other for other in SPACINGS if _follows(name, other, clean_time, schedule, grid(steps, other))]
    advice = f"choose {owner}.spacing {' or '.join(able)}" if able else "choose another solver or number of steps"
    raise AttarError(f"{owner}.spacing {spacing!r}: {name} cannot follow this grid of {steps} steps; {advice}")


def by_scheduler(name: str, spacing: str, grid_times: Sequence[int], walk: Walk, z: Tensor) -> Tensor:
    """Walks down with a diffusers scheduler that was set to the whole grid, `grid_times`, rising."""
    scheduler = _made(name, spacing, walk.clean_time, walk.denoiser.schedule, grid_times)
    times = scheduler.timesteps.tolist()
    begin = scheduler.order * times[:: scheduler.order].index(walk.times[0])
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    drawing: dict[str, Any] = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        drawing["generator"] = _generators(walk.noise, walk.times[0])
    z = z / scheduler.scale_model_input(torch.ones(()), scheduler.timesteps[begin]).item()
    for time in scheduler.timesteps[begin:]:
        noise, _ = walk.output(scheduler.scale_model_input(z, time), int(time))
        z = scheduler.step(noise, time, z, **drawing).prev_sample
        walk.step(int(time))
    return z


def _generators(noise: Noise | None, t: int) -> list[torch.Generator]:
    """One generator for each row, seeded by the row's own keyed noise."""
    if noise is None:
        raise AttarError("this solver may draw noise at every step: give `sample` a `noise`")
    seeds = (seed_of("scheduler", row.numpy().tobytes().hex()) for row in noise(t))
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def _class(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)


def _made(name: str, spacing: str, clean_time: int, schedule: Schedule, times: Sequence[int]) -> Any:
    """The scheduler, set to these times where it takes any, else to its own of this spacing, which must be the same.

    Raises:
        AttarError: it has other times.
    """
    made = _class(name)
    abar = schedule.alphas_cumprod.double()
    betas = 1 - abar / torch.cat([torch.ones(1, dtype=abar.dtype), abar[:-1]])
    wanted = {
        "num_train_timesteps": len(schedule),
        "trained_betas": betas.tolist(),
        "prediction_type": "epsilon",
        "timestep_spacing": spacing,
        "clip_sample": False,
        "skip_prk_steps": True,
        "set_alpha_to_one": clean_time < 0,
        "final_sigmas_type": "zero",
        "lower_order_final": True,
    }
    takes = inspect.signature(made.__init__).parameters
    scheduler = made(**{option: value for option, value in wanted.items() if option in takes})
    try:
        if "timesteps" in inspect.signature(made.set_timesteps).parameters:
            scheduler.set_timesteps(timesteps=list(times)[::-1])
        else:
            scheduler.set_timesteps(len(times))
        found = list(dict.fromkeys(scheduler.timesteps[:: scheduler.order].tolist()))
    except (ValueError, IndexError):
        found = []
    if found != list(times)[::-1]:
        raise AttarError(f"sampler.solver {name} cannot follow the {spacing} grid of {len(times)} steps")
    return scheduler


def _follows(name: str, spacing: str, clean_time: int, schedule: Schedule, times: Sequence[int]) -> bool:
    try:
        _made(name, spacing, clean_time, schedule, times)
    except AttarError:
        return False
    return True
