"""Minimax Diffusion, section 3.2: the two criteria, over a memory M of real and one D of generated latents.

    representativeness   max over the network of  min over m in M  cos(x0, m)
    diversity            min over the network of  max over d in D  cos(x0, d)

x0 is the clean latent that the network predicts; M and D hold the last latents of its class. Both criteria are written
here as losses to minimise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(eq=False)
class Memory:
    """The last `size` latents of each class, first in, first out; as unit vectors, since only cosines are needed."""

    units: Tensor
    """(classes, size, D)."""
    seen: Tensor
    """(classes,), int64: how many latents of each class were added."""

    @staticmethod
    def empty(classes: int, size: int, features: int, device: torch.device | None = None) -> Memory:
        """An empty memory."""
        units = torch.zeros(classes, size, features, device=device)
        return Memory(units, torch.zeros(classes, dtype=torch.int64, device=device))

    def cosines(self, z: Tensor, labels: Tensor, elsewhere: float) -> Tensor:
        """Cosines (N, size) of latents (N, C, H, W) to the memories of their classes; `elsewhere` in free places."""
        cosines = torch.einsum("nd,nmd->nm", _unit(z), self.units[labels])
        places = torch.arange(self.units.shape[1], device=z.device)
        return cosines.masked_fill(places >= self.seen[labels, None], elsewhere)

    @torch.no_grad()
    def add(self, z: Tensor, labels: Tensor) -> None:
        """Adds latents (N, C, H, W) of these classes (N,), in order."""
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


@dataclass(eq=False)
class CriterionMeans:
    """The means of the two criteria, unweighted, over the steps since they were last taken."""

    sums: Tensor
    """(3,): the sum of each, and the number of steps."""

    def add(self, first: Tensor, second: Tensor) -> None:
        """Counts a step."""
        self.sums += torch.stack([first.detach(), second.detach(), torch.ones_like(first)])

    def take(self) -> dict[str, float]:
        """The means, which begin anew; empty before the first step."""
        first, second, steps = self.sums.tolist()
        self.sums.zero_()
        return {"representativeness": first / steps, "diversity": second / steps} if steps else {}

    def state_dict(self) -> dict[str, Tensor]:
        return {"sums": self.sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.sums.copy_(state["sums"])


def representativeness(clean: Tensor, labels: Tensor, real: Memory) -> Tensor:
    """1 minus the smallest cosine of predictions (N, C, H, W) to real latents of their class, mean over the classes.

        1/|C| sum over classes c of  1 - min over x0 of c, m in M_c  cos(x0, m)

    A class whose memory is empty adds 0.
    """
    furthest = real.cosines(clean, labels, torch.inf).amin(1)
    smallest = torch.full_like(real.units[:, 0, 0], torch.inf).scatter_reduce(0, labels, furthest, "amin")
    return _over_classes(1 - smallest, labels)


def diversity(clean: Tensor, labels: Tensor, generated: Memory) -> Tensor:
    """The largest cosine of predictions (N, C, H, W) to earlier predictions of their class, mean over the classes.

        1/|C| sum over classes c of  max over x0 of c, d in D_c  cos(x0, d)

    A class whose memory is empty adds 0.
    """
    nearest = generated.cosines(clean, labels, -torch.inf).amax(1)
    largest = torch.full_like(generated.units[:, 0, 0], -torch.inf).scatter_reduce(0, labels, nearest, "amax")
    return _over_classes(largest, labels)


def _over_classes(values: Tensor, labels: Tensor) -> Tensor:
    """The sum of the classes' values (classes,), infinite ones left out, divided by the number of classes present."""
    return values[values.isfinite()].sum() / len(labels.unique())


def _unit(z: Tensor) -> Tensor:
    return F.normalize(z.flatten(1), dim=1, eps=1e-8)
