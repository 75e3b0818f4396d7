"""D3HR, section 3.4: how far groups of latents are from their class's Gaussian N(mu, sigma^2); lower is better."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attar.core.rng import noise

ScoreFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Scores (M,) of groups (M, n, D) for a class's mean and deviation (D,)."""

CLOUD = 64
"""Latents that stand for the class where groups are compared with it by transport."""


def paper_score(
    groups: Tensor,
    mean: Tensor,
    std: Tensor,
    skew_weight: float = 0.1,
    mean_weight: float = 1.0,
    std_weight: float = 1.0,
) -> Tensor:
    """The paper's score (section 3.4): how far a group's mean, deviation and skewness are from the class's.

        L = w_mean |m - mu| + w_std |s - sigma| + w_skew |g|

    in Euclidean norms, where a group of z_1 ... z_n has the mean m and the deviation s, feature by feature. The
    skewness g has an entry for each latent, as in the authors' code: that of its D features, standardised by m and s.
    A group of one has no deviation: its score is |m - mu|.
    """
    centre = groups.mean(1)  # m = sum_i z_i / n
    mean_gap = (centre - mean).norm(dim=1)
    n, features = groups.shape[1:]
    if n == 1:
        return mean_gap
    offset = groups - centre[:, None]
    deviation = offset.square().sum(1).div(n - 1).sqrt()  # s^2 = sum_i (z_i - m)^2 / (n - 1)
    standardised = offset / deviation.clamp(min=torch.finfo(groups.dtype).tiny)[:, None]
    # g_i = D / ((D - 1) (D - 2)) sum_d ((z_id - m_d) / s_d)^3
    skewness = standardised.pow(3).sum(2) * (features / ((features - 1) * (features - 2)))
    return mean_weight * mean_gap + std_weight * (deviation - std).norm(dim=1) + skew_weight * skewness.norm(dim=1)


def kl_score(groups: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the class's diagonal Gaussian from the group's, as in the authors' code.

        sum_d  log(s_d / sigma_d) + (sigma_d^2 + (mu_d - m_d)^2) / (2 s_d^2) - 1/2

    A group of one has no deviation: its score is |m - mu|. Features that never vary do not count.
    """
    if groups.shape[1] == 1:
        return (groups[:, 0] - mean).norm(dim=1)
    varying = std > 0
    centre, spread = groups.mean(1)[:, varying], groups.std(1)[:, varying]
    mean, std = mean[varying], std[varying]
    return ((spread / std).log() + (std.square() + (mean - centre).square()) / (2 * spread.square()) - 0.5).sum(1)


def sinkhorn_score(groups: Tensor, mean: Tensor, std: Tensor, blur: float = 0.05, iterations: int = 50) -> Tensor:
    """Cost of the entropic transport (Cuturi, 2013) of a group to latents drawn from the class's Gaussian.

    The transport P minimises  sum_ij P_ij C_ij - e H(P)  between uniform weights; C_ij is the squared Euclidean
    distance per feature, and e is `blur` times its mean. A group of one is scored by |m - mu|.
    """
    n, features = groups.shape[1:]
    if n == 1:
        return (groups[:, 0] - mean).norm(dim=1)
    cloud = mean + std * noise((CLOUD, features), "d3hr", "sinkhorn").to(groups.device)
    costs = torch.cdist(groups, cloud.expand(len(groups), -1, -1)).square() / features
    kernel = -costs / (blur * costs.mean((1, 2), keepdim=True))
    rows = groups.new_zeros(len(groups), n, 1)
    for _ in range(iterations):  # Sinkhorn's iteration on log u and log v of P = u exp(-C / e) v
        columns = -(kernel + rows).logsumexp(1, keepdim=True) - torch.tensor(float(CLOUD)).log()
        rows = -(kernel + columns).logsumexp(2, keepdim=True) - torch.tensor(float(n)).log()
    return ((kernel + rows + columns).exp() * costs).sum((1, 2))
