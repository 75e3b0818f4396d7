"""Tiny real models, and priors whose answers are known in closed form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attar.diffusion import Schedule
from attar.keys import numpy_generator


def linear_schedule() -> Schedule:
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    return Schedule((1 - betas).cumprod(0).float())


class GaussianPrior:
    """Class y is N(mean[y], std[y]^2) in every feature, so the best denoiser is known exactly."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.schedule = linear_schedule()
        self.mean, self.std = mean, std
        self.null = len(mean) - 1
        self.calls = 0

    def __call__(self, z: Tensor, t: int, y: Tensor) -> Tensor:
        self.calls += 1
        abar = self.schedule.abar(t)
        mean, std = (table[y].reshape(-1, 1, 1, 1) for table in (self.mean, self.std))
        return (1 - abar) ** 0.5 * (z - abar**0.5 * mean) / (abar * std**2 + 1 - abar)

    def at(self, z0: Tensor, t: int, y: Tensor) -> Tensor:
        """Where the exact probability flow takes clean latents: a Gaussian is scaled to its marginal at t."""
        abar = self.schedule.abar(t)
        mean, std = (table[y].reshape(-1, 1, 1, 1) for table in (self.mean, self.std))
        return abar**0.5 * mean + (abar * std**2 + 1 - abar) ** 0.5 * (z0 - mean) / std


def save_tiny_dit(folder: Path, classes: list[str] | None, *, vae: bool = True, learned_sigma: bool = True) -> Path:
    """A random DiTPipeline folder: 16-pixel images, 8 x 8 latents of 4 channels; seconds to use."""
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    channels, count = (4 if vae else 3), len(classes) if classes else 10
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=channels,
            out_channels=channels * (2 if learned_sigma else 1),
            num_layers=2,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=count,
        )
        codec = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
            sample_size=16,
            scaling_factor=0.5,
        )
    DiTPipeline(transformer, codec, DDIMScheduler(clip_sample=False)).save_pretrained(folder)
    index = folder / "model_index.json"
    if classes:
        labels = {str(label): name for label, name in enumerate(classes)}
        index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": labels}))
    return folder


def save_folder(root: Path, classes: list[str], each: int, size: int = 16, seed: int = 0) -> Path:
    """An image folder of random smooth pictures."""
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(each):
            small = numpy_generator(seed, name, index).integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(small).resize((size, size)).save(root / name / f"{index:03d}.png")
    return root
