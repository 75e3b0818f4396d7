"""What whole runs would take on many GPUs: arithmetic from measured costs of single items, and a simulation beside it.

    python benchmarks/cluster.py

The arithmetic counts whole rounds of equal items. The simulation gives each free worker the next item, as Ray does;
items differ, some workers are slow, and workers die: an item whose worker died begins again, without its checkpoints,
after another worker has started. Prints the tables of docs/scale.md.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from math import ceil

PASSES = 1220.0
"""Passes of DiT-XL/2 at 256 pixels in a second, bfloat16: one H200 (docs/results.md); so are the next two."""
ENCODED, DECODED = 413.0, 168.0
SEARCH = 30.0
"""Seconds of one CPU thread that d3hr's search takes for a class at IPC 10."""
PASS_FLOPS, ENCODE_FLOPS = 0.229e12, 0.27e12
START = 60.0
"""Seconds in which a worker starts and loads its prior: our guess, with room."""
SPREAD = 0.2
"""Items differ: their times are lognormal, with this deviation of the logarithm and their mean."""
SLOW, SLOWED = 0.02, 2.0
"""The share of workers that are slow, and how many times as long they take."""
DEATHS = 1000.0
"""Hours of one GPU between two deaths of its worker, on average."""
LATENT, JPEG = 16 * 1024, 110_000
"""Bytes of a latent (mean and deviation, 4 x 32 x 32 bfloat16) and of an image of ImageNet."""


@dataclass(frozen=True)
class Data:
    """A data set of equal classes."""

    name: str
    classes: int
    images: int


@dataclass(frozen=True)
class Stage:
    """Items that do not need one another."""

    what: str
    items: int
    seconds: float
    """Of one item."""
    flops: float
    """Of all of them."""


DATA = (Data("ImageNet-1k", 1000, 1_281_167), Data("ImageNet-21k", 21_841, 14_197_122))


def stages(data: Data, method: str) -> list[Stage]:
    """The stages of a run at IPC 10: 50 guided steps, 12 classes in an item of sampling, the fit 62 passes an image."""
    each, made = data.images / data.classes, 10 * data.classes
    items = ceil(data.classes / 12)
    passes = 120 * 100
    sampling = passes / PASSES + (12 * SEARCH if method == "d3hr" else 0)
    found = [Stage("samples", items, sampling, made * 100 * PASS_FLOPS)]
    if method == "d3hr":
        flops = data.images * (ENCODE_FLOPS + 62 * PASS_FLOPS)
        found.insert(0, Stage("fit", data.classes, each / ENCODED + each * 62 / PASSES, flops))
    return found


def rounds(stage: Stage, workers: int) -> float:
    """Seconds of equal items on workers that are all alike and start at once."""
    return ceil(stage.items / workers) * stage.seconds


def simulated(stage: Stage, workers: int, draw: random.Random) -> float:
    """Seconds of a stage with slow workers, items that differ, and deaths."""
    speed = [SLOWED if draw.random() < SLOW else 1.0 for _ in range(workers)]
    free = [(START, worker) for worker in range(min(workers, stage.items))]
    left = [stage.seconds * draw.lognormvariate(-(SPREAD**2) / 2, SPREAD) for _ in range(stage.items)]
    last = 0.0
    while left:
        now, worker = heapq.heappop(free)
        item = left.pop()
        taken, death = item * speed[worker], draw.expovariate(1 / (DEATHS * 3600))
        if death < taken:
            left.append(item)
            heapq.heappush(free, (now + death + START, worker))
        else:
            last = max(last, now + taken)
            heapq.heappush(free, (now + taken, worker))
    return last


def words(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"


def main() -> None:
    print("| data, method | GPUs | arithmetic | simulated: median (worst) of 20 | of which decoding | FLOPs |")
    print("|---|---:|---:|---:|---:|---:|")
    for data in DATA:
        decoding = 10 * data.classes / DECODED
        for method in ("prior", "d3hr"):
            for workers in (8, 64, 512):
                plan = stages(data, method)
                told = sum(rounds(stage, workers) for stage in plan) + decoding
                draws = [random.Random(seed) for seed in range(20)]
                runs = sorted(sum(simulated(stage, workers, draw) for stage in plan) + decoding for draw in draws)
                flops = sum(stage.flops for stage in plan)
                found = f"{words(runs[len(runs) // 2])} ({words(runs[-1])})"
                row = (f"{data.name}, {method}", workers, words(told), found, words(decoding), f"{flops:.1e}")
                print(f"| {' | '.join(map(str, row))} |")
    print("\n| data | images read | latents in the cache | set of IPC 10, as PNG |")
    print("|---|---:|---:|---:|")
    for data in DATA:
        sizes = (data.images * JPEG, data.images * LATENT, 10 * data.classes * 120_000)
        print(f"| {data.name} | {' | '.join(f'{size / 1e9:,.1f} GB' for size in sizes)} |")


if __name__ == "__main__":
    main()
