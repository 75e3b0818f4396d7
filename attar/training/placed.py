"""Images for a training: all of them on the device while they fit, else fetched batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

SHARE = 4
"""Images may fill this part (a quarter) of a GPU's memory."""


class Rows(Protocol):
    """Images by their numbers, uint8 (n, H, W, 3): an array, or what decodes them."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Fetched:
    """Images that are brought to a device whenever they are asked for."""

    rows: Rows
    """Where they are."""
    device: torch.device
    """Where they are wanted."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor) -> Tensor:
        return torch.from_numpy(self.rows[index.cpu().numpy()]).to(self.device)


def placed(rows: Rows, device: torch.device) -> Tensor | Fetched:
    """All images as a tensor (N, H, W, 3) on the device; of a GPU only where they fill at most a quarter of it.

    An array that is mapped from a file stays there: reading it takes no memory that the system could not have back.
    """
    if not isinstance(rows, np.ndarray):
        return Fetched(rows, device)
    if device.type == "cpu" and isinstance(rows, np.memmap):
        return torch.from_numpy(rows)
    if device.type == "cuda" and rows.nbytes > torch.cuda.get_device_properties(device).total_memory // SHARE:
        return Fetched(rows, device)
    return torch.tensor(rows, device=device)
