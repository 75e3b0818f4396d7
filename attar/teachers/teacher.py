"""A teacher, opened: one network, or several, behind the recipe whose views they label and the set whose classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attar.core.store import digest, fingerprint
from attar.training.augment import STATISTICS

Triple = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A trained classifier with all its conventions, as its source gives it; not yet checked against any data."""

    source: str
    """The name that was given."""
    network: nn.Module
    """Takes normalised images, gives logits."""
    classes: tuple[str, ...] | None
    """Class names in the order of its logits; None: unknown."""
    size: int | None
    """Side of the images that it was trained on, in pixels; None: it takes images of any size."""
    mean: Triple | None
    """Mean of each channel of its input, for pixels from 0 to 1; None: the recipe's."""
    std: Triple | None
    """Deviation of each channel, likewise."""
    outputs: int
    """How many logits it gives."""
    sure: bool = False
    """Whether its mean and deviation are those that it was trained by, as its training wrote them down."""


class Teacher(nn.Module):
    """A teacher that was checked: takes a recipe's views, gives logits of a set's classes in the set's order."""

    accuracy: float = nan
    """Top-1 in per cent on the images that it was tried on."""
    weak: str = ""
    """That it calls most images by another class's name, in words; nothing where it does not."""
    matched: str = ""
    """How its classes were matched to the set's, in words."""
    size: int | None = None
    """Side of the images that it knows, in pixels; None: any."""

    @property
    def networks(self) -> nn.Module:
        """What gives the logits, without the recipe's normalisation and the set's classes."""
        raise NotImplementedError

    @property
    def digest(self) -> str:
        """The fingerprint of all that its logits depend on, its input and the order of its classes included."""
        return digest_of(self)

    @property
    def network_digest(self) -> str:
        """The fingerprint of its networks alone."""
        return digest_of(self.networks)


class SingleTeacher(Teacher):
    """A teacher that is one network."""

    scale: Tensor
    shift: Tensor
    columns: Tensor

    def __init__(self, pretrained: Pretrained, normalise: str, columns: Sequence[int]) -> None:
        """The teacher of views normalised by `normalise`; `columns` says which logit each class of the set is."""
        super().__init__()
        mean, std = (torch.tensor(values) for values in STATISTICS[normalise])
        own_mean = mean if pretrained.mean is None else torch.tensor(pretrained.mean)
        own_std = std if pretrained.std is None else torch.tensor(pretrained.std)
        self.pretrained, self.normalise, self.logits = pretrained, normalise, list(columns)
        self.network, self.size = pretrained.network, pretrained.size
        self.register_buffer("scale", (std / own_std).view(1, 3, 1, 1))
        self.register_buffer("shift", ((mean - own_mean) / own_std).view(1, 3, 1, 1))
        self.register_buffer("columns", torch.tensor(list(columns)))

    def forward(self, views: Tensor) -> Tensor:
        """Logits (n, classes of the set) of views (n, 3, H, W), normalised as the recipe says."""
        x = views * self.scale + self.shift
        if self.size is not None and x.shape[2] != self.size:
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return self.network(x)[:, self.columns]

    @property
    def networks(self) -> nn.Module:
        return self.network

    @property
    def side(self) -> int:
        """Side of the images that it is shown, in pixels."""
        assert self.size is not None, "what a source gives has a size"
        return self.size

    @cached_property
    def network_key(self) -> str:
        """The fingerprint of its network, its statistics and the size of its images; not of its name."""
        return fingerprint(digest_of(self.network), self.pretrained.mean, self.pretrained.std, self.size)

    @property
    def key(self) -> str:
        """The fingerprint of its network and of which logit each class of the set is."""
        return fingerprint(self.network_key, self.logits)

    def restricted(self, labels: Sequence[int]) -> SingleTeacher:
        """The same teacher for some of the set's classes."""
        some = SingleTeacher(self.pretrained, self.normalise, [self.logits[label] for label in labels])
        some.accuracy, some.weak, some.matched = self.accuracy, self.weak, self.matched
        return some.eval().to(self.columns.device)

    def extra_repr(self) -> str:
        """Joins the digest."""
        return f"size={self.size}"

    def _get_name(self) -> str:
        """Joins the digest: stored labels know their teacher by it."""
        return "Labeller"


class Ensemble(Teacher):
    """Several teachers that label as one: the mean of their logits, as in D3HR's validate_fiveteacher.py.

    Each sees the views at its own size and by its own statistics, and has its logits in the set's order first.
    """

    def __init__(self, members: Sequence[Teacher]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.matched = "; ".join(dict.fromkeys(member.matched for member in members))
        self.size = max((member.size for member in members if member.size is not None), default=None)

    def forward(self, views: Tensor) -> Tensor:
        """Logits (n, classes of the set) of views (n, 3, H, W), normalised as the recipe says."""
        return torch.stack([member(views) for member in self.members]).mean(0)

    @property
    def networks(self) -> nn.Module:
        return nn.ModuleList([member.networks for member in self.members if isinstance(member, Teacher)])


def digest_of(network: nn.Module) -> str:
    """The fingerprint of all that a network's logits depend on: its layers, weights and buffers."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    parts = {name: digest(value.flatten().view(torch.uint8).numpy().data) for name, value in state.items()}
    return fingerprint(str(network), parts)
