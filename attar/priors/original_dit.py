"""Original DiT checkpoints, Minimax's with their scales among them, as diffusers networks.

The original (facebookresearch/DiT) has one embedder of times and labels for all blocks, divides the frequencies of its
timestep embedding by 128 where diffusers divides by 127, and has a layer-norm epsilon of 1e-6 throughout. The converted
network does all three, so it computes what the original computes.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from safetensors import safe_open
from torch import Tensor

from attar.core.errors import AttarError
from attar.core.files import expand_user
from attar.core.hub_ids import near
from attar.core.wording import listed
from attar.data.class_names import imagenet_names, named
from attar.diffusion import Schedule
from attar.priors.codec import Codec
from attar.priors.dit import DiT, prior_key
from attar.priors.prior import Prior

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
VAE = "stabilityai/sd-vae-ft-ema"
"""What the published checkpoints were trained with (a hub id): the codec unless another is given."""
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Attention heads by hidden size: DiT-S, B, L and XL. They cannot be read off the weights."""

_BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
_EMBEDDER = {
    "t_embedder.mlp.0": "timestep_embedder.linear_1",
    "t_embedder.mlp.2": "timestep_embedder.linear_2",
    "y_embedder.embedding_table": "class_embedder.embedding_table",
}
_OUTSIDE = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}


@dataclass(frozen=True)
class Sizes:
    """The sizes of an original checkpoint's network, read off the shapes of its weights."""

    hidden: int
    depth: int
    patch: int
    channels: int
    out_channels: int
    input_size: int
    classes: int
    """The label table has one more row, the null label's."""

    @staticmethod
    def of(weights: Mapping[str, Tensor]) -> Sizes:
        """Raises KeyError where a weight is missing, ValueError where shapes do not go together."""
        hidden, channels, patch, _ = weights["x_embedder.proj.weight"].shape
        side = math.isqrt(weights["pos_embed"].shape[1])
        if side**2 != weights["pos_embed"].shape[1] or weights["t_embedder.mlp.0.weight"].shape[1] != 256:
            raise ValueError("its position or time embedding is not a DiT's")
        out_channels = len(weights["final_layer.linear.weight"]) // patch**2
        if out_channels not in (channels, 2 * channels):
            raise ValueError(f"{out_channels} output channels for {channels} input channels")
        return Sizes(
            hidden=hidden,
            depth=1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
            patch=patch,
            channels=channels,
            out_channels=out_channels,
            input_size=side * patch,
            classes=len(weights["y_embedder.embedding_table.weight"]) - 1,
        )


def latent_space(source: str) -> tuple[tuple[int, int, int], str]:
    """(C, H, W) of the latents of an original checkpoint, and the codec that goes with the published ones.

    Raises:
        AttarError: the file is no such checkpoint.
    """
    weights, _ = read_checkpoint(expand_user(source))
    with _reading(source):
        sizes = Sizes.of(weights)
    return (sizes.channels, sizes.input_size, sizes.input_size), VAE


def load_checkpoint(source: str, device: torch.device, dtype: torch.dtype, codec: Codec) -> Prior:
    """The prior in an original checkpoint: a state dict, or one under `ema` (preferred) or `model`.

    A JSON file of the same name beside it may give `num_heads` and `id2label`; a safetensors file, `num_heads` in its
    metadata. Without names, 1000 classes are ImageNet's.

    Raises:
        AttarError: the file is no such checkpoint, or its number of heads is not known.
    """
    file = expand_user(source)
    weights, facts = read_checkpoint(file)
    transformer = original_transformer(weights, facts.get("num_heads"), source=source)
    network, classes = DiT(transformer), Sizes.of(weights).classes
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    return Prior(
        key=prior_key(network, {"betas": "linear", "from": 1e-4, "to": 0.02, "steps": 1000, "prediction": "epsilon"}),
        network=network.to(device, dtype),
        schedule=Schedule((1 - betas).cumprod(0).float()),
        codec=codec,
        classes=_names(facts.get("id2label"), classes, file),
        n_classes=classes,
        null=classes,
        device=device,
        dtype=dtype,
    )


