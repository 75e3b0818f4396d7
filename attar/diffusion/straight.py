"""Rectified flow (Liu et al., ICLR 2023), seen as velocity prediction: all that knows the one knows the other.

Its path is straight, z_t = (1 - s) z + s noise, s from 0 to 1, and its network predicts noise - z. Divided by its
length, r = sqrt((1 - s)^2 + s^2), it is a forward process like any other, with a velocity like any other:

    z_t / r = sqrt(abar) z + sqrt(1 - abar) noise,        abar = (1 - s)^2 / r^2
    sqrt(abar) noise - sqrt(1 - abar) z  =  (1 - 2 s) z_t / r + r (noise - z)

A step of DDIM on it is one of Euler on the straight path.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FLOW = "FlowMatchEulerDiscreteScheduler"
"""The diffusers scheduler by which a prior says that its path is straight."""
TIMES = 1000
LAST = 0.9995
"""The largest share of noise: at 1 no signal would be left, by which steps divide."""


def shares_of_noise(times: Tensor) -> Tensor:
    """s at whole times (N,), float32 or float64 as they are asked for: 0.001, 0.002 ... 0.999 and `LAST`."""
    times = times if times.is_floating_point() else times.float()
    return ((times + 1) / TIMES).clamp(max=LAST)


def straight_abar() -> Tensor:
    """alpha-bar (T,) of the path, divided by its length; float64, as it is 1 - 1e-6 at time 0."""
    share = shares_of_noise(torch.arange(TIMES, dtype=torch.float64))
    return (1 - share) ** 2 / ((1 - share) ** 2 + share**2)


def logit_normal_times(count: int, draw: torch.Generator) -> Tensor:
    """Times (count,), int64, whose shares of noise are logit-normal(0, 1) (Esser et al., ICML 2024, equation 19)."""
    return (torch.randn(count, generator=draw).sigmoid() * TIMES).long().clamp(max=TIMES - 1)


def velocity(network: Callable[[Tensor, Tensor], Tensor], z: Tensor, times: Tensor) -> Tensor:
    """The velocity (N, C, H, W) at times (N,) by a network of the straight path, for latents divided by its length.

    The network is called with latents on the path and 1000 s, and gives noise - z.
    """
    share = shares_of_noise(times)
    s = share.view(-1, 1, 1, 1)
    length = ((1 - s) ** 2 + s**2).sqrt()
    flow = network((length * z).to(z.dtype), TIMES * share)
    return (1 - 2 * s) * z.float() + length * flow.float()
