"""The class-conditional DiT of diffusers: all that reaches into its layout is here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from attar.core.errors import AttarError
from attar.core.store import digest, fingerprint
from attar.data.class_names import named
from attar.diffusion.straight import FLOW
from attar.priors.codec import Codec, load_whole, weights_key
from attar.priors.diffusers_pipeline import load_schedule, opening, read_index
from attar.priors.prior import Prior
from attar.priors.straight_path import output_of, set_straight


@dataclass(frozen=True)
class Conventions:
    """Where diffusers' DiT and the original differ; the defaults are diffusers'."""

    frequency_shift: int = 1
    """The timestep embedding's frequencies are divided by 128 less this; the original's by 128."""
    norm_eps: float = 1e-5
    """Epsilon of the layer norm before each feed-forward branch; the original's is 1e-6, as that of all others."""


class DiT(nn.Module):
    """A DiTTransformer2DModel, called with latents, times and labels; in eval mode, so that it drops no labels."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer: Any = transformer.eval().requires_grad_(False)

    def forward(self, z: Tensor, times: Tensor, y: Tensor) -> Tensor:
        """Of labels (N,), or of their embeddings (N, D)."""
        embedded = y.is_floating_point()

        def network(z: Tensor, times: Tensor) -> Tensor:
            output: Tensor = self.transformer(z, timestep=times, class_labels=y.to(z.dtype) if embedded else y).sample
            return output

        with self._taking_embeddings() if embedded else nullcontext():
            return output_of(self.transformer, network, z, times)

    def embedded(self, y: Tensor) -> Tensor:
        """The embeddings (N, D) of labels (N,)."""
        embeddings: Tensor = self._table(y)
        return embeddings

    @cached_property
    def _table(self) -> Any:
        """The label table, of which each block has a copy.

        Raises:
            AttarError: they differ, so that no one embedding stands for a label.
        """
        first, *others = (
            block.norm1.emb.class_embedder.embedding_table for block in self.transformer.transformer_blocks
        )
        if any(not torch.equal(first.weight, other.weight) for other in others):
            raise AttarError(
                "the label tables of the prior's blocks differ: it cannot be told an embedding for a label"
            )
        return first

    @contextmanager
    def _taking_embeddings(self) -> Iterator[None]:
        """Within it the blocks take a label's embedding in place of the label."""
        embedders = {id(emb): emb for block in self.transformer.transformer_blocks for emb in [block.norm1.emb]}
        own = {key: emb.class_embedder for key, emb in embedders.items()}
        try:
            for emb in embedders.values():
                emb.class_embedder = nn.Identity()
            yield
        finally:
            for key, emb in embedders.items():
                emb.class_embedder = own[key]

    @property
    def conventions(self) -> Conventions:
        """The conventions that this network computes with."""
        embedder = self.transformer.transformer_blocks[0].norm1.emb
        return Conventions(int(embedder.time_proj.downscale_freq_shift), self.transformer.config.norm_eps)

    @property
    def learned_sigma(self) -> bool:
        """Whether its output has the variance too."""
        return bool(self.transformer.out_channels > self.transformer.config.in_channels)


def prior_key(network: DiT, schedule: Any) -> str:
    """The fingerprint of a prior: weights, heads, positions, conventions and the schedule in words."""
    positions = network.transformer.pos_embed.pos_embed.cpu().numpy().tobytes()
    heads = network.transformer.config.num_attention_heads
    return fingerprint(weights_key(network), heads, digest(positions), network.conventions, schedule)


def check_straight(network: DiT, source: str) -> None:
    """Raises AttarError where a network cannot be one of rectified flow."""
    if network.learned_sigma:
        raise AttarError(f"`prior` {source}: it predicts a variance, too, which a rectified flow ({FLOW}) has not")


def latent_space(source: str) -> tuple[tuple[int, int, int], str]:
    """(C, H, W) of the latents, read off the configuration, and where the codec is: in the same folder, or pixels.

    Raises:
        AttarError: there is none.
    """
    from diffusers import DiTTransformer2DModel

    with opening(source, "DiTPipeline"):
        config = DiTTransformer2DModel.load_config(source, subfolder="transformer")
        shape = (config["in_channels"], config["sample_size"], config["sample_size"])
    return shape, source if read_index(source).get("vae", [None])[0] is not None else "pixel"


def load_dit(source: str, device: torch.device, dtype: torch.dtype, codec: Codec) -> Prior:
    """A DiTPipeline folder or hub id, loaded component by component with `from_pretrained`.

    In model_index.json, `id2label` names the classes, and `"_frequency_shift": 0` marks the original's timestep
    embedding.

    Raises:
        AttarError: the folder does not hold such a pipeline, or its parts cannot be loaded.
    """
    from diffusers import DiTTransformer2DModel

    index = read_index(source)
    with opening(source, "DiTPipeline"):
        transformer = load_whole(DiTTransformer2DModel, source, subfolder="transformer")
    schedule = load_schedule(source, index)
    if transformer.config.norm_type != "ada_norm_zero":
        raise AttarError(
            f"`prior` {source}: its transformer has norm_type {transformer.config.norm_type!r}, not a DiT's"
        )
    for block in transformer.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = index.get("_frequency_shift", 1)
    network = DiT(transformer)
    if schedule.straight:
        check_straight(network, source)
        set_straight(transformer)
    count, id2label = transformer.config.num_embeds_ada_norm, index.get("id2label") or None
    return Prior(
        key=prior_key(network, schedule.scheduler),
        network=network.to(device, dtype),
        schedule=schedule,
        codec=codec,
        classes=None if id2label is None else named(id2label, count, f"`prior` {source}: model_index.json"),
        n_classes=count,
        null=count,
        device=device,
        dtype=dtype,
    )
