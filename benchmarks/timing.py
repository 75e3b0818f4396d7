"""One piece of work done in several ways, timed in turns."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

Work = Callable[[], object]
COPIED = 2**28
"""Bytes of the large copy."""


@dataclass(frozen=True)
class Where:
    """What the timings are made on."""

    device: torch.device
    dtype: torch.dtype
    """The number format that Attar is given; the plain loops try both and the faster one counts."""

    @property
    def formats(self) -> tuple[torch.dtype, ...]:
        """The number formats that plain loops try."""
        return torch.float32, torch.bfloat16


@dataclass(frozen=True)
class Case:
    """The same work in three ways."""

    ours: Work
    best: Mapping[str, Work]
    """The installed library's pipeline or a plain loop, by batch and number format; the fastest counts."""
    straight: Work
    """The straightforward way of the reference codes."""
    work: str
    """What is done, in words."""
    flops: float = 0.0
    """Of matrix products in our way; 0 where the work is none of these."""
    moved: float = 0.0
    """Bytes that our way must at least copy; 0 where that says nothing."""
    close: Work = field(default=lambda: None)
    """Ends what the ways have opened."""


def measured(case: Case, where: Where, rounds: int) -> dict[str, Any]:
    """Seconds of each way, and how many times as fast ours is: medians and the spread of interleaved rounds."""
    try:
        ways = {
            "ours": case.ours,
            **{f"best, {name}": way for name, way in case.best.items()},
            "straight": case.straight,
        }
        for way in ways.values():
            way()  # what is done once only: copies of networks, kernels, compilation
        again = {name: _seconds(way, where) for name, way in ways.items() if name.startswith("best")}
        best = min(again, key=lambda name: again[name])
        chosen = {name: ways[name] for name in ("ours", best, "straight")}
        seconds: dict[str, list[float]] = {name: [] for name in chosen}
        for _ in range(rounds):
            for name, way in chosen.items():
                seconds[name].append(_seconds(way, where))
    finally:
        case.close()
    least = {name: min(found) for name, found in seconds.items()}
    return {
        "work": case.work,
        "best": best.removeprefix("best, "),
        "rounds": rounds,
        "seconds": {"ours": least["ours"], "best": least[best], "straight": least["straight"]},
        "against best": _ratio(seconds[best], seconds["ours"]),
        "against straight": _ratio(seconds["straight"], seconds["ours"]),
        "of the ceiling": _share(case, least["ours"], where),
    }


def _ratio(theirs: list[float], ours: list[float]) -> list[float]:
    """Median, least and most of the rounds' ratios."""
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    return [statistics.median(ratios), min(ratios), max(ratios)]


def _share(case: Case, seconds: float, where: Where) -> float | None:
    if case.flops:
        return case.flops / seconds / product_rate(where.device, where.dtype)
    if case.moved:
        return case.moved / seconds / copy_rate(where.device)
    return None


def _seconds(way: Work, where: Where) -> float:
    """Seconds that passed; on one thread of a CPU those of the processor, so that other work does not enter."""
    clock = _processor_seconds if where.device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    _wait(where.device)
    begun = clock()
    way()
    _wait(where.device)
    return clock() - begun


def _processor_seconds() -> float:
    """Of this process and of the workers that it has waited for."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(of.ru_utime + of.ru_stime for of in used)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@cache
def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs in a second of a large matrix product, the best of five."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.ones(side, side, device=device, dtype=dtype)
    return 2 * side**3 / min(_seconds(lambda: a @ a, Where(device, dtype)) for _ in range(5))


@cache
def copy_rate(device: torch.device) -> float:
    """Bytes in a second of a large copy, the best of five."""
    a = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return COPIED / min(_seconds(lambda: b.copy_(a), Where(device, torch.uint8)) for _ in range(5))
