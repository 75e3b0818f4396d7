"""D3HR, section 3.4: group sampling. Of many groups drawn from a class's Gaussian the best is kept.

`matched` is our own alternative: one draw, moved and scaled until it matches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from attar.core.errors import AttarError
from attar.methods.d3hr.scores import ScoreFunction

Glance = Callable[[Tensor], float]
"""The lowest score of the groups made of some noise (M, n, C, H, W), to within `MARGIN` of itself."""

CHUNK = 2**22
"""How many numbers the groups hold that are drawn at once."""
CACHED = 2**18
"""How many they hold that are scored at once on the CPU, so that its cache holds them: twice as fast."""
MARGIN = 1e-3
"""Relative: how far a score on an accelerator may lie from the CPU's. Float32 sums differ by about 1e-6."""
REFERENCE_DRAW = 10_000
"""Groups that the authors' code draws from one seed."""


def search(
    mean: Tensor,
    std: Tensor,
    n: int,
    draws: Iterable[tuple[int, int]],
    score: ScoreFunction,
    glance: Glance | None = None,
) -> Tensor:
    """The best of many groups of n latents drawn from N(mean, std^2), (C, H, W) each: (n, C, H, W).

    Groups are drawn and scored in pieces of bounded memory, on one thread of the CPU, so that the same group wins
    everywhere: a `glance` only spares the CPU the pieces that cannot hold the best.

    Args:
        draws: (seed, how many groups are drawn from it).
        glance: see `elsewhere`.

    Raises:
        AttarError: no group has a finite score, because the moments are not finite.
    """
    best, lowest = mean.expand(n, *mean.shape), float("inf")
    with _one_thread():
        for noise in _noise_in_pieces(n, mean.shape, draws):
            if glance is not None and glance(noise) > lowest + MARGIN * abs(lowest):
                continue
            groups = noise.mul_(std).add_(mean)  # z = mu + sigma e,  e ~ N(0, 1)
            parts = groups.flatten(2).split(max(1, CACHED // (n * mean.numel())))
            scores = torch.cat([score(part, mean.flatten(), std.flatten()) for part in parts])
            winner = int(scores.argmin())
            if scores[winner] < lowest:
                best, lowest = groups[winner].clone(), float(scores[winner])
    if lowest == float("inf"):
        raise AttarError("d3hr: the inverted latents' mean or variance is not finite; is the prior sound?")
    return best


def elsewhere(mean: Tensor, std: Tensor, score: ScoreFunction, device: torch.device) -> Glance:
    """A search's glance at its pieces on an accelerator."""
    mean, std = mean.to(device), std.to(device)

    def glance(noise: Tensor) -> float:
        groups = noise.to(device).mul(std).add_(mean)
        return float(score(groups.flatten(2), mean.flatten(), std.flatten()).min())

    return glance


def reference_draws(subsets: int) -> list[tuple[int, int]]:
    """The draws of the authors' code: seeds 0, 12345, 24690 ..., 10,000 groups of each, the same for every class."""
    return [(12345 * index, size) for index, size in enumerate(_pieces(subsets, REFERENCE_DRAW))]


def matched(mean: Tensor, std: Tensor, n: int, draw: torch.Generator) -> Tensor:
    """One drawn group of n latents (n, C, H, W), moved and scaled so that its mean and deviation equal the class's.

        z_i = mu + sigma (e_i - m) / s,   e_i ~ N(0, 1),   m = sum_i e_i / n,   s^2 = sum_i (e_i - m)^2 / n

    It is divided by n, not n - 1, since the n latents are all of the distilled class: so their mean squared norm is
    what the class's latents have on average, whatever n is.

    Two latents can do this in one way only: every feature of one lies a deviation above the mean or below it, and the
    other mirrors it; three have little more freedom. One latent has no deviation and would have to be the mean, whose
    norm no latent of the class has: it is a draw, scaled so that its own features deviate as the class does.
    """
    group = torch.randn(n, *mean.shape, generator=draw)
    if n > 1:
        group = group - group.mean(0)
        return mean + std * group / group.square().mean(0).sqrt()
    return mean + std * group / group.square().mean().sqrt()


def groups_at_once(n: int, values: int) -> int:
    """How many groups of n latents are drawn at once; `values` is the size of a latent."""
    return max(1, CHUNK // (n * values))


def _noise_in_pieces(n: int, shape: torch.Size, draws: Iterable[tuple[int, int]]) -> Iterator[Tensor]:
    """Standard normal noise (M, n, C, H, W) of every group of the draws, some groups at a time, in one buffer."""
    most = groups_at_once(n, shape.numel())
    buffer = torch.empty(most, n, *shape)
    for seed, count in draws:
        draw = torch.Generator("cpu").manual_seed(seed)
        for size in _pieces(count, most):
            yield buffer[:size].normal_(generator=draw)


def _pieces(total: int, most: int) -> list[int]:
    """`total` in pieces of `most`, the last of which is what remains."""
    return [min(most, total - begin) for begin in range(0, total, most)]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
