"""The built-in solvers, each a walk down a list of times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from attar.core.errors import AttarError
from attar.diffusion.guidance import guided_output, guided_raw
from attar.diffusion.schedule import Denoiser, ddim_move

Noise = Callable[[int], Tensor]
"""Standard normal noise (N, C, H, W) for the step that leaves time t, float32 on the CPU, each row drawn by its key."""


@dataclass(frozen=True, eq=False)
class Move:
    """A step of a walk, before its noise is added: what a guide sees of it."""

    left: int
    """Steps that come after it: the respaced index i of DDPM, from steps - 1 down to 0."""
    t: int
    """The time that it leaves."""
    abar: float
    """alpha-bar at t."""
    z: Tensor
    """The latents at t (N, C, H, W)."""
    clean: Tensor
    """The clean latents that the prior predicts, x0 (N, C, H, W)."""
    noise: Tensor
    """The noise that it predicts (N, C, H, W)."""
    deviation: Tensor | float
    """sigma_t, that of the step's noise: of DDPM where the solver draws none."""
    y: Tensor
    """Prior labels (N,)."""
    abar_next: float = 1.0
    """alpha-bar at the time that it goes to."""
    draws: bool = True
    """Whether the solver draws noise, and so forgets in part what a guide did in earlier steps."""

    def of(self, rows: slice) -> Move:
        """The same step of some of its rows."""
        deviation = self.deviation[rows] if isinstance(self.deviation, Tensor) else self.deviation
        z, clean, noise, y = (tensor[rows] for tensor in (self.z, self.clean, self.noise, self.y))
        return replace(self, z=z, clean=clean, noise=noise, deviation=deviation, y=y)


Shift = Callable[[Move], Tensor]
"""What is added to the mean of the next latents (N, C, H, W); rows must not depend on one another."""


@dataclass(frozen=True, eq=False)
class Walk:
    """One batch on its way to the clean image: what every solver is given."""

    denoiser: Denoiser
    y: Tensor
    """Prior labels (N,)."""
    guidance: Callable[[int], float]
    """The guidance at each time."""
    channels: int | None
    """How many channels are guided; None: all."""
    times: Sequence[int]
    """Falling, from the start's own time."""
    clean_time: int
    noise: Noise | None
    step: Callable[[int], None]
    guide: Shift | None = None

    def guided(
        self, mean: Tensor, z: Tensor, t: int, noise: Tensor, to: float, deviation: Tensor | float | None = None
    ) -> Tensor:
        """The mean of the latents after the step that leaves t, moved by the guide, if there is one.

        `to` is abar at the next time. Without a `deviation` it is that of DDPM's posterior.
        """
        if self.guide is None:
            return mean
        at, left = self.denoiser.schedule.abar(t), len(self.times) - 1 - self.times.index(t)
        clean = (z - (1 - at) ** 0.5 * noise) / at**0.5
        sigma = ((1 - at / to) * (1 - to) / (1 - at)) ** 0.5 if deviation is None else deviation
        draws = deviation is not None
        return mean + self.guide(Move(left, t, at, z, clean, noise, sigma, self.y, to, draws))

    def output(self, z: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
        """Guided noise (N, C, H, W) and the raw learned variance, if there is one."""
        return guided_output(self.denoiser, z, t, self.y, self.guidance(t), self.channels)

    def raw(self, z: Tensor, t: int) -> Tensor:
        """What the network predicts (N, C, H, W), noise or velocity, guided."""
        return guided_raw(self.denoiser, z, t, self.y, self.guidance(t), self.channels)[0]

    def moves(self) -> list[tuple[int, float, float]]:
        """(t, abar at t, abar at the next lower time) of every step; the last ends at the clean image."""
        abar, clean = self.denoiser.schedule.abar, self.clean_time
        below = [*self.times[1:], clean]
        return [(t, abar(t), abar(max(to, clean))) for t, to in zip(self.times, below, strict=True)]

    def drawn(self, z: Tensor, t: int) -> Tensor:
        """The step's noise, on z's device."""
        if self.noise is None:
            raise AttarError("this solver draws noise at every step: give `sample` a `noise`")
        return self.noise(t).to(z.device)


def ddim(walk: Walk, z: Tensor) -> Tensor:
    """DDIM without noise (Song et al., 2021)."""
    for t, at, to in walk.moves():  # abar at t and at the next time
        noise = walk.output(z, t)[0]
        z = walk.guided(ddim_move(z, noise, at, to), z, t, noise, to)
        walk.step(t)
    return z


def ddpm(walk: Walk, z: Tensor) -> Tensor:
    """Ancestral sampling on the respaced process, x0 not clipped (Ho et al., 2020; Nichol and Dhariwal, 2021).

    A learned variance interpolates between the logarithms of the posterior variance (-1) and beta (1); without one the
    posterior variance is taken, as diffusers does. The last step draws no noise.
    """
    for t, at, to in walk.moves():
        noise, raw = walk.output(z, t)
        beta = 1 - at / to
        clean = (z - (1 - at) ** 0.5 * noise) / at**0.5
        # the mean of q(z_to | z_t, z_0 = clean)
        mean = beta * to**0.5 / (1 - at) * clean + (1 - to) * (1 - beta) ** 0.5 / (1 - at) * z
        if t == walk.times[-1]:
            z = walk.guided(mean, z, t, noise, to, 0.0)
        else:
            deviation = _deviation(raw, beta, at, to)
            z = walk.guided(mean, z, t, noise, to, deviation) + deviation * walk.drawn(z, t)
        walk.step(t)
    return z


def _deviation(raw: Tensor | None, beta: float, at: float, to: float) -> Tensor | float:
    """The deviation of a step's noise.

    It is computed in float64, so that vectorised and scalar exponentials round to the same float32 in every row.
    """
    posterior = beta * (1 - to) / (1 - at)
    if raw is None:
        return posterior**0.5
    share = (raw.double() + 1) / 2
    return (0.5 * (share * math.log(beta) + (1 - share) * math.log(posterior))).exp().float()


def dpm_plus_plus(walk: Walk, z: Tensor) -> Tensor:
    """DPM-Solver++ 2M (Lu et al., 2022, algorithm 2): second order, but for the first step and the last."""
    before: tuple[Tensor, float] | None = None
    for t, at, to in walk.moves():
        noise, _ = walk.output(z, t)
        clean = (z - (1 - at) ** 0.5 * noise) / at**0.5
        last = t == walk.times[-1]
        h = _log_snr(to) - _log_snr(at)
        ahead = clean
        if before is not None and not last:
            ratio = h / (2 * before[1])  # h_i / (2 h_(i-1))
            ahead = (1 + ratio) * clean - ratio * before[0]
        # sigma_to / sigma_t z - alpha_to (e^-h - 1) x_0
        mean = ((1 - to) / (1 - at)) ** 0.5 * z - to**0.5 * math.expm1(-h) * ahead
        z = walk.guided(mean, z, t, noise, to)
        before = (clean, h)
        walk.step(t)
    return z


def _log_snr(abar: float) -> float:
    """Half the logarithm of the signal-to-noise ratio; infinite at the clean image."""
    return math.inf if abar == 1 else 0.5 * math.log(abar / (1 - abar))
