"""FLOPs of a network, counted on the meta device: nothing is computed, and no second copy of its weights is made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

_COUNTED: dict[Hashable, int] = {}


def structure(network: nn.Module) -> Hashable:
    """What a network's FLOPs and speed follow from: its layers, their settings, the shapes of its weights."""
    settings = tuple(str(layer.config) for layer in network.modules() if hasattr(layer, "config"))
    weights = (*network.parameters(), *network.buffers())
    return type(network), str(network), settings, tuple((tuple(x.shape), x.dtype) for x in weights)


def flops_of(network: nn.Module, *inputs: Tensor, method: str = "forward") -> int:
    """FLOPs of a method of a network, for inputs on the meta device; counted once in a process for each structure."""
    key = (structure(network), method, tuple((tuple(x.shape), x.dtype) for x in inputs))
    if key not in _COUNTED:
        shapes = on_meta(network).float()
        _COUNTED[key] = counted_flops(lambda: getattr(shapes, method)(*inputs))
    return _COUNTED[key]


def on_meta(network: nn.Module) -> Any:
    """A copy whose weights have shapes but no numbers."""
    numbers = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), False) for p in network.parameters()}
    return copy.deepcopy(network, {**numbers, **{id(b): torch.empty_like(b, device="meta") for b in network.buffers()}})


def counted_flops(call: Callable[[], Any]) -> int:
    """FLOPs of the matrix products and convolutions of a call; two for each multiplication."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()
