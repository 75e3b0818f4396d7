"""Schedules, time grids, sampling and inversion: pure functions on tensors.

Times are integers 0 ... 999 of the training schedule; a larger time is noisier. Below the grid lies the clean image; as
some reference codes put it elsewhere, its time is a field: -1 is alpha-bar = 1, t >= 0 is alpha-bar(t).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from attar.errors import AttarError

SPACINGS = ("leading", "trailing")


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


@dataclass(frozen=True)
class Sampler:
    """How starts are denoised: owned by the method, part of its identity."""

    solver: str = "ddim"
    steps: int = 50
    guidance: float = 4.0
    guided_channels: int | None = None
    """Guide the first so many channels only (original DiT and Minimax: 3); None guides all (diffusers, D3HR)."""
    spacing: str = "leading"
    clean_time: int = -1
    """The time that stands for the clean image: -1 is alpha-bar = 1 (D3HR's code: 1)."""

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise AttarError(f"sampler.solver {self.solver!r}: choose one of {', '.join(SOLVERS)}")
        check_grid("sampler", self.steps, self.spacing)


@dataclass(frozen=True, eq=False)
class Schedule:
    """The forward process z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) noise, and what the network predicts."""

    alphas_cumprod: Tensor
    """abar, (T,), float32, on the CPU."""
    prediction: str = "epsilon"
    """`epsilon` or `v_prediction`, as in diffusers."""

    def __post_init__(self) -> None:
        if self.prediction not in ("epsilon", "v_prediction"):
            raise AttarError(f"prediction type {self.prediction!r} is not supported: epsilon or v_prediction")

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

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


def check_grid(owner: str, steps: int, spacing: str) -> None:
    """Raises AttarError where no time grid can be made of these fields of `owner`."""
    if not 1 <= steps <= 1000:
        raise AttarError(f"{owner}.steps {steps}: choose 1 to 1000")
    if spacing not in SPACINGS:
        raise AttarError(f"{owner}.spacing {spacing!r}: choose one of {', '.join(SPACINGS)}")


def grid(steps: int, spacing: str = "leading", total: int = 1000) -> list[int]:
    """`steps` rising times, in diffusers' conventions: leading 0, 20 ... 980; trailing 19, 39 ... 999 (50 of 1000)."""
    stride = total // steps
    leading = [i * stride for i in range(steps)]
    return leading if spacing == "leading" else [round((i + 1) * total / steps) - 1 for i in range(steps)]


def guided(denoiser: Denoiser, z: Tensor, t: int, y: Tensor, guidance: float, channels: int | None = None) -> Tensor:
    """Predicted noise with classifier-free guidance; at guidance 1 the second network pass is not made."""
    noise = denoiser.schedule.epsilon(denoiser(z, t, y), z, t)
    if guidance == 1:
        return noise
    empty = denoiser.schedule.epsilon(denoiser(z, t, torch.full_like(y, denoiser.null)), z, t)
    if channels is None:
        return empty + guidance * (noise - empty)
    pushed = empty[:, :channels] + guidance * (noise[:, :channels] - empty[:, :channels])
    return torch.cat([pushed, noise[:, channels:]], dim=1)


def ddim_move(z: Tensor, noise: Tensor, abar_from: float, abar_to: float) -> Tensor:
    """One step of the deterministic process, in either direction (DDIM, Song et al. 2021, equation 12 with sigma 0)."""
    clean = (z - (1 - abar_from) ** 0.5 * noise) / abar_from**0.5
    return abar_to**0.5 * clean + (1 - abar_to) ** 0.5 * noise


@torch.inference_mode()
def sample(
    denoiser: Denoiser,
    z: Tensor,
    t: int,
    y: Tensor,
    sampler: Sampler,
    step: Callable[[int], None] | None = None,
) -> Tensor:
    """Denoises latents z (N, C, H, W) from time t to the clean image, for prior labels y (N,).

    `t` must be a time of the sampler's grid, so that nothing is denoised from another time than it was made for.
    `step(t)` is called after each step.

    Raises:
        AttarError: t does not lie on the sampler's grid.
    """
    times = grid(sampler.steps, sampler.spacing, len(denoiser.schedule))
    if t not in times:
        near = min(times, key=lambda known: abs(known - t))
        raise AttarError(f"time {t} is not on the sampler's grid of {sampler.steps} steps; the nearest is {near}")
    return SOLVERS[sampler.solver](denoiser, z, times[: times.index(t) + 1][::-1], y, sampler, step)


def _ddim(
    denoiser: Denoiser,
    z: Tensor,
    times: list[int],
    y: Tensor,
    sampler: Sampler,
    step: Callable[[int], None] | None,
) -> Tensor:
    abar = denoiser.schedule.abar
    for t, below in zip(times, [*times[1:], sampler.clean_time], strict=True):
        noise = guided(denoiser, z, t, y, sampler.guidance, sampler.guided_channels)
        z = ddim_move(z, noise, abar(t), abar(max(below, sampler.clean_time)))
        if step is not None:
            step(t)
    return z


SOLVERS = {"ddim": _ddim}


@torch.inference_mode()
def invert(
    denoiser: Denoiser,
    z: Tensor,
    y: Tensor,
    times: Iterable[int],
    *,
    guidance: float = 1.0,
    clean_time: int = -1,
    step: Callable[[int], None] | None = None,
) -> Tensor:
    """Plain DDIM inversion: clean latents z (N, C, H, W) taken through rising `times`, to the last of them.

    Each step evaluates the network at the time it goes to, on the latents it comes from (D3HR, section 3.2 and its
    code); so it inverts `sample` only as steps grow. Times at or below `clean_time` are where z already is.
    """
    at = clean_time
    for t in times:
        if t <= at:
            continue
        z = ddim_move(z, guided(denoiser, z, t, y, guidance), denoiser.schedule.abar(at), denoiser.schedule.abar(t))
        at = t
        if step is not None:
            step(t)
    return z
