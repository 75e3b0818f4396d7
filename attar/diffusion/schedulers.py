"""diffusers' schedulers as solvers: on the sampler's own time grid, or as a checkpoint configures them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attar.core.errors import AttarError
from attar.core.rng import seed_of
from attar.diffusion.schedule import SPACINGS, Schedule, grid
from attar.diffusion.solvers import Noise, Walk
from attar.diffusion.straight import FLOW, straight_abar

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
"""The schedulers that take any schedule, ask the network at whole times and draw noise from generators."""


def schedule_of(scheduler: Any) -> Schedule:
    """The schedule of a diffusers scheduler, which it names.

    Raises:
        AttarError: what it predicts is not supported.
    """
    name = type(scheduler).__name__
    config = {field: value for field, value in scheduler.config.items() if not field.startswith("_")}
    if name == FLOW:
        return Schedule(straight_abar(), "v_prediction", (name, config))
    return Schedule(scheduler.alphas_cumprod, scheduler.config.prediction_type, (name, config))


def check_scheduler(name: str, steps: int, spacing: str, clean_time: int) -> None:
    """Raises AttarError where the scheduler cannot follow a grid of 1000 times made of these fields of a sampler."""
    takes = inspect.signature(_class(name).__init__).parameters
    if clean_time != -1 and not (clean_time == 0 and "set_alpha_to_one" in takes):
        raise AttarError(f"sampler.clean_time {clean_time}: {name} knows -1" + " and 0" * ("set_alpha_to_one" in takes))
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    schedule = Schedule((1 - betas).cumprod(0).float())
    if _follows(name, spacing, clean_time, schedule, grid(steps, spacing)):
        return
    able = [other for other in SPACINGS if _follows(name, other, clean_time, schedule, grid(steps, other))]
    advice = f"choose sampler.spacing {' or '.join(able)}" if able else "choose another solver or number of steps"
    raise AttarError(f"sampler.spacing {spacing!r}: {name} cannot follow this grid of {steps} steps; {advice}")


def falling_times(scheduler: Any) -> list[int]:
    """The time at which each step of a scheduler begins. PNDM begins its second and its third at the same."""
    return [int(time) for time in scheduler.timesteps[:: scheduler.order]]


def by_scheduler(scheduler: Any, walk: Walk, z: Tensor) -> Tensor:
    """Walks down with a diffusers scheduler that was set to its whole grid; from the later of two equal times."""
    times = falling_times(scheduler)
    begin = scheduler.order * (len(times) - 1 - times[::-1].index(walk.times[0]))
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    drawing: dict[str, Any] = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        drawing["generator"] = _generators(walk.noise, walk.times[0])
    z = z / scheduler.scale_model_input(torch.ones(()), scheduler.timesteps[begin]).item()
    for time in scheduler.timesteps[begin:]:
        output = walk.raw(scheduler.scale_model_input(z, time), int(time))
        z = scheduler.step(output, time, z, **drawing).prev_sample
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


def own_scheduler(name: str, config: Mapping[str, Any], steps: int) -> Any:
    """The scheduler of a checkpoint with its own configuration: offset, spacing, last alpha, prediction type.

    Raises:
        AttarError: it is none of `SCHEDULERS`, or it is configured so that it asks the network at other than whole,
            distinct times, or for a variance.
    """
    advice = "choose another sampler.solver, for example ddim or dpm++"
    if name not in SCHEDULERS:
        raise AttarError(f"sampler.solver checkpoint: the checkpoint's scheduler, {name}, is not supported; {advice}")
    odd = [field for field, value in config.items() if value is True and field.endswith(("_sigmas", "_lambdas"))]
    odd += [field for field, value in config.items() if field == "variance_type" and str(value).startswith("learned")]
    if odd:
        raise AttarError(f"sampler.solver checkpoint: {name} with {', '.join(odd)} is not supported; {advice}")
    scheduler = _class(name).from_config(config)
    scheduler.set_timesteps(steps)
    times = falling_times(scheduler)
    whole = times == scheduler.timesteps[:: scheduler.order].tolist()
    if not whole or times != sorted(times, reverse=True) or len(set(times)) != steps:
        raise AttarError(
            f"sampler.solver checkpoint: {name} as it is configured does not ask at {steps} whole times; {advice}"
        )
    return scheduler


def made_scheduler(name: str, spacing: str, clean_time: int, schedule: Schedule, times: Sequence[int]) -> Any:
    """The scheduler, set to these times where it takes any, else to its own of this spacing, which must be the same.

    Raises:
        AttarError: it has other times.
    """
    made = _class(name)
    wanted = {
        "num_train_timesteps": len(schedule),
        "trained_betas": schedule.betas.tolist(),
        "prediction_type": schedule.prediction,
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
        falling = list(dict.fromkeys(scheduler.timesteps[:: scheduler.order].tolist()))
    except (ValueError, IndexError):
        falling = []
    if falling != list(times)[::-1]:
        raise AttarError(f"sampler.solver {name} cannot follow the {spacing} grid of {len(times)} steps")
    return scheduler


def _follows(name: str, spacing: str, clean_time: int, schedule: Schedule, times: Sequence[int]) -> bool:
    try:
        made_scheduler(name, spacing, clean_time, schedule, times)
    except AttarError:
        return False
    return True
