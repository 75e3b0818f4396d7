"""Autoencoders of a prior: opened by folder or hub id, or trained on the data at hand."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from attar.core.batching import choose, device_class, fills
from attar.core.errors import AttarError
from attar.core.progress import Progress, silent
from attar.core.rng import generator, seed_of
from attar.core.store import Artefact, Store
from attar.data import ImageSet, load_pixels
from attar.priors.codec import SCALES, Codec, PixelCodec, autoencoder_codec, load_autoencoder, to_float
from attar.priors.training.optimise import Session, optimise
from attar.priors.training.settings import Autoencoding
from attar.training.processes import once_together, own_part

if TYPE_CHECKING:
    from accelerate import Accelerator

GROUPS = (16, 8, 4, 2, 1)


def train_vae(
    images: ImageSet,
    size: int,
    how: str,
    flip: bool,
    plan: Autoencoding,
    helper: Accelerator,
    store: Store,
    progress: Progress = silent,
) -> Path:
    """A diffusers AutoencoderKL folder in the store, its scaling factor 1 / the deviation of its latents.

    Resumes like everything in the store; images are read as they are drawn, so memory does not grow with the data.
    """
    inputs = {"images": images.identities, "size": size, "preprocess": how, "flip": flip, "training": plan}
    inputs |= {"device": device_class(helper.device), "mixed precision": helper.mixed_precision}
    inputs |= {"processes": helper.num_processes, "torch": torch.__version__}

    def make(scratch: Path) -> None:
        vae = _untrained(size, plan).to(helper.device)
        loss = partial(_loss, vae, images, size, how, flip, plan, helper)
        optimise(list(vae.parameters()), loss, plan, Session(scratch, helper, "training an autoencoder", progress))
        deviation = _deviation(vae.eval(), images, size, how, plan, helper)
        if not 1 / SCALES[1] <= deviation <= 1 / SCALES[0]:
            raise AttarError(
                f"the training of the autoencoder collapsed: its latents' deviation is {deviation:g}; lower "
                f"vae.learning_rate, {plan.learning_rate:g}, or vae.kl_weight, {plan.kl_weight:g}"
            )
        vae.register_to_config(scaling_factor=1 / deviation)
        if helper.is_main_process:
            vae.save_pretrained(scratch)

    return once_together(store, Artefact("vae", inputs), helper, make, assist=make)


def _untrained(size: int, plan: Autoencoding) -> Any:
    levels = int(math.log2(plan.shrink)) + 1
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(plan.seed, "vae", "weights"))
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=(plan.width, *(2 * plan.width,) * (levels - 1)),
            norm_num_groups=next(groups for groups in GROUPS if plan.width % groups == 0),
            latent_channels=plan.channels,
            sample_size=size,
            mid_block_add_attention=False,
        )


def _loss(
    vae: Any, images: ImageSet, size: int, how: str, flip: bool, plan: Autoencoding, helper: Accelerator, step: int
) -> Tensor:
    draw = generator(plan.seed, "train-vae", step)
    picked = torch.randint(len(images), (plan.batch,), generator=draw)
    flipped = (torch.rand(plan.batch, generator=draw) < 0.5) & flip
    noise = torch.randn(plan.batch, plan.channels, size // plan.shrink, size // plan.shrink, generator=draw)
    mine = own_part(helper)
    x = to_float(load_pixels(images, picked[mine].numpy(), size, how))
    x = torch.where(flipped[mine].view(-1, 1, 1, 1), x.flip(-1), x).to(helper.device)
    with helper.autocast():
        posterior = vae.encode(x).latent_dist
        decoded = vae.decode(posterior.mean + posterior.std * noise[mine].to(helper.device)).sample
    kl = 0.5 * (posterior.mean.pow(2) + posterior.var - 1 - posterior.logvar).float().mean()
    return (decoded.float() - x).pow(2).mean() + plan.kl_weight * kl


@torch.inference_mode()
def _deviation(vae: Any, images: ImageSet, size: int, how: str, plan: Autoencoding, helper: Accelerator) -> float:
    chosen = torch.randperm(len(images), generator=generator(plan.seed, "vae", "deviation"))[:2048].numpy()
    means = [
        vae.encode(to_float(load_pixels(images, chosen[i : i + 64], size, how)).to(helper.device)).latent_dist.mean
        for i in range(0, len(chosen), 64)
    ]
    return float(torch.cat(means).float().std())


def open_codec(source: str, size: int | None, device: torch.device, dtype: torch.dtype, dry: bool = False) -> Codec:
    """`pixel` (RGB), `grey`, or the autoencoder of a folder or hub id, also of a DiTPipeline's, its batch size chosen.

    `size` is that of the images, in pixels; an autoencoder knows its own, and takes others.

    Raises:
        AttarError: the source cannot be loaded, or no size is known.
    """
    if source in ("pixel", "grey"):
        if size is None:
            raise AttarError(f"`codec` {source} needs a `size`, in pixels")
        return PixelCodec(size, 3 if source == "pixel" else 1)
    vae = load_autoencoder(source)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    size = size or vae.config.get("sample_size")
    if size is None or size % factor:
        raise AttarError(f"`codec` {source} needs a `size`, in pixels, a multiple of {factor}")
    codec = autoencoder_codec(vae, size // factor, device, dtype)
    return filling(codec, device, dry)


def filling(codec: Codec, device: torch.device, dry: bool) -> Codec:
    """The codec in batches that fill the device; a dry run takes the likely size unproved."""
    exact_at = (lambda _: True) if dry else codec.exact_at
    return codec.with_batch_size(choose(device, exact_at, fills(device, codec.row_flops), codec.weights))
