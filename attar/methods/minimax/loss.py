"""Minimax Diffusion, section 3.2: the loss of a step of the fine-tuning.

L = L_diffusion + w_r representativeness + w_d diversity        (+ w_s mean |x0|, of attar.methods.rsm)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attar.core.rng import generator
from attar.diffusion.loss import Forward
from attar.methods.minimax.criteria import CriterionMeans, Memory, diversity, representativeness
from attar.methods.minimax.settings import TuneSettings
from attar.priors.training.latent_set import LatentSet

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, eq=False)
class MinimaxLoss:
    """The loss of each step; a step draws from its own key, and only the memories carry over to the next."""

    network: nn.Module
    """Called with noisy latents, times and prior labels."""
    forward: Forward
    """The prior's forward process and its training loss."""
    data: LatentSet
    """The latents of the group's real images."""
    y: Tensor
    """The prior's labels (classes,) of the data's, on the device."""
    null: int
    """The prior's label of no class."""
    fit: TuneSettings
    """The settings, among them the weights of the criteria, w_r and w_d."""
    real: Memory
    """M."""
    generated: Memory
    """D."""
    means: CriterionMeans
    """Means of the two criteria, unweighted."""
    helper: Accelerator
    """The Accelerator, for its number format."""

    def __call__(self, step: int) -> Tensor:
        z, labels, times, noise, y = self._drawn(step)
        # L_diffusion: the network's own training loss at z_t = sqrt(abar_t) z + sqrt(1 - abar_t) noise
        noisy = self.forward.noised(z, times, noise)
        with self.helper.autocast():
            output = self.network(noisy, times, y).float()
        loss = self.forward.terms(output, z, noisy, noise, times).loss.mean()
        # x0 = (z_t - sqrt(1 - abar_t) eps(z_t, t, y)) / sqrt(abar_t)
        clean = self.forward.clean(output, noisy, times)
        criteria = representativeness(clean, labels, self.real), diversity(clean, labels, self.generated)
        for weight, criterion in zip((self.fit.representativeness, self.fit.diversity), criteria, strict=True):
            if weight:
                loss = loss + weight * criterion
        if self.fit.sparsity:
            loss = loss + self.fit.sparsity * clean.abs().mean()
        self.means.add(*criteria)
        self.real.add(z, labels)
        self.generated.add(clean, labels)
        return loss

    def _drawn(self, step: int) -> tuple[Tensor, ...]:
        """Latents, their labels in the data, times, noise and the prior's labels of a step, on the device."""
        fit, draw = self.fit, generator(self.fit.seed, "minimax", step)
        picked = self.data.evenly(fit.batch, draw) if fit.balanced else self.data.in_turn(fit.batch, step, fit.seed)
        z, labels = self.data.take(picked, draw)
        times = self.forward.times(len(z), draw)
        noise = torch.randn(z.shape, generator=draw)
        dropped = torch.rand(len(z), generator=draw) < fit.label_dropout
        z, labels, times, noise, dropped = (part.to(self.y.device) for part in (z, labels, times, noise, dropped))
        return z, labels, times, noise, torch.where(dropped, self.null, self.y[labels])
