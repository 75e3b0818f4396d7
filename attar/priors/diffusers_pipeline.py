"""A prior that comes as a diffusers pipeline: a folder or hub id, read part by part."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from attar.core.errors import AttarError
from attar.core.hub_ids import unloaded
from attar.core.weights import damaged_weights
from attar.diffusion import Schedule, schedule_of
from attar.diffusion.straight import FLOW, TIMES

TRAINING_STEPS = 1000
"""Steps of every prior's schedule: samplers' grids and methods' times count in them."""


@contextmanager
def opening(source: str, kind: str) -> Iterator[None]:
    """Turns whatever diffusers and transformers raise on a folder or hub id into an AttarError."""
    try:
        yield
    except AttarError:
        raise
    except Exception as error:
        raise AttarError(f"`prior` {damaged_weights(source) or unloaded(source, f'a {kind}', error)}") from error


def read_index(source: str) -> dict[str, Any]:
    """`model_index.json`: the pipeline's class and those of its parts.

    Raises:
        AttarError: there is none.
    """
    from diffusers import DiffusionPipeline

    with opening(source, "diffusers pipeline"):
        index: dict[str, Any] = DiffusionPipeline.load_config(source)
        return index


def load_schedule(source: str, index: Mapping[str, Any], **overrides: Any) -> Schedule:
    """The schedule of a pipeline, with the scheduler that it names and, over its configuration, the `overrides`.

    Raises:
        AttarError: it cannot be read, was trained with other than 1000 steps, or predicts what is not supported.
    """
    import diffusers

    name = str(index["scheduler"][1])
    if name == FLOW:
        return _straight(source, index)
    with opening(source, index["_class_name"]):
        written = diffusers.DDIMScheduler.load_config(source, subfolder="scheduler")
        forward = diffusers.DDIMScheduler.from_config(written)
    steps = len(forward.alphas_cumprod)
    if steps != TRAINING_STEPS:
        raise AttarError(
            f"`prior` {source}: scheduler/scheduler_config.json has a schedule of {steps} steps; "
            f"only priors trained with {TRAINING_STEPS} are supported"
        )
    takes = inspect.signature(getattr(diffusers, name, diffusers.DDIMScheduler).__init__).parameters
    config = {field: value for field, value in {**written, **overrides}.items() if field in takes}
    return Schedule(forward.alphas_cumprod, forward.config.prediction_type, (name, config))


def _straight(source: str, index: Mapping[str, Any]) -> Schedule:
    """The schedule of a rectified flow. Options that bend its grid of times are none of ours."""
    import diffusers

    if index["_class_name"] != "DiTPipeline":
        raise AttarError(
            f"`prior` {source}: a {index['_class_name']} with {FLOW}; of rectified flows only DiTs are supported"
        )
    with opening(source, index["_class_name"]):
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(source, subfolder="scheduler")
    schedule, plain = schedule_of(scheduler), diffusers.FlowMatchEulerDiscreteScheduler().config
    assert schedule.scheduler is not None, "it names its scheduler"
    odd = [f"{field} {value!r}" for field, value in schedule.scheduler[1].items() if value != plain.get(field)]
    if odd:
        raise AttarError(
            f"`prior` {source}: scheduler/scheduler_config.json has {', '.join(odd)}; of {FLOW} only the plain one, of "
            f"{TIMES} times, is supported"
        )
    return schedule
