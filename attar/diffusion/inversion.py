"""Inversion: clean latents taken to the noise that DDIM would take back to them, plainly or exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from attar.diffusion.guidance import guided
from attar.diffusion.schedule import Denoiser, ddim_move
from attar.diffusion.watched_denoiser import Watched


@dataclass(frozen=True)
class FixedPoint:
    """How a step of DDIM is solved backwards: Anderson's iteration (1965; Walker and Ni, 2011), each latent's own."""

    tolerance: float = 1e-4
    """A latent is done when another iteration would move it by at most this share of its norm."""
    iterations: int = 30
    """The most iterations of a step; the best one is kept."""
    memory: int = 5
    """How many earlier iterations the next one is extrapolated from."""


@dataclass(frozen=True, eq=False)
class Inverted:
    """Where latents are after a step of an inversion."""

    t: int
    """The time of the latents."""
    z: Tensor
    """The latents (N, C, H, W)."""
    residual: Tensor | None
    """(N,): the share of its norm that another iteration would move each latent by; None of plain inversion."""


def invert(
    denoiser: Denoiser,
    z: Tensor,
    y: Tensor,
    times: Iterable[int],
    *,
    guidance: float = 1.0,
    clean_time: int = -1,
    exact: FixedPoint | None = None,
) -> Tensor:
    """Clean latents z (N, C, H, W) taken through rising `times`, to the last of them; see `inverted`."""
    for latents in inverted(denoiser, z, y, times, guidance=guidance, clean_time=clean_time, exact=exact):
        z = latents.z
    return z


@torch.inference_mode()
def inverted(
    denoiser: Denoiser,
    z: Tensor,
    y: Tensor,
    times: Iterable[int],
    *,
    guidance: float = 1.0,
    clean_time: int = -1,
    exact: FixedPoint | None = None,
) -> Iterator[Inverted]:
    """Clean latents z (N, C, H, W) of prior labels y (N,) on their way through rising `times`: after each step.

    With x_0(z, eps) = (z - sqrt(1 - abar_s) eps) / sqrt(abar_s), a step from time s to time t is

        plain   z_t = sqrt(abar_t) x_0(z_s, eps) + sqrt(1 - abar_t) eps,   eps = eps(z_s, t, y)
        exact   z_t = sqrt(abar_t) x_0(z_s, eps) + sqrt(1 - abar_t) eps,   eps = eps(z_t, t, y)

    Plain inversion (D3HR, section 3.2, and its code) undoes `sample` only as steps grow. The exact z_t is a fixed point
    of its equation, and the step of `sample` takes it back to z_s. Times at or below `clean_time` are skipped.

    Raises:
        NotFinite: an output of the denoiser was NaN or infinite, or the latents are; after the last step.
    """
    denoiser = watched = Watched(denoiser)
    time, noise = clean_time, None
    for t in times:
        if t <= time:
            continue
        abar_from, abar_to = denoiser.schedule.abar(time), denoiser.schedule.abar(t)
        if exact is None:
            z, residual = ddim_move(z, guided(denoiser, z, t, y, guidance), abar_from, abar_to), None
        else:
            z, noise, residual = _solved(_Step(denoiser, z, y, t, guidance, abar_from, abar_to), noise, exact)
        time = t
        yield Inverted(t, z, residual)
    watched.check(z)


@dataclass(frozen=True, eq=False)
class _Step:
    """The equation of one exact step, x = F(x): x are the latents at t that a step of DDIM takes to `z`."""

    denoiser: Denoiser
    z: Tensor
    y: Tensor
    t: int
    guidance: float
    abar_from: float
    abar_to: float

    def noise(self, x: Tensor, rows: Tensor) -> Tensor:
        """eps(x, t, y): the noise that the network predicts for these rows, if their latents at t were x."""
        return guided(self.denoiser, x, self.t, self.y[rows], self.guidance)

    def moved(self, noise: Tensor, rows: Tensor) -> Tensor:
        """These rows of z taken to t along this noise: F(x), of noise = eps(x, t, y)."""
        return ddim_move(self.z[rows], noise, self.abar_from, self.abar_to)


def _solved(step: _Step, noise: Tensor | None, how: FixedPoint) -> tuple[Tensor, Tensor, Tensor]:
    """The latents of a step, the noise that the network predicts for them, and each one's residual (N,).

    Begins along the `noise` of the step before; only latents that are not done yet are evaluated again.
    """
    rows = torch.arange(len(step.z), device=step.z.device)
    x = step.z if noise is None else step.moved(noise, rows)
    best, best_noise = x.clone(), torch.zeros_like(x)
    residual = torch.full((len(x),), float("inf"), device=x.device)
    history: list[tuple[Tensor, Tensor]] = []
    for _ in range(how.iterations):
        predicted = step.noise(x, rows)
        image = step.moved(predicted, rows)  # F(x)
        gap = image - x
        size = _norm(gap) / _norm(x)  # |F(x) - x| / |x|
        better = size < residual[rows]
        places = rows[better]
        best[places], best_noise[places], residual[places] = image[better], predicted[better], size[better]
        left = ~(size <= how.tolerance)
        if not left.any():
            break
        rows = rows[left]
        recent = [*history, (image, gap)][-how.memory - 1 :]
        history = [(earlier_image[left], earlier_gap[left]) for earlier_image, earlier_gap in recent]
        x = _extrapolated(history)
    return best, best_noise, residual


def _extrapolated(history: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Anderson's next x, row by row: the mixture of images F(x_i) whose gaps g_i = F(x_i) - x_i cancel best.

    x = F(x_k) - sum_i w_i (F(x_k) - F(x_i)),   w minimises |g_k - sum_i w_i (g_k - g_i)|^2,   slightly ridged
    """
    image, gap = history[-1]
    if len(history) == 1:
        return image
    gaps = torch.stack([(gap - earlier).flatten(1) for _, earlier in history[:-1]], 1)
    images = torch.stack([(image - earlier).flatten(1) for earlier, _ in history[:-1]], 1)
    products, aims = ((gaps @ other.mT).double().cpu() for other in (gaps, gap.flatten(1)[:, None]))
    scale = products.diagonal(dim1=1, dim2=2).mean(1).clamp(min=torch.finfo(torch.float64).tiny)
    ridge = 1e-6 * scale[:, None, None] * torch.eye(len(history) - 1, dtype=torch.float64)
    weights = torch.linalg.solve_ex(products + ridge, aims).result.float().to(gap.device)
    return image - (weights * images).sum(1).view_as(image)


def _norm(z: Tensor) -> Tensor:
    return z.flatten(1).norm(dim=1)
