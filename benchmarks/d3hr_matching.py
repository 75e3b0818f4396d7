"""The time of d3hr's search beside that of closed-form matching, and how well either group matches its class.

    python benchmarks/d3hr_matching.py                           # latents of 4 x 32 x 32, N(0, 1)
    python benchmarks/d3hr_matching.py runs/d3hr/ipc-010         # the statistics kept with a set

The time is processor time on one thread, for one class. The search is timed on --subsets groups and its time is given
for 100,000, the paper's number; its score and norms are those of the groups that were drawn. Norms are root mean
squares, relative to what the class's latents have on average.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

PAPER = 100_000


def statistics(folder: str | None) -> tuple[Tensor, Tensor]:
    """Mean and deviation (C, H, W) of the first class of a set, or of a standard normal."""
    from safetensors.torch import load_file

    if folder is None:
        return torch.zeros(4, 32, 32), torch.ones(4, 32, 32)
    arrays = load_file(Path(folder) / "statistics.safetensors")
    return arrays["mean"][0], arrays["std"][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--ipcs", default="1,2,3,10,50")
    parser.add_argument("--subsets", type=int, default=2000)
    given = parser.parse_args()
    from attar.methods.d3hr.matching import matched, search
    from attar.methods.d3hr.scores import paper_score

    torch.set_num_threads(1)
    mean, std = statistics(given.folder)
    expected = (mean.square() + std.square()).sum().sqrt()
    for n in map(int, given.ipcs.split(",")):
        ways = {
            "search": (partial(search, draws=[(0, given.subsets)], metric=paper_score), PAPER / given.subsets),
            "moments": (partial(matched, draw=torch.Generator().manual_seed(0)), 1.0),
        }
        for name, (way, times) in ways.items():
            begun = time.process_time()
            group = way(mean, std, n)
            seconds = (time.process_time() - begun) * times
            score = paper_score(group[None].flatten(2), mean.flatten(), std.flatten())
            norm = group.square().sum((1, 2, 3)).mean().sqrt() / expected
            print(f"IPC {n}, {name}: {seconds:.4f} s, score {score.item():.2f}, norm {norm:.3f}", flush=True)


if __name__ == "__main__":
    main()
