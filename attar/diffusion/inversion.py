"""Inversion: clean latents taken to the noise that DDIM would take back to them, plainly or exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from attar.diffusion.guidance import guided
from attar.diffusion.schedule import Denoiser, ddim_move
from attar.diffusion.watched import Watched


@dataclass(frozen=True)
class FixedPoint:
    """How a step of DDIM is solved backwards: Anderson's iteration (1965; Walker and Ni, 2011), each latent's own."""

    tolerance: float = 1e-4
    """A latent is done when another iteration would move it by so much of its norm, or less."""
    iterations: int = 30
    """At most so many, for each step; the best is kept."""
    memory: int = 5
    """How many earlier iterations the next one is extrapolated from."""


@dataclass(frozen=True, eq=False)
class Inverted:
    """Where latents are after a step of an inversion."""

    t: int
    z: Tensor
    """(N, C, H, W)."""
    residual: Tensor | None
    """(N,): by how much of its norm another iteration would move each latent; None of plain inversion."""


def invert(
    denoiser: Denoiser,
    z: Tensor,
    y: Tensor,
    times: Iterable[int],
    *,
    guidance: float = 1.0,
    clean_time: int = -1,
    exact: FixedPoint | None = None,
    step: Callable[[int], None] | None = None,
) -> Tensor:
    """Clean latents z (N, C, H, W) taken through rising `times`, to the last of them; see `inverted`."""
    for at in inverted(denoiser, z, y, times, guidance=guidance, clean_time=clean_time, exact=exact):
        z = at.z
        if step is not None:
            step(at.t)
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

    Plain DDIM inversion evaluates the network at the time it goes to, on the latents it comes from (D3HR, section 3.2
    and its code); so it undoes `sample` only as steps grow. An `exact` one finds the latents that the step of `sample`
    would bring back: it evaluates the network on them. Times at or below `clean_time` are where z already is.

    Raises:
        NotFinite: an output of the denoiser was NaN or infinite, or the latents are; after the last step.
    """
    denoiser = watched = Watched(denoiser)
    at, noise = clean_time, None
    for t in times:
        if t <= at:
            continue
        come, go = denoiser.schedule.abar(at), denoiser.schedule.abar(t)
        if exact is None:
            z, residual = ddim_move(z, guided(denoiser, z, t, y, guidance), come, go), None
        else:
            z, noise, residual = _solved(_Step(denoiser, z, y, t, guidance, come, go), noise, exact)
        at = t
        yield Inverted(t, z, residual)
    watched.check(z)


@dataclass(frozen=True, eq=False)
class _Step:
    """The equation of one exact step: latents at t that a step of DDIM takes to `z`."""

    denoiser: Denoiser
    z: Tensor
    y: Tensor
    t: int
    guidance: float
    come: float
    go: float

    def noise(self, x: Tensor, rows: Tensor) -> Tensor:
        """The noise that the network sees in some rows, if their latents at t were x."""
        return guided(self.denoiser, x, self.t, self.y[rows], self.guidance)

    def moved(self, noise: Tensor, rows: Tensor) -> Tensor:
        """Those rows of z taken to t along this noise."""
        return ddim_move(self.z[rows], noise, self.come, self.go)


def _solved(step: _Step, noise: Tensor | None, how: FixedPoint) -> tuple[Tensor, Tensor, Tensor]:
    """The latents of a step, the noise that the network sees in them, and each one's residual (N,).

    Begins along the `noise` of the step before; only latents that are not done yet are evaluated again.
    """
    rows = torch.arange(len(step.z), device=step.z.device)
    guess = step.z if noise is None else step.moved(noise, rows)
    best, heard = guess.clone(), torch.zeros_like(guess)
    residual = torch.full((len(guess),), float("inf"), device=guess.device)
    tried: list[tuple[Tensor, Tensor]] = []
    for _ in range(how.iterations):
        seen = step.noise(guess, rows)
        image = step.moved(seen, rows)
        gap = image - guess
        size = _norm(gap) / _norm(guess)
        better = size < residual[rows]
        best[rows[better]], heard[rows[better]], residual[rows[better]] = image[better], seen[better], size[better]
        left = ~(size <= how.tolerance)
        if not left.any():
            break
        rows = rows[left]
        tried = [(one[left], other[left]) for one, other in [*tried, (image, gap)][-how.memory - 1 :]]
        guess = _extrapolated(tried)
    return best, heard, residual


def _extrapolated(tried: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The mixture of the images (N, C, H, W) tried so far whose gaps (N, C, H, W) cancel best, row by row."""
    image, gap = tried[-1]
    if len(tried) == 1:
        return image
    gaps = torch.stack([(gap - earlier).flatten(1) for _, earlier in tried[:-1]], 1)
    images = torch.stack([(image - earlier).flatten(1) for earlier, _ in tried[:-1]], 1)
    products, aims = ((gaps @ other.mT).double().cpu() for other in (gaps, gap.flatten(1)[:, None]))
    scale = products.diagonal(dim1=1, dim2=2).mean(1).clamp(min=torch.finfo(torch.float64).tiny)
    ridge = 1e-6 * scale[:, None, None] * torch.eye(len(tried) - 1, dtype=torch.float64)
    weights = torch.linalg.solve_ex(products + ridge, aims).result.float().to(gap.device)
    return image - (weights * images).sum(1).view_as(image)


def _norm(z: Tensor) -> Tensor:
    return z.flatten(1).norm(dim=1)
