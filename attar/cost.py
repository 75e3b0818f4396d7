"""What a run will cost, before it starts, and what it has cost, when it is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from attar.diffusion import grid
from attar.driver import candidates_key, refined_key
from attar.job import Job
from attar.methods.method import Method


def remaining(job: Job, method: Method, ipcs: Sequence[int]) -> str:
    """The work that is not yet in the store, and about how long it takes on this device, in words.

    The time is that of the network, measured by one call of a tile.
    """
    groups = method.fit.groups(job.labels)
    unfitted = [g for g in groups if method.fit.learns and not job.store.has("fit", job.fit_key(method.fit, g))]
    fitting = sum(method.fit.passes(job, group) for group in unfitted)
    images = sum(
        method.select.candidates(ipc)
        for ipc in ipcs
        for label in job.labels
        if not job.store.has("candidates", candidates_key(job, method, label, method.select.candidates(ipc)))
    )
    sampling = images * _passes_per_image(job, method)
    rate = _passes_per_second(job)
    hours = (fitting + sampling) / rate / 3600
    told = f"{hours * 60:.1f} minutes" if hours < 2 else f"{hours:.1f} hours"
    return (
        f"{fitting + sampling:,} network passes ({fitting:,} to fit, {sampling:,} to sample {images:,}), about {told}"
    )


def spent(job: Job, method: Method, ipc: int) -> dict[str, float]:
    """Seconds by stage, summed over what the set was made from, whichever run made it."""
    if method.sampler is None:
        return {}
    count = method.select.candidates(ipc)
    keys = {"candidates": [candidates_key(job, method, label, count) for label in job.labels]}
    if method.fit.learns:
        keys["fit"] = [job.fit_key(method.fit, group) for group in method.fit.groups(job.labels)]
    if method.refine is not None:
        keys["refined"] = [refined_key(job, method, label, ipc) for label in job.labels]
    return {kind: round(sum(job.store.seconds(kind, key) for key in of), 3) for kind, of in keys.items()}


def _passes_per_image(job: Job, method: Method) -> int:
    sampler: Any = method.sampler
    start = getattr(method.fit, "time", None)
    times = grid(sampler.steps, sampler.spacing, len(job.prior.schedule))
    steps = len(times) if start is None else times.index(start) + 1
    return steps * (1 if sampler.guidance == 1 else 2)


def _passes_per_second(job: Job) -> float:
    prior = job.prior
    z = torch.zeros(prior.tile, *prior.codec.shape, device=prior.device)
    y = torch.zeros(prior.tile, dtype=torch.long, device=prior.device)
    with torch.inference_mode():
        float(prior(z, 500, y).sum())
        begun = time.monotonic()
        float(prior(z, 500, y).sum())
    return prior.tile / (time.monotonic() - begun)