def read_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights under their original names, and the facts beside them (`num_heads`, `id2label`). Runs no code.

    Raises:
        AttarError: the file is missing, damaged, would run code, or holds no weights of a DiT.
    """
    if not file.is_file():
        raise AttarError(f"`prior` {file}{near(str(file))}: there is no such file")
    facts: dict[str, Any] = {}
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as opened:
                weights: Any = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                facts = {key: int(value) for key, value in (opened.metadata() or {}).items() if key == "num_heads"}
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):
                mapped = zipfile.is_zipfile(file)
                weights = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise AttarError(f"`prior` {file}: not weights alone, and loading it could run code: {error}") from error
    except Exception as error:
        raise AttarError(f"`prior` {file}: cannot be read ({error}); is it whole? Copy or download it again") from error
    for inner in ("ema", "model"):
        if isinstance(weights, dict) and isinstance(weights.get(inner), dict):
            weights = weights[inner]
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise AttarError(f"`prior` {file}: holds no table of weights, neither bare nor under 'ema' or 'model'")
    return weights, {**facts, **_sidecar(file.with_suffix(".json"))}


@contextmanager
def _reading(source: str) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise AttarError(f"`prior` {source}: no original DiT checkpoint: it has no weight {error}") from error
    except ValueError as error:
        raise AttarError(f"`prior` {source}: no original DiT checkpoint: {error}") from error


def original_transformer(
    weights: Mapping[str, Tensor], num_heads: int | None = None, *, source: str = "these weights"
) -> Any:
    """A DiTTransformer2DModel that computes what the original network of these weights does, its embedders shared.

    The scales of a Minimax checkpoint are merged into the linear layers whose outputs they multiply.

    Raises:
        AttarError: weights are missing, of odd shapes or unknown, or the number of heads is not known.
    """
    with _reading(source):
        sizes = Sizes.of(weights)
        converted = _converted(merged(weights), sizes.depth)
    heads = _heads(sizes.hidden, num_heads, source)
    with torch.device("meta"):
        transformer = DiTTransformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=sizes.hidden // heads,
            in_channels=sizes.channels,
            out_channels=sizes.out_channels,
            num_layers=sizes.depth,
            sample_size=sizes.input_size,
            patch_size=sizes.patch,
            num_embeds_ada_norm=sizes.classes,
            norm_eps=1e-6,
        )
    _share_embedders(transformer)
    try:
        transformer.load_state_dict(converted, strict=True, assign=True)
    except RuntimeError as error:
        raise AttarError(f"`prior` {source}: no original DiT checkpoint: {str(error).splitlines()[-1]}") from error
    transformer.pos_embed.pos_embed = weights["pos_embed"].float().clone()
    return transformer.eval()


def _heads(hidden: int, num_heads: int | None, source: str) -> int:
    heads = num_heads or HEADS.get(hidden)
    if heads is None or hidden % heads:
        raise AttarError(
            f"`prior` {source}: the number of attention heads for hidden size {hidden} "
            + ("is not known" if heads is None else f"cannot be {heads}")
            + f'; write it into {Path(source).with_suffix(".json").name} beside it: {{"num_heads": 8}}'
        )
    return heads


def merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network without DiffFit's scales (`gamma1`, `gamma2`): each multiplies the output of a linear layer.

    In a block they scale the two gated branches, in its attention the outputs of `qkv` and `proj`.
    """
    plain = {name: weight.float() for name, weight in weights.items() if ".gamma" not in name}
    outputs = {"gamma1": "attn.proj", "gamma2": "mlp.fc2", "attn.gamma1": "attn.qkv", "attn.gamma2": "attn.proj"}
    for name in weights:
        if ".gamma" in name:
            _, number, scale = name.split(".", 2)
            for part in ("weight", "bias"):
                target = f"blocks.{number}.{outputs[scale]}.{part}"
                gamma = weights[name].float().reshape(-1)
                plain[target] = plain[target] * (gamma[:, None] if part == "weight" else gamma)
    return plain


def _share_embedders(transformer: Any) -> None:
    shared = transformer.transformer_blocks[0].norm1.emb
    shared.time_proj.downscale_freq_shift = 0
    for block in transformer.transformer_blocks:
        block.norm1.emb = shared


def _converted(weights: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The weights under diffusers' names; raises KeyError for a missing one and ValueError for one too many."""
    converted: dict[str, Tensor] = {}
    unused = set(weights) - {"pos_embed"}

    def take(name: str) -> Tensor:
        unused.discard(name)
        return weights[name].clone()

    for number in range(depth):
        old, new = f"blocks.{number}.", f"transformer_blocks.{number}."
        for part in ("weight", "bias"):
            converted |= {f"{new}{to}.{part}": take(f"{old}{name}.{part}") for name, to in _BLOCK.items()}
            q, k, v = take(f"{old}attn.qkv.{part}").chunk(3)
            converted |= {
                f"{new}attn1.to_{name}.{part}": third.clone() for name, third in zip("qkv", (q, k, v), strict=True)
            }
    for name, to in _OUTSIDE.items():
        converted |= {f"{to}.{part}": take(f"{name}.{part}") for part in ("weight", "bias")}
    for name, to in _EMBEDDER.items():
        for part in ("weight",) if name.startswith("y_") else ("weight", "bias"):
            weight = take(f"{name}.{part}")
            converted |= {f"transformer_blocks.{number}.norm1.emb.{to}.{part}": weight for number in range(depth)}
    if unused:
        raise ValueError(f"unknown weights {listed(sorted(unused), 4)}")
    return converted


def _sidecar(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise AttarError(f"{file}: not JSON: {error}") from error
    known = {"num_heads": int, "id2label": dict}
    if not isinstance(facts, dict) or any(not isinstance(value, known.get(key, ())) for key, value in facts.items()):
        raise AttarError(f'{file}: beside a checkpoint, it may hold "num_heads" (a number) and "id2label" (a table)')
    return facts


def _names(id2label: dict[str, str] | None, count: int, file: Path) -> tuple[str, ...] | None:
    if id2label is None:
        return imagenet_names() if count == 1000 else None
    return named(id2label, count, str(file.with_suffix(".json")))
