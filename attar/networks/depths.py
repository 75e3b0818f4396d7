"""What a network makes of images at several depths."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from attar.core.errors import AttarError

FeatureExtractor = Callable[[Tensor], list[Tensor]]
"""Views (N, 3, H, W) to features (N, D), one for each depth."""
GRID = 4
"""Maps are compared at 4 x 4 places at most."""


def features_of(network: nn.Module, depths: int) -> FeatureExtractor:
    """Gives the input of a network's last linear layer, then the last map of each size, smallest first.

    A map that is that input itself does not count. A transformer, whose patches are as many from end to end, gives what
    blocks at even distances make of them instead, deepest first. A network that has fewer than `depths` gives all.

    Raises:
        AttarError: it has no linear layer.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise AttarError(f"refine.networks: no linear layer ends a {type(network).__name__}; choose others")
    last = layers[-1]
    ends: list[Tensor] = []
    maps: dict[int, Tensor] = {}
    rows: dict[nn.Module, Tensor] = {}
    transformer = sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 1

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if module is last:
            ends.append(inputs[0].flatten(1))
        elif isinstance(output, Tensor) and output.ndim == 4:
            maps[output.shape[2]] = output
        elif isinstance(output, Tensor) and output.ndim == 3 and transformer:
            rows[module] = output

    for module in network.modules():
        module.register_forward_hook(keep)

    def features(views: Tensor) -> list[Tensor]:
        network(views)
        end = ends.pop()
        others = [maps[side] for side in sorted(maps) if maps[side][0].numel() != end.shape[1]]
        others = _of_blocks(network, rows, depths) or others
        maps.clear()
        rows.clear()
        return [end, *(F.adaptive_avg_pool2d(map, min(map.shape[2], GRID)).flatten(1) for map in others[: depths - 1])]

    return features


def _of_blocks(network: nn.Module, rows: Mapping[nn.Module, Tensor], depths: int) -> list[Tensor]:
    """What blocks at even distances make of patches, as maps (N, D, H, W), deepest first; none: it has no blocks.

    The blocks are the longest list of modules that all give rows of tokens (N, T, D); of these, those of a class come
    before the patches.
    """
    lists = [list(module) for module in network.modules() if isinstance(module, (nn.Sequential, nn.ModuleList))]
    blocks = max((blocks for blocks in lists if blocks and all(block in rows for block in blocks)), key=len, default=[])
    ends = dict.fromkeys(len(blocks) * (depths - level) // depths for level in range(1, depths))
    return [_as_map(rows[blocks[end - 1]]) for end in ends if end]


def _as_map(tokens: Tensor) -> Tensor:
    side = math.isqrt(tokens.shape[1])
    return tokens[:, -(side**2) :].transpose(1, 2).unflatten(2, (side, side))
