"""What a training leaves as it was in its process, and the file from which an interrupted one goes on."""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from attar.keys import Part, seed_of
from attar.store import note_seconds, replacing


class Checkpoint:
    """A file in a store's scratch folder from which an interrupted training goes on; written every so often."""

    def __init__(self, scratch: Path, seconds: float = 30.0) -> None:
        self.scratch, self.file, self.seconds = scratch, scratch / ".checkpoint", seconds
        self.kept = time.monotonic()

    def keep(self, step: int, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Writes all that a training must find again, if it is time."""
        now = time.monotonic()
        if now - self.kept < self.seconds:
            return
        state = {"step": step, "network": network.state_dict(), "optimiser": optimiser.state_dict()}
        generators = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]
        with replacing(self.file) as temporary:
            torch.save({**state, "generators": generators}, temporary)
        note_seconds(self.scratch, now - self.kept)
        self.kept = now

    def restore(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """The steps already done: 0, and nothing is changed, where there is no file."""
        if not self.file.exists():
            return 0
        state = torch.load(self.file, weights_only=True, map_location="cpu")
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["generators"][0])
        if len(state["generators"]) > 1 and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["generators"][1])
        return int(state["step"])


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
