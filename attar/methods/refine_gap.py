"""What refinement makes small: the gap between the mean features of images and those of a class's real images.

A network's features are what it makes of views at several depths (attar/networks/depths.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attar.core.errors import AttarError
from attar.networks.depths import FeatureExtractor, features_of
from attar.training.augment import Augmentation, Draw, apply

TINY = 1e-8
"""The least spread that a gap is measured in: that of equal images is 0."""


def check_depths(name: str, network: nn.Module, side: int, depths: int) -> None:
    """Raises AttarError where a network has fewer depths for images of `side` x `side` pixels."""
    with torch.no_grad():
        found = len(features_of(network.eval(), depths)(torch.zeros(2, 3, side, side)))
    if found < depths:
        raise AttarError(
            f"refine.depths {depths}: {name} has {found} at {side} pixels; choose that many, or other refine.networks"
        )


@dataclass(frozen=True, eq=False)
class Aim:
    """What real images are like, at one depth of a network."""

    mean: Tensor
    """Mean of their features, (D,)."""
    spread: Tensor
    """Their mean squared distance from it, ()."""


def gap(aims: Sequence[Aim], means: Sequence[Tensor]) -> Tensor:
    """The mean over depths of the squared distance of means (D,), in units of the spread of real images.

        1/L sum over depths of  |mean f(ours) - mean f(real)|^2 / mean |f(real) - mean f(real)|^2

    So it does not depend on how a network scales its features. For the mean of n random real images it is about 1 / n.
    """
    return torch.stack(
        [(mean - aim.mean).square().sum() / aim.spread.clamp_min(TINY) for aim, mean in zip(aims, means, strict=True)]
    ).mean()


def seen(
    features: FeatureExtractor, shared: Draw, how: Augmentation, device: torch.device, images: Tensor
) -> list[Tensor]:
    """The features of images (N, S, S, 3), from 0 to 255, all of which are augmented by the one draw."""
    same = shared.of(torch.zeros(len(images), dtype=torch.long))
    return features(apply(images.to(device), same, how))


@torch.no_grad()
def aims_of(network: nn.Module, see: FeatureExtractor, real: Tensor) -> list[Aim]:
    """What real images are like. Leaves the network as in a test, with their statistics in its batch norms."""
    for layer in network.eval().modules():
        if isinstance(layer, _BatchNorm):
            layer.momentum = 1.0
            layer.train()
    means = [(features, features.mean(0)) for features in see(real)]
    network.eval()
    return [Aim(mean, (features - mean).square().sum(1).mean()) for features, mean in means]
