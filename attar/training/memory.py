"""What a training keeps in memory, counted on one pass of its network."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

COPIES = 4
"""Numbers that a training keeps for each weight, about: itself, its gradient, two averages."""


ON_THE_WAY = 2
"""What a pass and its gradients take on their way, in what is kept for the gradient, about (1.6 to 2.3 on a CPU)."""


def kept_for_gradient(forward: Callable[[], Tensor], rows: int) -> int:
    """Bytes of a row that a pass of this many rows keeps for the gradient: all that is no parameter, once."""
    from torch.autograd.graph import saved_tensors_hooks

    saved = dict[int, Tensor]()

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and not isinstance(tensor._base, nn.Parameter):
            saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        out = forward()
    del out
    return math.ceil(sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) / rows)
