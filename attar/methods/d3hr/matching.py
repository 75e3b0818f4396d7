"""Groups of starts that match a class's Gaussian N(mean, std^2): searched for among many, or made from one draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from attar.core.errors import AttarError
from attar.core.rng import noise

Metric = Callable[[Tensor, Tensor, Tensor], Tensor]
"""How far groups (M, n, D) are from a class's mean and deviation (D,): (M,), lower is better."""

Glance = Callable[[Tensor], float]
"""The lowest score of the groups made of some noise (M, n, C, H, W), to within `MARGIN` of itself."""

CHUNK = 2**22
"""Numbers in the groups that are drawn and scored at once."""
MARGIN = 1e-3
"""Relative: how far a score on an accelerator may lie from the CPU's. Float32 sums differ by about 1e-6."""
REFERENCE_DRAW = 10_000
"""Groups that the reference code draws from one seed."""
CLOUD = 64
"""Latents that stand for the class where groups are compared with it by transport."""


def search(
    mean: Tensor,
    std: Tensor,
    n: int,
    draws: Iterable[tuple[int, int]],
    metric: Metric,
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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        best, lowest = mean.expand(n, *mean.shape), float("inf")
        most = max(1, CHUNK // (n * mean.numel()))
        room = torch.empty(most, n, *mean.shape)
        for seed, count in draws:
            draw = torch.Generator("cpu").manual_seed(seed)
            for size in _pieces(count, most):
                noise = room[:size].normal_(generator=draw)
                if glance is not None and glance(noise) > lowest + MARGIN * abs(lowest):
                    continue
                groups = noise.mul_(std).add_(mean)
                scores = metric(groups.flatten(2), mean.flatten(), std.flatten())
                winner = int(scores.argmin())
                if scores[winner] < lowest:
                    best, lowest = groups[winner].clone(), float(scores[winner])
        if lowest == float("inf"):
            raise AttarError("d3hr: the inverted latents' mean or variance is not finite; is the prior sound?")
        return best
    finally:
        torch.set_num_threads(threads)


def elsewhere(mean: Tensor, std: Tensor, metric: Metric, device: torch.device) -> Glance:
    """A search's glance at its pieces on an accelerator."""
    there = mean.to(device), std.to(device)

    def glance(noise: Tensor) -> float:
        groups = noise.to(device).mul(there[1]).add_(there[0])
        return float(metric(groups.flatten(2), there[0].flatten(), there[1].flatten()).min())

    return glance


def _pieces(total: int, most: int) -> list[int]:
    """`total` in pieces of `most`, the last of which is what remains."""
    return [min(most, total - begin) for begin in range(0, total, most)]


def reference_draws(subsets: int) -> list[tuple[int, int]]:
    """The draws of the reference code: seeds 0, 12345, 24690 ..., 10,000 groups of each, the same for every class."""
    return [(12345 * index, size) for index, size in enumerate(_pieces(subsets, REFERENCE_DRAW))]


def paper_score(
    groups: Tensor,
    mean: Tensor,
    std: Tensor,
    skew_weight: float = 0.1,
    mean_weight: float = 1.0,
    std_weight: float = 1.0,
) -> Tensor:
    """The paper's score (section 3.4): weighted gaps of the means, of the deviations, and the skewness.

    Each is a Euclidean norm. As in the reference code the skewness is taken per latent, over its features standardised
    across the group. A group of one has no deviation: its score is the gap of the mean.
    """
    centre = groups.mean(1)
    gap = (centre - mean).norm(dim=1)
    n, features = groups.shape[1:]
    if n == 1:
        return gap
    offset = groups - centre[:, None]
    deviation = offset.square().sum(1).div(n - 1).sqrt()
    cubes = (offset / deviation.clamp(min=torch.finfo(groups.dtype).tiny)[:, None]).pow(3).sum(2)
    skewness = cubes * (features / ((features - 1) * (features - 2)))
    return mean_weight * gap + std_weight * (deviation - std).norm(dim=1) + skew_weight * skewness.norm(dim=1)


def kl_score(groups: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the class's diagonal Gaussian from the group's, as in the reference code.

    A group of one has no deviation: its score is the gap of the mean. Features that never vary do not count.
    """
    if groups.shape[1] == 1:
        return (groups[:, 0] - mean).norm(dim=1)
    varying = std > 0
    centre, spread = groups.mean(1)[:, varying], groups.std(1)[:, varying]
    mean, std = mean[varying], std[varying]
    return ((spread / std).log() + (std.square() + (mean - centre).square()) / (2 * spread.square()) - 0.5).sum(1)


def sinkhorn_score(groups: Tensor, mean: Tensor, std: Tensor, blur: float = 0.05, iterations: int = 50) -> Tensor:
    """Cost of the entropic transport (Cuturi, 2013) of a group to latents drawn from the class's Gaussian.

    Squared Euclidean costs per feature; `blur` times their mean is the regularisation. The reference code's own version
    takes the exponential of the costs twice, so that it does not compute a transport. A group of one is scored by the
    gap of the mean.
    """
    n, features = groups.shape[1:]
    if n == 1:
        return (groups[:, 0] - mean).norm(dim=1)
    cloud = mean + std * noise((CLOUD, features), "d3hr", "sinkhorn").to(groups.device)
    costs = torch.cdist(groups, cloud.expand(len(groups), -1, -1)).square() / features
    kernel = -costs / (blur * costs.mean((1, 2), keepdim=True))
    rows = groups.new_zeros(len(groups), n, 1)
    for _ in range(iterations):
        columns = -(kernel + rows).logsumexp(1, keepdim=True) - torch.tensor(float(CLOUD)).log()
        rows = -(kernel + columns).logsumexp(2, keepdim=True) - torch.tensor(float(n)).log()
    return ((kernel + rows + columns).exp() * costs).sum((1, 2))


def matched(mean: Tensor, std: Tensor, n: int, draw: torch.Generator) -> Tensor:
    """One drawn group of n latents (n, C, H, W), moved and scaled so that its mean and deviation equal the class's.

    The deviation is that of the n latents themselves (divided by n, not n - 1), since they are all of the distilled
    class: so their mean squared norm is what the class's latents have on average, whatever n is.

    Two latents can do this in one way only: every feature of one lies a deviation above the mean or below it, and the
    other mirrors it; three have little more freedom. One latent has no deviation and would have to be the mean, whose
    norm no latent of the class has: it is a draw, scaled so that its own features deviate as the class does.
    """
    group = torch.randn(n, *mean.shape, generator=draw)
    if n > 1:
        group = group - group.mean(0)
        return mean + std * group / group.square().mean(0).sqrt()
    return mean + std * group / group.square().mean().sqrt()
