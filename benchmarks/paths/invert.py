"""Inversion: latents taken to noise by plain DDIM inversion without guidance, as D3HR's."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from attar.diffusion import grid, invert
from benchmarks.models import CLASSES, SHAPES, named, plain, prior
from benchmarks.timing import Case, Where

SIZES = {"tiny": (4, 2), "small": (32, 2), "full": (1, 3)}
"""Latents and network calls."""


def case(size: str, where: Where) -> Case:
    latents, steps = SIZES[size]
    side = SHAPES[size]["sample_size"]
    z = torch.randn(latents, 4, side, side, generator=torch.Generator().manual_seed(0)).to(where.device)
    y = torch.arange(latents, device=where.device) % CLASSES[size]
    ours, times = prior(size, where), grid(50)[1 : steps + 1]
    rows = sorted({min(latents, at_once) for at_once in (16, 64)})
    return Case(
        ours=lambda: invert(ours, z, y, times),
        best={
            f"{named(dtype)}, {count} latents": partial(loop, size, dtype, count, z, y, times, False)
            for dtype in where.formats
            for count in rows
        },
        straight=partial(loop, size, torch.float32, 1, z, y, times, True),
        work=f"{latents} latents, {steps} calls",
        flops=float(latents * steps * ours.row_flops()),
    )


@torch.inference_mode()
def loop(size: str, dtype: torch.dtype, at_once: int, z: Tensor, y: Tensor, times: list[int], doubled: bool) -> None:
    """The inverse steps over diffusers' network; `doubled`: the null label's pass is made though nothing is guided."""
    network, abar = (
        plain("transformer", size, z.device, dtype),
        prior(size, Where(z.device, torch.float32)).schedule.abar,
    )
    for some, labels in zip(z.split(at_once), y.split(at_once), strict=True):
        latents, before = some.to(dtype), -1
        given = torch.cat([labels, torch.full_like(labels, CLASSES[size])]) if doubled else labels
        for t in times:
            rows = torch.cat([latents, latents]) if doubled else latents
            noise = network(rows, torch.full((len(rows),), t, device=z.device), given).sample[: len(some), :4]
            at, to = abar(before), abar(t)
            latents = to**0.5 * (latents - (1 - at) ** 0.5 * noise) / at**0.5 + (1 - to) ** 0.5 * noise
            before = t
