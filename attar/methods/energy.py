"""Gradients of energies of latents, for guides without a closed form."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

_threads = cache(ThreadpoolController)


def gradient(energy: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The gradient of an energy at a tensor, also in inference mode.

    It is computed in float64 on one thread of the CPU, the same whatever the device and the batch. What else the energy
    looks at must be there, too (`given`).
    """
    with torch.inference_mode(False), torch.enable_grad(), _threads().limit(limits=1):
        x = given(at).requires_grad_()
        (slope,) = torch.autograd.grad(energy(x), x)
    return slope.to(at)


def given(tensor: Tensor) -> Tensor:
    """A copy as energies take it: float64, on the CPU, fit for gradients."""
    with torch.inference_mode(False):
        return tensor.to("cpu", torch.float64, copy=True)
