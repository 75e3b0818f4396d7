"""Networks of rectified flow among the others: each is called as one of velocity, and its weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from attar.diffusion.straight import velocity


def set_straight(transformer: Any) -> None:
    """Marks a diffusers network as one of a straight path; its copies are marked, too, and its files say nothing."""
    transformer.on_straight_path = True


def output_of(transformer: Any, network: Callable[[Tensor, Tensor], Tensor], z: Tensor, times: Tensor) -> Tensor:
    """`network(z, times)` of this transformer, or, of one of a straight path, the velocity that follows from it."""
    if getattr(transformer, "on_straight_path", False):
        return velocity(network, z, times)
    return network(z, times)
