"""Copies to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """The same on a device. A copy to a CUDA device is not waited for: memory that is not pinned was read by then.

    Others are waited for: one to Metal may read memory that is free again (pytorch/pytorch#189690), and one to the CPU
    may not be there yet.
    """
    return values.to(device, non_blocking=device.type == "cuda")
