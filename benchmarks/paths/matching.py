"""D3HR's search: of many groups of ten latents the one that is nearest to its class."""

from __future__ import annotations

import torch

from attar.methods.d3hr.matching import search
from attar.methods.d3hr.scores import paper_score
from benchmarks.timing import Case, Where

SIZES = {"tiny": (10, 20), "small": (512, 500), "full": (4096, 100_000)}
"""Numbers of a latent, and groups."""
IPC = 10


def case(size: str, where: Where) -> Case:
    features, groups = SIZES[size]
    mean, std = torch.zeros(1, 1, features), torch.ones(1, 1, features)

    def plain(at_once: int) -> None:
        """The score of the paper, written down for a batch of groups."""
        lowest, m, s = float("inf"), mean.flatten().to(where.device), std.flatten().to(where.device)
        for _ in range(groups // at_once):
            z = m + s * torch.randn(at_once, IPC, features, device=where.device)
            centre, spread = z.mean(1), z.std(1)
            skew = (((z - centre[:, None]) / spread[:, None]) ** 3).mean(2)
            score = (centre - m).norm(dim=1) + (spread - s).norm(dim=1) + 0.1 * skew.norm(dim=1)
            lowest = min(lowest, float(score.min()))

    return Case(
        ours=lambda: search(mean, std, IPC, [(0, groups)], paper_score),
        best={
            f"{at_once} groups": lambda n=at_once: plain(n) for at_once in sorted({min(groups, n) for n in (50, 250)})
        },
        straight=lambda: plain(1),
        work=f"{groups} groups of {IPC} latents of {features} numbers",
        moved=4.0 * groups * IPC * features,
    )
