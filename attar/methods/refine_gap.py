"""What refinement makes small: the gap between the mean features of images and those of a class's real images.

A network's features are what it makes of views at several depths (`features_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attar.core.errors import AttarError
from attar.training.augment import Augmentation, Draw, apply

FeatureExtractor = Callable[[Tensor], list[Tensor]]
"""Views (N, 3, H, W) to features (N, D), one for each depth."""
GRID = 4
"""Maps are compared at 4 x 4 places at most."""
TINY = 1e-8
"""The least spread that a gap is measured in: that of equal images is 0."""


def features_of(network: nn.Module, depths: int) -> FeatureExtractor:
    """Gives the input of a network's last linear layer, then the last map of each size, smallest first.

    A map that is that input itself does not count.

    Raises:
        AttarError: it has no linear layer.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise AttarError(f"refine.networks: no linear layer ends a {type(network).__name__}; choose others")
    last = layers[-1]
    ends: list[Tensor] = []
    maps: dict[int, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if module is last:
            ends.append(inputs[0].flatten(1))
        elif output.ndim == 4:
            maps[output.shape[2]] = output

    for module in network.modules():
        module.register_forward_hook(keep)

    def features(views: Tensor) -> list[Tensor]:
        network(views)
        end = ends.pop()
        others = [maps[side] for side in sorted(maps) if maps[side][0].numel() != end.shape[1]]
        maps.clear()
        return [end, *(F.adaptive_avg_pool2d(map, min(map.shape[2], GRID)).flatten(1) for map in others[: depths - 1])]

    return features


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
