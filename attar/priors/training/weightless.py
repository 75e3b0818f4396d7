"""Published architectures on the meta device: priors without weights, to count what they cost before they are here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel, UNet2DConditionModel
from torch import nn

from attar.core.batching import choose, fills
from attar.core.errors import AttarError, suggestion
from attar.diffusion import Schedule
from attar.priors.codec import AutoencoderCodec
from attar.priors.dit import DiT
from attar.priors.prior import Prior
from attar.priors.stable_diffusion import PromptedUNet


@dataclass(frozen=True, eq=False)
class Architecture:
    """A prior whose networks have shapes but no numbers."""

    prior: Prior
    """On the device that it would be used on; its networks are on `meta`."""
    block: nn.Module
    """The one of the network's blocks that stands for all when they are timed."""


def described_prior(name: str, device: torch.device, dtype: torch.dtype) -> Architecture:
    """The architecture of that name, with the batch size that is tried first on this kind of device.

    Raises:
        AttarError: there is none; lists those there are.
    """
    if name not in ARCHITECTURES:
        hint = suggestion(name, ARCHITECTURES)
        raise AttarError(f"[planned] prior {name!r}{hint}: there are {', '.join(ARCHITECTURES)}")
    with torch.device("meta"):
        network, block, schedule, size, scale = ARCHITECTURES[name]()
        vae = _autoencoder(size)
    shape = (4, size // 8, size // 8)
    prior = Prior(
        key=name,
        network=network.requires_grad_(False).to(dtype),
        schedule=schedule,
        codec=AutoencoderCodec(vae.eval().requires_grad_(False), name, size, shape, device, dtype, scale),
        classes=None,
        n_classes=1000,
        null=1000,
        device=device,
        dtype=dtype,
    )
    first = choose(device, lambda _: True, fills(device, prior.row_flops), dtype)
    return Architecture(prior.with_batch_size(first), block)


_Parts = tuple[nn.Module, nn.Module, Schedule, int, float]


def _dit_xl() -> _Parts:
    """facebook/DiT-XL-2-256 (Peebles and Xie, ICCV 2023, table 1)."""
    transformer = DiTTransformer2DModel(
        num_layers=28,
        num_attention_heads=16,
        attention_head_dim=72,
        sample_size=32,
        in_channels=4,
        out_channels=8,
        patch_size=2,
        num_embeds_ada_norm=1000,
    )
    return DiT(transformer), transformer.transformer_blocks[0], _schedule(1e-4, 0.02, 1.0), 256, 0.18215


def _stable_diffusion_1() -> _Parts:
    """The U-Net of Stable Diffusion 1.5 (Rombach et al., CVPR 2022): diffusers' defaults but for the text's width."""
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    schedule = _schedule(0.00085, 0.012, 0.5, ("PNDMScheduler", _PNDM))
    return PromptedUNet(unet, torch.zeros(1001, 77, 768)), unet.mid_block, schedule, 512, 0.18215


_PNDM = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}

ARCHITECTURES: dict[str, Callable[[], _Parts]] = {
    "DiT-XL/2-256": _dit_xl,
    "stable-diffusion-v1-5": _stable_diffusion_1,
}
"""The architectures by name; each is built under `torch.device("meta")`."""


def _schedule(first: float, last: float, power: float, scheduler: tuple[str, dict[str, Any]] | None = None) -> Schedule:
    """betas whose powers rise evenly: 1 is "linear", 0.5 "scaled_linear"."""
    betas = torch.linspace(first**power, last**power, 1000, dtype=torch.float64, device="cpu") ** (1 / power)
    return Schedule((1 - betas).cumprod(0).float(), scheduler=scheduler)


def _autoencoder(size: int) -> Any:
    """Stable Diffusion's autoencoder, which DiT uses too: 8 pixels to a latent of 4 channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=size,
    )
