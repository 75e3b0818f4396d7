"""The class-conditional DiT of diffusers: all that reaches into its layout is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attar.codec import AutoencoderCodec, Codec, PixelCodec
from attar.diffusion import Schedule
from attar.errors import AttarError
from attar.priors.prior import Prior, weights_key
from attar.store import fingerprint


class DiT(nn.Module):
    """A DiTTransformer2DModel, called with latents, times and labels; in eval mode, so that it drops no labels."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer.eval().requires_grad_(False)

    def forward(self, z: Tensor, times: Tensor, y: Tensor) -> Tensor:
        output: Tensor = self.transformer(z, timestep=times, class_labels=y).sample
        return output


def load_dit(source: str, device: torch.device, dtype: torch.dtype) -> Prior:
    """A DiTPipeline folder or hub id, loaded component by component with `from_pretrained`.

    A folder without a VAE is a pixel-space prior. Class names come from `id2label` in model_index.json.

    Raises:
        AttarError: the folder does not hold such a pipeline, or its parts cannot be loaded.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    try:
        index = DiTPipeline.load_config(source)
        if index.get("_class_name") != "DiTPipeline":
            raise AttarError(f"--prior {source}: a {index.get('_class_name')}, not a DiTPipeline")
        transformer = DiTTransformer2DModel.from_pretrained(source, subfolder="transformer")
        scheduler = DDIMScheduler.from_pretrained(source, subfolder="scheduler")
        has_vae = index.get("vae", [None])[0] is not None
        vae = AutoencoderKL.from_pretrained(source, subfolder="vae") if has_vae else None
    except (OSError, ValueError, KeyError) as error:
        raise AttarError(f"--prior {source}: cannot be loaded as a DiTPipeline folder or hub id: {error}") from error
    if transformer.config.norm_type != "ada_norm_zero":
        raise AttarError(
            f"--prior {source}: its transformer has norm_type {transformer.config.norm_type!r}, not a DiT's"
        )
    conventions = {"betas": scheduler.config.beta_schedule, "prediction": scheduler.config.prediction_type}
    network = DiT(transformer)
    return Prior(
        key=fingerprint(weights_key(network), conventions),
        network=network.to(device),
        schedule=Schedule(scheduler.alphas_cumprod, scheduler.config.prediction_type),
        codec=_codec(transformer, vae, device, dtype),
        classes=_names(index.get("id2label"), transformer.config.num_embeds_ada_norm),
        n_classes=transformer.config.num_embeds_ada_norm,
        null=transformer.config.num_embeds_ada_norm,
        device=device,
        dtype=dtype,
    )


def is_folder(source: str) -> bool:
    """Whether `source` is a folder that a diffusers pipeline was saved in."""
    return (Path(source).expanduser() / "model_index.json").is_file()


def _codec(transformer: Any, vae: Any, device: torch.device, dtype: torch.dtype) -> Codec:
    channels, side = transformer.config.in_channels, transformer.config.sample_size
    if vae is None:
        return PixelCodec(size=side, channels=channels)
    vae = vae.eval().requires_grad_(False)
    scale, shift = float(vae.config.scaling_factor), float(vae.config.shift_factor or 0)
    return AutoencoderCodec(
        vae=vae.to(device),
        key=fingerprint(weights_key(vae), scale, shift),
        size=side * 2 ** (len(vae.config.block_out_channels) - 1),
        shape=(channels, side, side),
        device=device,
        dtype=dtype,
        scale=scale,
        shift=shift,
    )


def _names(id2label: dict[str, str] | None, count: int) -> tuple[str, ...] | None:
    if not id2label:
        return None
    names = {int(label): name for label, name in id2label.items()}
    return tuple(names[label] for label in range(count))
