"""Sampling in 12 steps of DPM-Solver++ spaced in log-SNR (`exemplars`, docs/exemplars.md), beside 50 steps of DDIM.

Full: a quarter of the steps of each.
"""

from __future__ import annotations

from functools import partial

import torch

from attar.diffusion import Sampler, sample, sampling_times
from benchmarks.models import CLASSES, SHAPES, named, prior
from benchmarks.paths.sample import GUIDANCE, loop
from benchmarks.timing import Case, Where

SIZES = {"tiny": (4, 2, 8), "small": (32, 12, 50), "full": (1, 3, 12)}
"""Images, our steps and those of the others."""


def case(size: str, where: Where) -> Case:
    images, few, many = SIZES[size]
    side = SHAPES[size]["sample_size"]
    z = torch.randn(images, 4, side, side, generator=torch.Generator().manual_seed(0)).to(where.device)
    y = torch.arange(images, device=where.device) % CLASSES[size]
    ours = prior(size, where)
    sampler = Sampler(solver="dpm++", spacing="log-snr", steps=few, guidance=GUIDANCE)
    start = sampling_times(sampler, ours)[-1]
    return Case(
        ours=lambda: sample(ours, z, start, y, sampler),
        best={named(dtype): partial(loop, size, dtype, images, z, y, many) for dtype in where.formats},
        straight=partial(loop, size, torch.float32, 1, z, y, many),
        work=f"{images} images, {few} steps, the others {many}",
        flops=2.0 * images * few * ours.row_flops(),
    )
