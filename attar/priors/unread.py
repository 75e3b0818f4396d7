"""A prior whose weights are left unread: what a dry run looks at where reading them would take long, or much memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attar.core.batching import choose, fills, resolve
from attar.core.files import at_home, expand_user
from attar.core.fingerprints import fingerprint
from attar.data.class_names import named
from attar.diffusion import Schedule
from attar.priors import form_of
from attar.priors.codec import AutoencoderCodec, Codec, PixelCodec, autoencoder_config
from attar.priors.diffusers_pipeline import load_schedule, opening, read_index
from attar.priors.dit import DiT
from attar.priors.prior import Prior
from attar.priors.prompts import Prompts
from attar.priors.stable_diffusion import PIPELINE_SETTINGS, PromptedUNet
from attar.priors.straight_path import set_straight

LARGE = 2**28
"""Bytes of weights from which on a dry run leaves them unread: a second of a disk, a quarter of its memory."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def is_large(source: str) -> bool:
    """Whether a prior's weights are more than a dry run reads, or are still to be downloaded; digits' never are.

    A checkpoint file is read whatever its size: its shapes are nowhere else.
    """
    place = expand_user(source)
    if source == "digits" or place.is_file():
        return False
    if not place.is_dir():
        from huggingface_hub import try_to_load_from_cache

        index = try_to_load_from_cache(source, "model_index.json")
        if not isinstance(index, str):
            return True
        place = Path(index).parent
    return sum(file.stat().st_size for file in place.rglob("*") if file.suffix in WEIGHTS) > LARGE


def unread_prior(
    source: str,
    device: str,
    dtype: str,
    tile: int | None = None,
    codec: str | None = None,
    prompts: Prompts | None = None,
) -> Prior:
    """The prior of a diffusers pipeline without its numbers: shapes, schedule, class names.

    Its networks are on the meta device, its batch size is the one that is tried first, and its keys are no fingerprints
    of weights, so that nothing in a cache is taken for made with it.

    Raises:
        AttarError: a configuration cannot be read.
    """
    place, number_format = resolve(device, dtype)
    source = at_home(source)
    index, (shape, own) = read_index(source), form_of(source).latent_space(source)
    with torch.device("meta"):
        network, schedule, classes, count = _SHAPES[str(index["_class_name"])](source, index, prompts)
    prior = Prior(
        key=fingerprint("unread", source),
        network=network.requires_grad_(False).to(number_format),
        schedule=schedule,
        codec=_codec(codec or own, shape, place, number_format),
        classes=classes,
        n_classes=count,
        null=count,
        device=place,
        dtype=number_format,
        prompts=prompts,
    )
    return prior.with_batch_size(tile or choose(place, lambda _: True, fills(place, prior.row_flops), prior.weights))


def block_of(network: Any) -> nn.Module:
    """The one of a network's blocks that stands for all when they are timed."""
    block: nn.Module = (
        network.unet.mid_block if isinstance(network, PromptedUNet) else network.transformer.transformer_blocks[0]
    )
    return block


_Shapes = tuple[nn.Module, Schedule, tuple[str, ...] | None, int]


def _dit(source: str, index: dict[str, Any], _: Prompts | None) -> _Shapes:
    from diffusers import DiTTransformer2DModel

    with opening(source, "DiTPipeline"):
        transformer = DiTTransformer2DModel.from_config(
            DiTTransformer2DModel.load_config(source, subfolder="transformer")
        )
    count, id2label = transformer.config.num_embeds_ada_norm, index.get("id2label") or None
    names = None if id2label is None else named(id2label, count, f"`prior` {source}: model_index.json")
    with torch.device("cpu"):
        schedule = load_schedule(source, index)
        if schedule.straight:
            set_straight(transformer)
        return DiT(transformer), schedule, names, count


def _stable_diffusion(source: str, index: dict[str, Any], prompts: Prompts | None) -> _Shapes:
    from diffusers import UNet2DConditionModel

    prompts = prompts or Prompts()
    with opening(source, "Stable Diffusion"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(source, subfolder="unet"))
    states = torch.zeros(len(prompts.classes) + 1, 77, unet.config.cross_attention_dim)
    with torch.device("cpu"):
        schedule = load_schedule(source, index, **PIPELINE_SETTINGS)
    return PromptedUNet(unet, states), schedule, prompts.classes, len(prompts.classes)


_SHAPES: dict[str, Callable[[str, dict[str, Any], Prompts | None], _Shapes]] = {
    "DiTPipeline": _dit,
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionImg2ImgPipeline": _stable_diffusion,
}


def _codec(source: str, shape: tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> Codec:
    if source == "pixel":
        return PixelCodec(size=shape[1], channels=shape[0])
    kind, config = autoencoder_config(source)
    with torch.device("meta"):
        vae = kind.from_config(config).eval().requires_grad_(False)
    size, scale = shape[1] * 2 ** (len(vae.config.block_out_channels) - 1), float(vae.config.scaling_factor)
    codec = AutoencoderCodec(vae, fingerprint("unread", source), size, shape, device, dtype, scale)
    vae.to(codec.weights)
    return codec.with_batch_size(choose(device, lambda _: True, fills(device, codec.row_flops), codec.weights))
