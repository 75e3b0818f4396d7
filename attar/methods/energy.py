"""Gradients that guides move latents by: the same whatever the batch, and however many threads there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

_threads = cache(ThreadpoolController)


@contextmanager
def gradients() -> Iterator[None]:
    """Within it gradients are taken, also in inference mode: on one thread of a CPU, by deterministic kernels of a GPU.

    Few rows' last bits depend on the number of threads.
    """
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    with torch.inference_mode(False), torch.enable_grad(), _threads().limit(limits=1), flags:
        yield


def gradient(energy: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The gradient of an energy at a tensor, in float64 on the CPU; `given` brings what else it looks at there."""
    with gradients():
        x = given(at).requires_grad_()
        (slope,) = torch.autograd.grad(energy(x), x)
    return slope.to(at)


def given(tensor: Tensor) -> Tensor:
    """A copy as energies take it: float64, on the CPU, fit for gradients."""
    with torch.inference_mode(False):
        return tensor.to("cpu", torch.float64, copy=True)
