"""A teacher: a network with its classes, image size and statistics; and the same behind a recipe and a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attar.core.store import digest, fingerprint
from attar.training.augment import STATISTICS

Triple = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A classifier with all its conventions."""

    source: str
    """As it was named."""
    network: nn.Module
    classes: tuple[str, ...] | None
    """Class names in the order of its logits; None: unknown."""
    size: int | None
    """Side of the images that it was trained on, in pixels; None: whatever it is shown."""
    mean: Triple | None
    std: Triple | None
    """Of its normalised input, for pixels from 0 to 1; None: those of the recipe."""
    outputs: int
    """How many logits it gives."""


class Labeller(nn.Module):
    """A teacher behind a recipe: takes the recipe's views, gives logits of the set's classes in the set's order."""

    scale: Tensor
    shift: Tensor
    columns: Tensor

    def __init__(self, teacher: Teacher, normalise: str, columns: Sequence[int]) -> None:
        super().__init__()
        mean, std = (torch.tensor(values) for values in STATISTICS[normalise])
        own_mean = mean if teacher.mean is None else torch.tensor(teacher.mean)
        own_std = std if teacher.std is None else torch.tensor(teacher.std)
        self.network, self.size = teacher.network, teacher.size
        self.register_buffer("scale", (std / own_std).view(1, 3, 1, 1))
        self.register_buffer("shift", ((mean - own_mean) / own_std).view(1, 3, 1, 1))
        self.register_buffer("columns", torch.tensor(list(columns)))

    def forward(self, views: Tensor) -> Tensor:
        """Logits (n, classes of the set) of views (n, 3, H, W), normalised as the recipe says."""
        x = views * self.scale + self.shift
        if self.size is not None and x.shape[2] != self.size:
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return self.network(x)[:, self.columns]

    def extra_repr(self) -> str:
        """Joins the digest."""
        return f"size={self.size}"


class Ensemble(nn.Module):
    """Several teachers that label as one: the mean of their logits, as in D3HR's validate_fiveteacher.py.

    Each sees the views at its own size and by its own statistics, and has its logits in the set's order first.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def network(self) -> nn.Module:
        """The members' networks alone."""
        return nn.ModuleList([cast("nn.Module", member.network) for member in self.members])

    def forward(self, views: Tensor) -> Tensor:
        """Logits (n, classes of the set) of views (n, 3, H, W), normalised as the recipe says."""
        return torch.stack([member(views) for member in self.members]).mean(0)


def digest_of(network: nn.Module | None) -> str:
    """The fingerprint of all that a network's logits depend on: its layers, weights and buffers."""
    assert network is not None
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    parts = {name: digest(value.flatten().view(torch.uint8).numpy().data) for name, value in state.items()}
    return fingerprint(str(network), parts)
