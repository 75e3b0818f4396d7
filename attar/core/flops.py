"""FLOPs of a network, counted on the meta device: nothing is computed, and no second copy of its weights is made."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def on_meta(network: nn.Module) -> Any:
    """A copy whose weights have shapes but no numbers."""
    numbers = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), False) for p in network.parameters()}
    return copy.deepcopy(network, {**numbers, **{id(b): torch.empty_like(b, device="meta") for b in network.buffers()}})


def counted_flops(call: Callable[[], Any]) -> int:
    """FLOPs of the matrix products and convolutions of a call; two for each multiplication."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()
