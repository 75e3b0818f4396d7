"""The two criteria of Minimax Diffusion over per-class memories, as its paper's section 3.2 states them.

    representativeness   max over the network of  min over m in the real memory       cos(x0, m)
    diversity            min over the network of  max over d in the generated memory  cos(x0, d)

x0 is the clean latent that the network predicts. Both are written here as losses to minimise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attar.core.rng import generator
from attar.diffusion.loss import Forward
from attar.priors.training.latent_set import LatentSet

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(eq=False)
class Memory:
    """The last `size` latents of each class, first in, first out; as unit vectors, for only cosines are asked of it."""

    units: Tensor
    """(classes, size, D)."""
    seen: Tensor
    """(classes,), int64: how many latents of each class have come in."""

    @staticmethod
    def empty(classes: int, size: int, features: int, device: torch.device | None = None) -> Memory:
        """A memory of nothing yet."""
        units = torch.zeros(classes, size, features, device=device)
        return Memory(units, torch.zeros(classes, dtype=torch.int64, device=device))

    def cosines(self, z: Tensor, labels: Tensor, elsewhere: float) -> Tensor:
        """Cosines (N, size) of latents (N, C, H, W) to the memories of their classes; `elsewhere` in free places."""
        cosines = torch.einsum("nd,nmd->nm", _unit(z), self.units[labels])
        places = torch.arange(self.units.shape[1], device=z.device)
        return cosines.masked_fill(places >= self.seen[labels, None], elsewhere)

    @torch.no_grad()
    def add(self, z: Tensor, labels: Tensor) -> None:
        """Takes in latents (N, C, H, W) of these classes (N,), in order."""
        size = self.units.shape[1]
        same = labels[:, None] == labels
        earlier = same.tril(-1).sum(1)
        last = same.triu(1).sum(1) < size
        places = (self.seen[labels] + earlier) % size
        self.units[labels[last], places[last]] = _unit(z)[last]
        self.seen += torch.bincount(labels, minlength=len(self.seen))

    def state_dict(self) -> dict[str, Tensor]:
        return {"units": self.units, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.units.copy_(state["units"])
        self.seen.copy_(state["seen"])


def representativeness(clean: Tensor, labels: Tensor, real: Memory) -> Tensor:
    """1 minus the smallest cosine of predictions (N, C, H, W) to real latents of their class, mean over the classes.

    The smallest is taken jointly over a class's predictions and its memory. A class whose memory is empty adds 0.
    """
    furthest = real.cosines(clean, labels, torch.inf).amin(1)
    smallest = torch.full_like(real.units[:, 0, 0], torch.inf).scatter_reduce(0, labels, furthest, "amin")
    return _over_classes(1 - smallest, labels)


def diversity(clean: Tensor, labels: Tensor, generated: Memory) -> Tensor:
    """The largest cosine of predictions (N, C, H, W) to earlier predictions of their class, mean over the classes.

    The largest is taken jointly over a class's predictions and its memory. A class whose memory is empty adds 0.
    """
    nearest = generated.cosines(clean, labels, -torch.inf).amax(1)
    largest = torch.full_like(generated.units[:, 0, 0], -torch.inf).scatter_reduce(0, labels, nearest, "amax")
    return _over_classes(largest, labels)


@dataclass(eq=False)
class Means:
    """The means of the two criteria over the steps since they were last taken."""

    sums: Tensor
    """(3,): of each, and the number of steps."""

    def add(self, first: Tensor, second: Tensor) -> None:
        self.sums += torch.stack([first.detach(), second.detach(), torch.ones_like(first)])

    def take(self) -> dict[str, float]:
        """Nothing before the first step."""
        first, second, steps = self.sums.tolist()
        self.sums.zero_()
        return {"representativeness": first / steps, "diversity": second / steps} if steps else {}

    def state_dict(self) -> dict[str, Tensor]:
        return {"sums": self.sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.sums.copy_(state["sums"])


@dataclass(frozen=True, eq=False)
class MinimaxLoss:
    """What one step of the fine-tuning minimises: the diffusion loss of a batch and the weighted criteria.

    Every step draws from its own key; the memories are all that one step leaves to the next.
    """

    network: nn.Module
    """Called with noisy latents, times and prior labels."""
    forward: Forward
    data: LatentSet
    y: Tensor
    """The prior's labels (classes,) of the data's, on the device."""
    null: int
    batch: int
    balanced: bool
    label_dropout: float
    representativeness: float
    diversity: float
    real: Memory
    generated: Memory
    means: Means
    """Of the two criteria, unweighted, since they were last taken."""
    seed: int
    helper: Accelerator

    def __call__(self, step: int) -> Tensor:
        draw = generator(self.seed, "minimax", step)
        picked = self.data.evenly(self.batch, draw) if self.balanced else self.data.in_turn(self.batch, step, self.seed)
        z, labels = self.data.take(picked, draw)
        times = torch.randint(len(self.forward.betas), (len(z),), generator=draw)
        noise = torch.randn(z.shape, generator=draw)
        dropped = torch.rand(len(z), generator=draw) < self.label_dropout
        z, labels, times, noise, dropped = (part.to(self.y.device) for part in (z, labels, times, noise, dropped))
        noisy = self.forward.noised(z, times, noise)
        with self.helper.autocast():
            output = self.network(noisy, times, torch.where(dropped, self.null, self.y[labels])).float()
        clean = self.forward.clean(output, noisy, times)
        loss = self.forward.terms(output, z, noisy, noise, times).loss.mean()
        criteria = representativeness(clean, labels, self.real), diversity(clean, labels, self.generated)
        for weight, criterion in zip((self.representativeness, self.diversity), criteria, strict=True):
            if weight:
                loss = loss + weight * criterion
        self.means.add(*criteria)
        self.real.add(z, labels)
        self.generated.add(clean, labels)
        return loss


def _over_classes(values: Tensor, labels: Tensor) -> Tensor:
    """The sum of what the classes' values (classes,) tell, infinite ones left out, by the number of classes present."""
    return values[values.isfinite()].sum() / len(labels.unique())


def _unit(z: Tensor) -> Tensor:
    return F.normalize(z.flatten(1), dim=1, eps=1e-8)
