"""Copies to a device."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attar.core.copies import sent


class Recorded:
    """A tensor that says how it would be copied, for devices that are not here."""

    def to(self, device: torch.device, non_blocking: bool = False) -> tuple[str, bool]:
        return device.type, non_blocking


@pytest.mark.parametrize(("device", "free"), [("cuda:1", True), ("mps", False), ("cpu", False)])
def test_only_copies_to_cuda_are_not_waited_for(device: str, free: bool) -> None:
    values: Tensor = Recorded()  # type: ignore[assignment]
    assert sent(values, torch.device(device)) == (torch.device(device).type, free)
