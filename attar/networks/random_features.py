"""What a ConvNet of random weights sees of images, and the linear classifier that learns from it: no training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attar.core.batching import in_batches
from attar.networks import build, suited_convnet
from attar.networks.depths import features_of

_Pixels = np.ndarray[Any, np.dtype[np.uint8]]

WIDTH, DEPTHS = 64, 3
"""The network's width, and how many of its maps, of different sizes, are features."""
RIDGE = 0.1
"""Weight of the ridge regression's penalty, features having length 1 about."""
BATCH = 64
"""Images in one call of the network; the number decides the last bits."""


class RandomFeatures:
    """Images (N, S, S, 3) uint8 as a network sees them, at several depths, which weigh alike."""

    rows: Tensor
    """Their features (N, D), each of mean 0 over these images, float64."""

    def __init__(self, images: _Pixels, seed: int) -> None:
        side = images.shape[1]
        network = build(f"{suited_convnet(side)}-w{WIDTH}", 2, side, seed)
        self._features = features_of(network.eval(), DEPTHS)
        seen = self._seen(images)
        sizes = [depth.shape[1] for depth in self._features(torch.zeros(1, 3, side, side))]
        weights = torch.cat([torch.full((size,), (size * len(sizes)) ** -0.5) for size in sizes])
        self._mean, self._scale = seen.mean(0), weights / (seen.std(0) + 1e-3)
        self.rows = self._scaled(seen)

    def of(self, images: _Pixels) -> Tensor:
        """The features (n, D) of other images, in the same scale."""
        return self._scaled(self._seen(images))

    def _scaled(self, seen: Tensor) -> Tensor:
        return ((seen - self._mean) * self._scale).double()

    @torch.inference_mode()
    def _seen(self, images: _Pixels) -> Tensor:
        def rows(part: Tensor) -> Tensor:
            return torch.cat(self._features(part.permute(0, 3, 1, 2).float() / 127.5 - 1), 1)

        return in_batches(rows, BATCH, torch.from_numpy(images))


def scores(known: Tensor, labels: Tensor, asked: Tensor, classes: int) -> Tensor:
    """What ridge regression on features (n, D) of known labels (n,) says of others (N, D): (N, classes).

    There may be no known image of some of the classes.
    """
    aims = F.one_hot(labels, classes).double() - 1 / classes
    penalty = RIDGE * torch.eye(len(known), dtype=torch.float64)
    weights = known.T @ torch.linalg.solve(known @ known.T + penalty, aims)
    return asked @ weights


def sureness(rows: Tensor, labels: Tensor) -> Tensor:
    """By how much each image's class (N,) scores above the best other one, where one half judges the other.

    Every other image of a class is in the same half.
    """
    classes = int(labels.max() + 1)
    judged = torch.empty(len(rows), classes, dtype=torch.float64)
    half = torch.zeros(len(rows), dtype=torch.bool)
    for label in labels.unique():
        half[(labels == label).nonzero()[::2, 0]] = True
    for side in (half, ~half):
        judged[~side] = scores(rows[side], labels[side], rows[~side], classes)
    own = judged.gather(1, labels[:, None])[:, 0]
    return own - judged.scatter(1, labels[:, None], -torch.inf).amax(1)
