"""What a diffusion model is trained to do: the terms of its loss, per sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attar.diffusion.schedulers import schedule_of
from attar.diffusion.straight import logit_normal_times


class Terms(NamedTuple):
    """Each (N,), one value for each sample."""

    mse: Tensor
    """Mean squared error of the prediction."""
    vb: Tensor
    """The variational bound in bits per dimension, which trains the learned variance alone; 0 without one."""
    loss: Tensor
    """The weighted mse plus vb."""


@dataclass(frozen=True, eq=False)
class Forward:
    """The forward process of a training schedule, and the losses of a network that is to undo it.

    The hybrid loss of improved DDPM (Nichol and Dhariwal, ICML 2021, equations 15 and 16) with the mean's gradient
    stopped in the bound and the bound not rescaled, as DiT's and Minimax's `training_losses` compute it.
    """

    betas: Tensor
    """(T,), float64, on the device of the latents."""
    prediction: str = "epsilon"
    """`epsilon` or `v_prediction`."""
    straight: bool = False
    """Whether it is a rectified flow: the loss is that of noise - z, and times are logit-normal."""

    @cached_property
    def abar(self) -> Tensor:
        """alpha-bar (T,), float64."""
        return (1 - self.betas).cumprod(0)

    def times(self, count: int, draw: torch.Generator) -> Tensor:
        """The times (count,), int64, of a step of the training."""
        if self.straight:
            return logit_normal_times(count, draw)
        return torch.randint(len(self.betas), (count,), generator=draw)

    def noised(self, z: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """Clean latents (N, C, H, W) taken to times (N,)."""
        abar = self.abar[times]
        return _each(abar.sqrt()) * z + _each((1 - abar).sqrt()) * noise

    def clean(self, output: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """The clean latents (N, C, H, W) that a raw output (N, C or 2C, H, W) predicts, x0, not clipped."""
        predicted, abar = output[:, : noisy.shape[1]], self.abar[times]
        if self.prediction == "v_prediction":
            return _each(abar.sqrt()) * noisy - _each((1 - abar).sqrt()) * predicted
        return (noisy - _each((1 - abar).sqrt()) * predicted) / _each(abar.sqrt())

    def terms(
        self, output: Tensor, z: Tensor, noisy: Tensor, noise: Tensor, times: Tensor, min_snr: float | None = None
    ) -> Terms:
        """The loss of a raw output (N, C or 2C, H, W) for clean latents z, `noisy` = noised(z, times, noise).

        With `min_snr`, the mse is weighted by min(SNR, min_snr) / SNR, or / (SNR + 1) for v prediction (Hang et al.,
        ICCV 2023, equation 6), except on a straight path; 2C channels are the prediction and a learned range of the log
        variance.
        """
        channels = z.shape[1]
        predicted, abar = output[:, :channels], self.abar[times]
        target = noise
        if self.prediction == "v_prediction":
            target = _each(abar.sqrt()) * noise - _each((1 - abar).sqrt()) * z
        mse = (predicted - target).pow(2).mean((1, 2, 3))
        vb = torch.zeros_like(mse)
        if output.shape[1] == 2 * channels:
            vb = self._bound(predicted.detach(), output[:, channels:], z, noisy, times)
        return Terms(mse, vb, self._weight(abar, min_snr).float() * mse + vb)

    def _weight(self, abar: Tensor, min_snr: float | None) -> Tensor:
        if self.straight:  # that of an error of the velocity, which is one of noise - z times the path's length
            return (abar.sqrt() + (1 - abar).sqrt()) ** 2
        if min_snr is None:
            return torch.ones_like(abar)
        snr = abar / (1 - abar)
        return snr.clamp(max=min_snr) / (snr + (self.prediction == "v_prediction"))

    def _bound(self, predicted: Tensor, learned: Tensor, z: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """KL of the reverse step from the true posterior, or, at time 0, minus the log likelihood of 8-bit data."""
        of_clean, of_noisy, low, high = (_each(table[times]) for table in self._posterior)
        clean = self.clean(predicted, noisy, times)
        mean, true_mean = of_clean * clean + of_noisy * noisy, of_clean * z + of_noisy * noisy
        share = (learned + 1) / 2
        log_variance = share * high + (1 - share) * low
        gap = (true_mean - mean).pow(2)
        kl = 0.5 * (log_variance - low - 1 + (low - log_variance).exp() + gap * (-log_variance).exp())
        bits = torch.where(_each(times) == 0, _minus_log_likelihood(z, mean, 0.5 * log_variance), kl)
        return bits.mean((1, 2, 3)) / math.log(2)

    @cached_property
    def _posterior(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights of z_0 and z_t in the mean of q(z_{t-1} | z_t, z_0), its log variance, and log beta."""
        below = torch.cat([torch.ones_like(self.abar[:1]), self.abar[:-1]])
        variance = self.betas * (1 - below) / (1 - self.abar)
        variance = torch.cat([variance[1:2], variance[1:]])
        of_clean = self.betas * below.sqrt() / (1 - self.abar)
        of_noisy = (1 - below) * (1 - self.betas).sqrt() / (1 - self.abar)
        return of_clean, of_noisy, variance.log(), self.betas.log()


def forward_of(scheduler: Any, device: torch.device) -> Forward:
    """The forward process of a diffusers scheduler."""
    schedule = schedule_of(scheduler)
    betas = schedule.betas if schedule.straight else scheduler.betas.double()
    betas = betas.float() if device.type == "mps" else betas
    return Forward(betas.to(device), schedule.prediction, schedule.straight)


def _each(values: Tensor) -> Tensor:
    """(N,) as float32 (N, 1, 1, 1); integers stay as they are."""
    values = values.float() if values.is_floating_point() else values
    return values.view(-1, 1, 1, 1)


def _minus_log_likelihood(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-likelihood of values on a grid of 255 intervals from -1 to 1 under a Gaussian; its ends take the tails."""
    upper = torch.special.ndtr((z - mean + 1 / 255) * (-log_std).exp())
    lower = torch.special.ndtr((z - mean - 1 / 255) * (-log_std).exp())
    inside = torch.where(z < -0.999, upper, torch.where(z > 0.999, 1 - lower, upper - lower))
    return -inside.clamp(min=1e-12).log()
