"""What a recipe's precision comes to on a device."""

from __future__ import annotations

from typing import Literal

import torch

from attar.core.batching import multiplies_bfloat16, resolve
from attar.training import Precision


def resolve_precision(
    device: str, asked: Literal["auto", "float32", "tf32", "float16", "bfloat16"]
) -> tuple[torch.device, Precision]:
    """The device that `device` means here, and the number format that is used on it; float32 for what it lacks.

    Raises:
        AttarError: there is no such device.
    """
    place, usual = resolve(device, "auto")
    wanted: Precision = asked if asked != "auto" else "bfloat16" if usual == torch.bfloat16 else "float32"
    return place, wanted if wanted in formats(place) else "float32"


def formats(device: torch.device) -> tuple[Precision, ...]:
    """What a device computes in: TF32 needs an NVIDIA GPU of compute capability 8.0, float16 any GPU."""
    new = multiplies_bfloat16(device)
    if device.type != "cuda":
        return ("float32", "bfloat16") if new else ("float32",)
    return ("float32", "float16", "tf32", "bfloat16") if new else ("float32", "float16")
