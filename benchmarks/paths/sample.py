"""Sampling: DDIM at guidance 4 from noise, by a network of random weights."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from attar.diffusion import Sampler, sample, sampling_times
from benchmarks.models import CLASSES, SHAPES, named, plain, prior
from benchmarks.timing import Case, Where

SIZES = {"tiny": (4, 2), "small": (32, 2), "full": (1, 3)}
"""Images and steps."""
GUIDANCE = 4.0


def case(size: str, where: Where) -> Case:
    images, steps = SIZES[size]
    side = SHAPES[size]["sample_size"]
    z = torch.randn(images, 4, side, side, generator=torch.Generator().manual_seed(0)).to(where.device)
    y = torch.arange(images, device=where.device) % CLASSES[size]
    ours, sampler = prior(size, where), Sampler(steps=steps, guidance=GUIDANCE)
    start = sampling_times(sampler, ours)[-1]
    rows = sorted({min(images, at_once) for at_once in (16, 64, 128)})
    return Case(
        ours=lambda: sample(ours, z, start, y, sampler),
        best={
            f"{named(dtype)}, {count} images": partial(loop, size, dtype, count, z, y, steps)
            for dtype in where.formats
            for count in rows
        },
        straight=partial(loop, size, torch.float32, 1, z, y, steps),
        work=f"{images} images, {steps} steps",
        flops=2.0 * images * steps * ours.row_flops(),
    )


@torch.inference_mode()
def loop(size: str, dtype: torch.dtype, at_once: int, z: Tensor, y: Tensor, steps: int) -> None:
    """diffusers' DiTPipeline without its decoder: one doubled call a step."""
    network = plain("transformer", size, z.device, dtype)
    for some, labels in zip(z.split(at_once), y.split(at_once), strict=True):
        scheduler = DDIMScheduler(clip_sample=False)
        scheduler.set_timesteps(steps)
        both, latents = torch.cat([labels, torch.full_like(labels, CLASSES[size])]), some.to(dtype)
        for t in scheduler.timesteps:
            output = network(torch.cat([latents, latents]), t.expand(len(both)).to(z.device), both).sample
            labelled, empty = output[:, :4].chunk(2)
            latents = scheduler.step(empty + GUIDANCE * (labelled - empty), t, latents).prev_sample
