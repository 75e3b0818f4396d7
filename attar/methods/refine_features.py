"""What a network makes of views at several depths: the features by which refinement compares images."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from attar.core.errors import AttarError

Features = Callable[[Tensor], list[Tensor]]
"""Views (N, 3, H, W) to features (N, D), one for each depth."""
GRID = 4
"""Maps are compared at 4 x 4 places at most."""


def features_of(network: nn.Module, depths: int) -> Features:
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
