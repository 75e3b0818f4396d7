"""Decoding and writing: latents to PNG files."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from attar.priors.codec import to_uint8
from attar.sets.distilled import _saved
from benchmarks.models import codec, coding_flops, named, plain
from benchmarks.timing import Case, Where

SIZES = {"tiny": 4, "small": 256, "full": 2}
"""Images."""


def case(size: str, where: Where) -> Case:
    count, root, ours = SIZES[size], tempfile.TemporaryDirectory(), codec(size, where)
    z = torch.randn(count, *ours.shape, generator=torch.Generator().manual_seed(0))
    rows = sorted({min(count, at_once) for at_once in (16, 64)})
    return Case(
        ours=lambda: attar(ours, z, Path(root.name)),
        best={
            f"{named(dtype)}, {batch} images": partial(loop, size, dtype, batch, z, Path(root.name), where.device, 4)
            for dtype in where.formats
            for batch in rows
        },
        straight=partial(loop, size, torch.float32, 1, z, Path(root.name), where.device, 1),
        work=f"{count} images of {ours.size} pixels",
        flops=float(count * coding_flops(size)[1]),
        close=root.cleanup,
    )


def attar(ours: object, z: Tensor, root: Path) -> None:
    pixels = to_uint8(ours.decode(z))  # type: ignore[attr-defined]
    _saved(root, "ours", ["all"], [(0, index, image) for index, image in enumerate(pixels)])


@torch.inference_mode()
def loop(size: str, dtype: torch.dtype, batch: int, z: Tensor, root: Path, device: torch.device, threads: int) -> None:
    vae = plain("autoencoder", size, device, dtype)
    with ThreadPoolExecutor(threads) as pool:
        for begin in range(0, len(z), batch):
            images = vae.decode(z[begin : begin + batch].to(device, dtype, memory_format=torch.channels_last)).sample
            pixels = ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            for index, image in enumerate(pixels):
                pool.submit(Image.fromarray(image).save, root / f"plain{begin + index}.png")
