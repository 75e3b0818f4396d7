"""The forward process, what the network predicts of it, and the times at which it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import Any, Protocol

import torch
from torch import Tensor

from attar.core.errors import AttarError, suggestion
from attar.core.finite import finite
from attar.diffusion.straight import FLOW

SPACINGS = ("leading", "trailing", "linspace")


class Denoiser(Protocol):
    """A network with its schedule: what sampling and inversion need of a prior."""

    @property
    def schedule(self) -> Schedule: ...

    @property
    def null(self) -> int:
        """The label that stands for no class."""
        ...

    def __call__(self, z: Tensor, t: int, y: Tensor) -> Tensor:
        """Raw output (N, C or 2C, H, W) for latents (N, C, H, W) at time t and prior labels (N,)."""
        ...

    def both(self, z: Tensor, t: int, y: Tensor) -> tuple[Tensor, Tensor]:
        """The raw outputs for the labels and for the null label, in one call where that changes no row's bytes."""
        ...


def in_two_calls(denoiser: Denoiser, z: Tensor, t: int, y: Tensor) -> tuple[Tensor, Tensor]:
    """`Denoiser.both` of a network whose rows' bytes depend on the rows beside them."""
    return denoiser(z, t, y), denoiser(z, t, torch.full_like(y, denoiser.null))


@dataclass(frozen=True, eq=False)
class Schedule:
    """The forward process z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) noise, and what the network predicts."""

    alphas_cumprod: Tensor
    """abar, (T,), float32 (of a straight path float64), on the CPU."""
    prediction: str = "epsilon"
    """`epsilon` or `v_prediction`, as in diffusers."""
    scheduler: tuple[str, Mapping[str, Any]] | None = None
    """The diffusers scheduler that the checkpoint names, class and configuration: what the solver `checkpoint` is."""

    def __post_init__(self) -> None:
        if self.prediction not in ("epsilon", "v_prediction"):
            raise AttarError(f"prediction type {self.prediction!r} is not supported: epsilon or v_prediction")
        finite(self.alphas_cumprod, "the schedule of the noise (scheduler_config.json)")
        if not float(self.alphas_cumprod.min()) > 0:
            raise AttarError("schedules that end at zero signal (rescale_betas_zero_snr) are not supported")

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def straight(self) -> bool:
        """Whether it is the path of a rectified flow, divided by its length (attar.diffusion.straight)."""
        return self.scheduler is not None and self.scheduler[0] == FLOW

    @property
    def betas(self) -> Tensor:
        """(T,), float64."""
        abar = self.alphas_cumprod.double()
        return 1 - abar / torch.cat([torch.ones_like(abar[:1]), abar[:-1]])

    def abar(self, t: int) -> float:
        """alpha-bar at time t; 1 at every negative time."""
        return 1.0 if t < 0 else float(self.alphas_cumprod[t])

    def noised(self, z: Tensor, t: int, noise: Tensor) -> Tensor:
        """The forward process: clean latents (N, C, H, W) taken to time t with the given noise."""
        abar = self.abar(t)
        return abar**0.5 * z + (1 - abar) ** 0.5 * noise

    def epsilon(self, output: Tensor, z: Tensor, t: int) -> Tensor:
        """The noise that a raw output predicts, learned variance dropped: (N, C, H, W)."""
        output = output[:, : z.shape[1]]
        if self.prediction == "epsilon":
            return output
        abar = self.abar(t)
        return abar**0.5 * output + (1 - abar) ** 0.5 * z

    def even_times(self, t: int, steps: int) -> list[int]:
        """At most `steps` rising times up to t, evenly spaced in log-SNR, the lowest at a hundredth of the schedule."""
        abar = self.alphas_cumprod.double()
        levels = (abar / (1 - abar)).log()
        wanted = torch.linspace(float(levels[t]), float(levels[min(t, len(self) // 100)]), steps, dtype=torch.float64)
        return sorted({int((levels - level).abs().argmin()) for level in wanted})


def check_grid(owner: str, steps: int, spacing: str) -> None:
    """Raises AttarError where no time grid can be made of these fields of `owner`."""
    if not 1 <= steps <= 1000:
        raise AttarError(f"{owner}.steps {steps}: choose 1 to 1000")
    if spacing not in SPACINGS:
        hint = suggestion(spacing, SPACINGS)
        raise AttarError(f"{owner}.spacing {spacing!r}{hint}: choose one of {', '.join(SPACINGS)}")


def check_on_grid(name: str, t: int, times: Sequence[int], of: str) -> None:
    """Raises AttarError, which names the nearest, for a time that is none of `times`, those of a grid."""
    if t not in times:
        near = min(times, key=lambda other: abs(other - t))
        raise AttarError(f"{name} {t} is not on {of}; the nearest is {near}")


def grid(steps: int, spacing: str = "leading", total: int = 1000) -> list[int]:
    """`steps` rising times. Of 50 in 1000: leading 0, 20 ... 980; trailing 19, 39 ... 999; linspace 0, 20 ... 999.

    leading and trailing are diffusers'. linspace is the respacing of ADM and the original DiT, which adds the stride
    up and rounds: diffusers' differs from it by one at some ties, where `steps` is odd.
    """
    if spacing == "leading":
        return [i * (total // steps) for i in range(steps)]
    if spacing == "trailing":
        return [round((i + 1) * total / steps) - 1 for i in range(steps)]
    stride = (total - 1) / max(steps - 1, 1)
    return [round(time) for time in accumulate(repeat(stride, steps - 1), initial=0.0)]


def ddim_move(z: Tensor, noise: Tensor, abar_from: float, abar_to: float) -> Tensor:
    """One step of the deterministic process, in either direction (DDIM, Song et al. 2021, equation 12 with sigma 0)."""
    clean = (z - (1 - abar_from) ** 0.5 * noise) / abar_from**0.5
    return abar_to**0.5 * clean + (1 - abar_to) ** 0.5 * noise
