"""Classifier-free guidance (Ho and Salimans, 2022): the one place where it is applied."""

from __future__ import annotations

import torch
from torch import Tensor

from attar.diffusion.schedule import Denoiser


def network_passes(guidance: float) -> int:
    """Network passes of one guided prediction: at guidance 1 the second one is not made."""
    return 1 if guidance == 1 else 2


def guided_raw(
    denoiser: Denoiser, z: Tensor, t: int, y: Tensor, guidance: float, channels: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """What the network predicts (N, C, H, W), noise or velocity, guided, and the raw learned variance.

    Guiding the velocity and guiding the noise are the same. Only the first `channels` are guided, or all if None. The
    variance is that of the labelled pass; it is None where the network learns none.
    """
    size, guides = z.shape[1], network_passes(guidance) == 2
    output, empty = denoiser.both(z, t, y) if guides else (denoiser(z, t, y), None)
    labelled, variance = output[:, :size], output[:, size:] if output.shape[1] > size else None
    if empty is None:
        return labelled, variance
    empty = empty[:, :size]
    # f(z, t, null) + guidance * (f(z, t, y) - f(z, t, null))
    if channels is None:
        return empty + guidance * (labelled - empty), variance
    moved = empty[:, :channels] + guidance * (labelled[:, :channels] - empty[:, :channels])
    return torch.cat([moved, labelled[:, channels:]], dim=1), variance


def guided_output(
    denoiser: Denoiser, z: Tensor, t: int, y: Tensor, guidance: float, channels: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """The guided prediction as noise (N, C, H, W), and the raw learned variance or None."""
    raw, variance = guided_raw(denoiser, z, t, y, guidance, channels)
    return denoiser.schedule.epsilon(raw, z, t), variance


def guided(denoiser: Denoiser, z: Tensor, t: int, y: Tensor, guidance: float, channels: int | None = None) -> Tensor:
    """The guided prediction as noise (N, C, H, W)."""
    return guided_output(denoiser, z, t, y, guidance, channels)[0]
