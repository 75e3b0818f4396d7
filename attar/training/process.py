"""What a training leaves as it was in its process."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from attar.core.rng import Part, seed_of


@contextmanager
def seeded(device: torch.device, *key: Part) -> Iterator[None]:
    """Within it the global generators of the CPU and of `device` start from `key`; afterwards they are as before."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed_of(*key))
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed_of(*key))
        yield


@contextmanager
def memory_kept() -> Iterator[None]:
    """Within it, the process keeps what tensors free on the CPU for the next ones; afterwards the system gets it back.

    glibc maps every tensor above 32 MB anew, and clearing its pages takes longer than a layer's arithmetic. Does
    nothing where the C library is another.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc, (map_from, trim_from) = ctypes.CDLL(None), (-3, -1)  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
    libc.mallopt(map_from, 1 << 30)
    libc.mallopt(trim_from, (1 << 31) - 1)
    try:
        yield
    finally:
        libc.mallopt(map_from, 32 << 20)
        libc.mallopt(trim_from, 64 << 20)
        libc.malloc_trim(0)
