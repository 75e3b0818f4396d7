"""k-means of latents that come in parts: D4M's prototypes."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from attar.methods.kmeans import streamed
from benchmarks.timing import Case, Where

SIZES = {"tiny": (40, 16, 2), "small": (2000, 512, 10), "full": (5000, 4096, 50)}
"""Latents, their numbers, and prototypes."""


def case(size: str, where: Where) -> Case:
    count, features, prototypes = SIZES[size]
    rows = np.random.default_rng(0).standard_normal((count, features), dtype=np.float32)
    parts = np.array_split(rows, -(-count // 512))

    def whole() -> None:
        """Once over all rows, in batches as large as in the other ways."""
        MiniBatchKMeans(prototypes, random_state=0, batch_size=prototypes, max_iter=1, n_init="auto").fit(rows)

    def straight() -> None:
        """The loop of D4M's code: latents gathered one by one, a partial fit whenever there are enough."""
        model = MiniBatchKMeans(prototypes, random_state=0, batch_size=prototypes, n_init="auto")
        gathered = []
        for row in rows:
            gathered.append(row[None])
            if len(gathered) == prototypes:
                model.partial_fit(np.vstack(gathered))
                gathered = []

    return Case(
        ours=lambda: streamed(parts, prototypes, prototypes, 0),
        best={"all in memory": whole},
        straight=straight,
        work=f"{count} latents of {features} numbers, {prototypes} prototypes",
        moved=float(rows.nbytes),
    )
