"""Encoding: a folder of JPEG files to latents."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from attar.core.store import Store
from attar.data import load_data
from attar.priors.latents import Latents
from benchmarks.models import codec, coding_flops, named, pictures, plain
from benchmarks.timing import Case, Where

SIZES = {"tiny": (4, 32, 0), "small": (256, 64, 2), "full": (4, 512, 2)}
"""Images, their side in pixels, and workers of the DataLoaders; the plain loop may do without."""


def case(size: str, where: Where) -> Case:
    count, side, workers = SIZES[size]
    root = tempfile.TemporaryDirectory()
    folder, ours = pictures(Path(root.name) / "data", 2, count // 2, side), codec(size, where)
    workers = min(workers, os.cpu_count() or 1)
    rows = sorted({min(count, at_once) for at_once in (16, 64)})
    return Case(
        ours=lambda: attar(folder, ours, Path(root.name)),
        best={
            f"{named(dtype)}, {batch} images, {n} workers": partial(loop, folder, size, dtype, batch, n, where.device)
            for dtype in where.formats
            for batch in rows
            for n in sorted({0, workers})
        },
        straight=partial(loop, folder, size, torch.float32, 1, workers, where.device),
        work=f"{count} JPEG files of {side} pixels, to {ours.size}",
        flops=float(count * coding_flops(size)[0]),
        close=root.cleanup,
    )


def attar(folder: Path, ours: object, root: Path) -> None:
    with tempfile.TemporaryDirectory(dir=root) as cache:
        latents = Latents(load_data(f"imagefolder:{folder}"), ours, "adm", Store(Path(cache)), {})  # type: ignore[arg-type]
        for label in range(2):
            for _ in latents.shards(label):
                pass


@torch.inference_mode()
def loop(folder: Path, size: str, dtype: torch.dtype, batch: int, workers: int, device: torch.device) -> None:
    vae = plain("autoencoder", size, device, dtype)
    side = vae.config.sample_size
    shaped = [
        transforms.Resize(side),
        transforms.CenterCrop(side),
        transforms.ToTensor(),
        transforms.Normalize(0.5, 0.5),
    ]
    for images, _ in DataLoader(ImageFolder(folder, transforms.Compose(shaped)), batch, num_workers=workers):
        vae.encode(images.to(device, dtype, memory_format=torch.channels_last)).latent_dist.sample().float().cpu()
