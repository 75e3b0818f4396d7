"""Stable Diffusion 1.x and 2.x, given a prompt for each class: all that reaches into their folders is here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from attar.core.errors import AttarError
from attar.core.store import digest, fingerprint
from attar.priors.codec import Codec, load_whole, weights_key
from attar.priors.diffusers_pipeline import load_schedule, opening, read_index
from attar.priors.prior import Prior
from attar.priors.prompts import Prompts

PIPELINE_SETTINGS = {"steps_offset": 1, "clip_sample": False}
"""What diffusers' Stable Diffusion pipelines set in every scheduler that they are given, whatever its file says."""


class PromptedUNet(nn.Module):
    """A UNet2DConditionModel, called with latents, times and labels; the last label is the negative prompt's."""

    embeddings: Tensor

    def __init__(self, unet: nn.Module, embeddings: Tensor) -> None:
        super().__init__()
        self.unet: Any = unet.eval().requires_grad_(False)
        self.register_buffer("embeddings", embeddings, persistent=False)

    def forward(self, z: Tensor, times: Tensor, y: Tensor) -> Tensor:
        """Of labels (N,), or of their prompts' states (N, L, D)."""
        states = y.to(z.dtype) if y.is_floating_point() else self.embedded(y)
        output: Tensor = self.unet(z, times, encoder_hidden_states=states).sample
        return output

    def embedded(self, y: Tensor) -> Tensor:
        """The states (N, L, D) of the prompts of labels (N,)."""
        return self.embeddings[y]


def latent_space(source: str) -> tuple[tuple[int, int, int], str]:
    """(C, H, W) of the latents, read off the U-Net's configuration, and where the codec is: in the same folder.

    Raises:
        AttarError: it is no U-Net of a Stable Diffusion 1.x or 2.x that makes images from text.
    """
    from diffusers import UNet2DConditionModel

    with opening(source, "Stable Diffusion"):
        config = UNet2DConditionModel.load_config(source, subfolder="unet")
        channels, side = config["in_channels"], config["sample_size"]
    conditions = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")
    others = [f"{field} {config[field]!r}" for field in conditions if config.get(field) is not None]
    if channels != config["out_channels"]:
        others.append(f"{channels} input and {config['out_channels']} output channels")
    if others:
        raise AttarError(
            f"`prior` {source}: its U-Net has {', '.join(others)}; "
            "only Stable Diffusion 1.x and 2.x that make images from text alone are supported"
        )
    return (channels, side, side), source


def load_stable_diffusion(
    source: str, device: torch.device, dtype: torch.dtype, codec: Codec, prompts: Prompts | None = None
) -> Prior:
    """A StableDiffusionPipeline folder or hub id, loaded part by part; no safety checker.

    Each prompt is embedded once, and the text encoder freed before the U-Net is loaded. Without prompts the prior has
    no classes. `null` is the negative prompt's label.

    Raises:
        AttarError: the folder does not hold such a pipeline, its parts cannot be loaded, or a prompt is too long.
    """
    from diffusers import UNet2DConditionModel

    prompts, schedule = prompts or Prompts(), load_schedule(source, read_index(source), **PIPELINE_SETTINGS)
    embeddings, text_key = embedded(source, prompts, device)
    with opening(source, "Stable Diffusion"):
        unet = load_whole(UNet2DConditionModel, source, subfolder="unet")
    if unet.config.cross_attention_dim != embeddings.shape[-1]:
        raise AttarError(
            f"`prior` {source}: its text encoder's states have {embeddings.shape[-1]} features, "
            f"its U-Net takes {unet.config.cross_attention_dim}"
        )
    return Prior(
        key=fingerprint(weights_key(unet), _settings(unet.config), text_key, schedule.scheduler, prompts.negative),
        network=PromptedUNet(unet, embeddings).to(device, dtype),
        schedule=schedule,
        codec=codec,
        classes=prompts.classes,
        n_classes=len(prompts.classes),
        null=len(prompts.classes),
        device=device,
        dtype=dtype,
        prompts=prompts,
    )


@torch.no_grad()
def embedded(source: str, prompts: Prompts, device: torch.device) -> tuple[Tensor, str]:
    """The states (classes + 1, L, D) of the text encoder for each class's prompt and the negative one, float32.

    Also the fingerprint of what they are made with. Prompts are encoded one by one, so that a class's states do not
    depend on the others; a class without a prompt has zeros.

    Raises:
        AttarError: the text encoder cannot be loaded, or a prompt has more tokens than it takes.
    """
    tokenizer, encoder = _text_encoder(source)
    encoder = encoder.eval().float().to(device)
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    rows = torch.zeros(len(prompts.texts) + 1, length, encoder.config.hidden_size)
    for row, text in zip(rows, [*prompts.texts, prompts.negative], strict=True):
        if text is None:
            continue
        count = len(tokenizer(text).input_ids)
        if count > length:
            raise AttarError(f"the prompt {text!r} has {count} tokens; the text encoder of {source} takes {length}")
        tokens = tokenizer(text, padding="max_length", max_length=length, return_tensors="pt").to(device)
        mask = tokens.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
        row.copy_(encoder(tokens.input_ids, attention_mask=mask)[0][0])
    words, settings = tokenizer.backend_tokenizer.to_str(), _settings(encoder.config.to_diff_dict())
    return rows, fingerprint(weights_key(encoder), settings, digest(words.encode()), version("transformers"))


def _text_encoder(source: str) -> tuple[Any, Any]:
    """The tokenizer and the text encoder."""
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise AttarError("Stable Diffusion needs transformers: pip install 'attar[sd]'") from error
    with opening(source, "Stable Diffusion"):
        tokenizer = CLIPTokenizer.from_pretrained(source, subfolder="tokenizer")
        encoder = load_whole(CLIPTextModel, source, subfolder="text_encoder")
    if len(tokenizer) != encoder.config.vocab_size:
        raise AttarError(
            f"`prior` {source}: its tokenizer knows {len(tokenizer)} words and its text encoder "
            f"{encoder.config.vocab_size}; is the tokenizer's folder whole?"
        )
    return tokenizer, encoder


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without its versions and files."""
    versions = ("transformers_version", "dtype", "torch_dtype", "architectures")
    return {name: value for name, value in config.items() if not name.startswith("_") and name not in versions}
