"""A DiT as it is trained: one embedder of times and labels for all blocks, computed once in each call."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.embeddings import PatchEmbed
from torch import Tensor, nn

from attar.core.errors import AttarError
from attar.core.rng import Part, seed_of
from attar.priors.straight_path import output_of, set_straight


class SharedDiT(nn.Module):
    """A diffusers DiTTransformer2DModel, called with latents, times and labels.

    Its blocks' own embedders (diffusers has one in each, the original one in all) give way to `embedder`. It stays in
    eval mode: diffusers would drop labels in every block by itself.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer.eval()
        self.embedder: Any = transformer.transformer_blocks[0].norm1.emb
        for block in transformer.transformer_blocks:
            block.norm1.emb = _GivenConditioning()

    def forward(self, z: Tensor, times: Tensor, y: Tensor) -> Tensor:
        def network(z: Tensor, times: Tensor) -> Tensor:
            conditioning = self.embedder(times, y, hidden_dtype=z.dtype)
            output: Tensor = self.transformer(z, timestep=conditioning, class_labels=y).sample
            return output

        return output_of(self.transformer, network, z, times)

    @property
    def table(self) -> nn.Embedding:
        """The label table: a row for each class and the null label's last."""
        table: nn.Embedding = self.embedder.class_embedder.embedding_table
        return table

    def take_side(self, side: int) -> None:
        """Makes it a network of latents (C, side, side): with more patches or fewer, each of the same size."""
        config, old = self.transformer.config, self.transformer.pos_embed
        if side == config.sample_size:
            return
        self.transformer.register_to_config(sample_size=side)
        self.transformer.height = self.transformer.width = side
        new = PatchEmbed(side, side, config.patch_size, config.in_channels, old.proj.out_channels)
        new.proj = old.proj
        self.transformer.pos_embed = new.to(old.proj.weight.device)

    def with_own_embedders(self) -> Any:
        """A plain diffusers network of the same weights, the embedder written into every block."""
        transformer = copy.deepcopy(self.transformer)
        for block in transformer.transformer_blocks:
            block.norm1.emb = copy.deepcopy(self.embedder)
        return transformer.eval()


class _GivenConditioning(nn.Module):
    """Stands for a block's embedder where the conditioning is given in place of the time."""

    def forward(self, timestep: Tensor, class_labels: Tensor, hidden_dtype: torch.dtype | None = None) -> Tensor:
        return timestep


def share_embedders(transformer: Any, source: str) -> SharedDiT:
    """A copy of a diffusers network whose blocks share their embedders.

    Raises:
        AttarError: the blocks' embedders differ, so that no one of them can stand for all.
    """
    check_alike(transformer, f"`prior` {source}")
    return SharedDiT(copy.deepcopy(transformer).requires_grad_(True))


@contextmanager
def sharing_embedders(transformer: Any) -> Iterator[SharedDiT]:
    """Within it the network computes its conditioning once in each call; afterwards its blocks do so again.

    Their embedders must be equal (`check_alike`).
    """
    own = [block.norm1.emb for block in transformer.transformer_blocks]
    try:
        yield SharedDiT(transformer)
    finally:
        for block, embedder in zip(transformer.transformer_blocks, own, strict=True):
            block.norm1.emb = embedder


def check_alike(transformer: Any, source: str) -> None:
    """Raises AttarError unless the blocks' embedders are equal."""
    first, *others = (block.norm1.emb.state_dict() for block in transformer.transformer_blocks)
    if any(not torch.equal(first[name], other[name]) for other in others for name in first):
        raise AttarError(f"{source}: the embedders of the prior's blocks differ, so it cannot be trained with one")


def untrained(shape: tuple[int, ...], classes: int, training: Any, *key: Part) -> SharedDiT:
    """A fresh network for latents (C, S, S), initialised as the original DiT is: gates, modulation and output zero."""
    channels, side = shape[0], shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(*key))
        transformer = DiTTransformer2DModel(
            sample_size=side,
            in_channels=channels,
            out_channels=channels * (2 if training.learned_sigma else 1),
            patch_size=training.patch,
            num_layers=training.layers,
            num_attention_heads=training.heads,
            attention_head_dim=training.hidden // training.heads,
            num_embeds_ada_norm=classes,
        )
        for layer in transformer.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        patches = transformer.pos_embed.proj
        nn.init.xavier_uniform_(patches.weight.view(len(patches.weight), -1))
        nn.init.zeros_(patches.bias)
        network = SharedDiT(transformer)
        nn.init.normal_(network.table.weight, std=0.02)
        embedder = network.embedder.timestep_embedder
        for layer in (embedder.linear_1, embedder.linear_2):
            nn.init.normal_(layer.weight, std=0.02)
    modulation = [block.norm1.linear for block in transformer.transformer_blocks]
    for layer in (*modulation, transformer.proj_out_1, transformer.proj_out_2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    if training.prediction == "flow":
        set_straight(transformer)
    return network
