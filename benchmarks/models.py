"""Networks of random weights, and images: weights do not matter for speed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel
from PIL import Image

from attar.core.batching import choose, fills
from attar.core.flops import counted_flops, on_meta
from attar.diffusion import Schedule
from attar.priors.codec import AutoencoderCodec, autoencoder_codec
from attar.priors.dit import DiT
from attar.priors.folder import linear_scheduler
from attar.priors.prior import Prior
from benchmarks.timing import Where

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "sample_size": 8},
    "small": {"num_layers": 8, "num_attention_heads": 4, "attention_head_dim": 64, "sample_size": 8},
    "full": {"num_layers": 28, "num_attention_heads": 16, "attention_head_dim": 72, "sample_size": 32},
    "quarter": {"num_layers": 7, "num_attention_heads": 16, "attention_head_dim": 72, "sample_size": 32},
}
"""tiny: for tests; small: as of CIFAR-10; full: DiT-XL/2 at 256 pixels with Stable Diffusion's autoencoder; quarter: of
its blocks, as many as three ways to train them fit into 16 GB."""
CLASSES = {"tiny": 10, "small": 10, "full": 1000, "quarter": 1000}


@cache
def transformer(size: str, classes: int | None = None) -> Any:
    """A DiT of diffusers, float32, on the CPU, an embedder of equal weights in every block."""
    made = DiTTransformer2DModel(
        **SHAPES[size], in_channels=4, out_channels=8, patch_size=2, num_embeds_ada_norm=classes or CLASSES[size]
    ).eval()
    return alike(made).requires_grad_(False)


def alike(dit: Any) -> Any:
    """The DiT, the embedders of all its blocks made equal, as trained ones are."""
    first, *others = (block.norm1.emb for block in dit.transformer_blocks)
    for other in others:
        other.load_state_dict(first.state_dict())
    return dit


@cache
def autoencoder(size: str) -> Any:
    """An AutoencoderKL: 16-pixel images, 32-pixel ones, or Stable Diffusion's of 256."""
    wide = {"tiny": (8, 8), "small": (64, 128, 128)}.get(size, (128, 256, 512, 512))
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(wide),
        up_block_types=("UpDecoderBlock2D",) * len(wide),
        block_out_channels=wide,
        layers_per_block=2,
        norm_num_groups=min(32, wide[0]),
        latent_channels=4,
        sample_size=SHAPES[size]["sample_size"] * 2 ** (len(wide) - 1),
    ).eval()


@cache
def codec(size: str, where: Where) -> AutoencoderCodec:
    """Attar's codec of that autoencoder, its batch size chosen."""
    opened = autoencoder_codec(_copy(autoencoder(size)), SHAPES[size]["sample_size"], where.device, where.dtype)
    most = fills(where.device, opened.row_flops)
    return opened.with_batch_size(choose(where.device, opened.exact_at, most, opened.weights))


@cache
def coding_flops(size: str) -> tuple[int, int]:
    """FLOPs of encoding and of decoding an image."""
    vae, side = on_meta(autoencoder(size)), SHAPES[size]["sample_size"]
    pixels = autoencoder(size).config.sample_size
    encoding = counted_flops(lambda: vae.encode(torch.zeros(1, 3, pixels, pixels, device="meta")))
    return encoding, counted_flops(lambda: vae.decode(torch.zeros(1, 4, side, side, device="meta")))


@cache
def prior(size: str, where: Where) -> Prior:
    """Attar's prior of that network, its batch size chosen."""
    opened = Prior(
        key=size,
        network=DiT(_copy(transformer(size))).to(where.device, where.dtype),
        schedule=Schedule(linear_scheduler().alphas_cumprod),
        codec=codec(size, where),
        classes=None,
        n_classes=CLASSES[size],
        null=CLASSES[size],
        device=where.device,
        dtype=where.dtype,
    )
    most = fills(where.device, opened.row_flops)
    return opened.with_batch_size(choose(where.device, opened.exact_at, most, opened.weights))


@cache
def plain(part: str, size: str, device: torch.device, dtype: torch.dtype) -> Any:
    """The library's own network, `transformer` or `autoencoder`, in a number format."""
    made = {"transformer": transformer, "autoencoder": autoencoder}[part](size)
    return torch.nn.Module.to(_copy(made), device, dtype)


def of_blocks(size: str) -> str:
    """That it is a part of DiT-XL/2, in words; nothing of whole networks."""
    return f", {SHAPES[size]['num_layers']} of 28 blocks" if size == "quarter" else ""


def _copy(network: Any) -> Any:
    made = type(network).from_config(network.config)
    made.load_state_dict(network.state_dict())
    return made.eval().requires_grad_(False)


def pictures(root: Path, classes: int, each: int, side: int) -> Path:
    """A folder of class folders of JPEG files: smooth random images."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for index in range(each):
            coarse = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
            coarse.resize((side, side), Image.Resampling.BICUBIC).save(root / f"class{label}" / f"{index}.jpg")
    return root


def named(dtype: torch.dtype) -> str:
    """float32, bfloat16."""
    return str(dtype).removeprefix("torch.")
