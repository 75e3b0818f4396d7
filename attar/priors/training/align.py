"""Representation alignment (REPA, Yu et al., ICLR 2025): a prior's tokens learn to hold what a teacher sees.

A head on the tokens after the middle block is trained with the network to predict the teacher's map of the clean image,

    L = L_diffusion + weight * (1 - mean over tokens of cos(head(token), map at its place))

and thrown away at the end. Teachers live in a room above this one: whoever calls gives their maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isqrt
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attar.core.progress import timed
from attar.core.rng import seed_of
from attar.priors.codec import Encoder
from attar.priors.shared_embedders import SharedDiT
from attar.priors.training.latent_set import Joined
from attar.priors.training.settings import Training

if TYPE_CHECKING:
    from accelerate import Accelerator


class Maps(Encoder, Protocol):
    """A teacher that encodes images to its feature maps."""

    @property
    def named(self) -> str:
        """What a prior's key names it by."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(D, h, w) of a map."""
        ...


@dataclass(frozen=True, eq=False)
class Alignment:
    """What aligns a network's tokens with a teacher's maps in the steps of its training."""

    teacher: Maps
    block: nn.Module
    """The network's block whose tokens are aligned."""
    head: nn.Module
    """Tokens (N, T, H) to features (N, T, D); trained with the network."""
    weight: float
    maps: Tensor | Joined
    """The teacher's (V * N, D, h, w), in the order of the latents; those of mirrored images after the others."""

    def to(self, maps: Tensor | Joined) -> Alignment:
        """The same alignment, with these maps."""
        return replace(self, maps=maps)

    @contextmanager
    def watching(self) -> Iterator[list[Tensor]]:
        """Within it the list holds the tokens (N, T, H) that the block gave last."""
        tokens: list[Tensor] = []

        def note(_block: nn.Module, _inputs: object, output: Tensor) -> None:
            tokens[:] = [output]

        hook = self.block.register_forward_hook(note)
        try:
            yield tokens
        finally:
            hook.remove()

    def loss(self, tokens: Tensor, maps: Tensor, helper: Accelerator) -> Tensor:
        """weight * (1 - the mean cosine) of tokens (N, T, H) and the maps (N, D, h, w) of the same images."""
        maps = maps.to(tokens.device, torch.float32)
        side = isqrt(tokens.shape[1])
        if maps.shape[-2:] != (side, side):
            maps = F.interpolate(maps, (side, side), mode="bilinear", antialias=True)
        with helper.autocast():
            predicted = self.head(tokens).float()
        return self.weight * (1 - F.cosine_similarity(predicted, maps.flatten(2).mT, dim=2).mean())

    def seconds(self, images: int) -> float:
        """How long the teacher takes for so many images: one batch is timed."""
        batch = torch.zeros(64, 3, self.teacher.size, self.teacher.size)
        return images * timed(lambda: self.teacher.encode(batch)) / len(batch)


def alignment(network: SharedDiT, teacher: Maps, training: Training, device: torch.device) -> Alignment:
    """The alignment of a network's middle block with a teacher, on a device; the maps are yet to be made."""
    blocks = network.transformer.transformer_blocks
    width = network.transformer.inner_dim
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(training.seed, "train-prior", "head"))
        layers = [nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
        head = nn.Sequential(*layers, nn.Linear(width, teacher.shape[0])).to(device)
    block = blocks[(len(blocks) - 1) // 2]
    return Alignment(teacher, block, head, training.align_weight, torch.zeros(0, *teacher.shape))
