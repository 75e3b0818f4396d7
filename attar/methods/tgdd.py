"""TGDD (ECCV 2026): MGD3 with anchors in place of modes.

Written from a short description, without the paper or its code: each image is drawn, as MGD3 draws it (`mgd3`), to the
mean of the 10 to 20 latents of a cluster that are nearest to its centre (`Anchors`). What the description leaves open
is a field, with MGD3's value where MGD3 has one. The TGDD of AAAI 2026 is another method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attar.core.errors import AttarError
from attar.methods.d4m import Prototypes
from attar.methods.kmeans import LatentRows, Parts, nearest_in_clusters, rows_at
from attar.methods.latent_rows import LatentShape
from attar.methods.mgd3 import MGD3


@dataclass(frozen=True)
class Anchors(Prototypes):
    """The mean of each cluster's anchors: those of its latents that are nearest to its centroid."""

    anchors: int = 15
    """Anchors of a cluster: 10 to 20 are described. A smaller cluster has all of its latents for anchors, and its mean
    is the mode of MGD3; that anchors are sought within the cluster is our choice."""

    def _prototypes(self, latents: Parts, compared: Parts, centroids: LatentRows, shape: LatentShape) -> LatentRows:
        """mean over the anchors a of cluster k of z_a, for each k; a centroid without latents stays."""
        means = super()._prototypes(latents, compared, centroids, shape).copy()
        chosen = nearest_in_clusters(compared, centroids, self.anchors)
        places = sorted(place for own in chosen for place in own)
        row_of = dict(zip(places, rows_at(latents, places), strict=True))
        for cluster, own in enumerate(chosen):
            if own:
                means[cluster] = np.mean([row_of[place] for place in own], axis=0, dtype=np.float64)
        return means

    # Checks of the settings

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.anchors < 1:
            raise AttarError(f"fit.anchors {self.anchors}: at least 1")


@dataclass(frozen=True)
class TGDD(MGD3):
    """Samples of the prior, each drawn towards the mean of its own cluster's anchors.

    Guide, sampler and k-means are those of `mgd3`: their settings are not described.
    """

    fit: Anchors = Anchors(algorithm="full", posterior="mean")
    """The anchors' means, one for each image, of k-means clusters of all of a class's latents in memory."""
