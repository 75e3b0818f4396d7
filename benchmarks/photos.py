"""Real photographs of mixed size through a VAE and back: images per second, fidelity, and memory, which stays flat.

    python benchmarks/photos.py ../shared/data/photos ../shared/priors/cifar10-dit --size 256 --copies 1,8

Each number of copies is a process of its own and encodes so many times the folder's images, each a file of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch


def measure(photos: str, vae: str, size: int, copies: int) -> dict[str, float]:
    """One process: a folder of copies, encoded shard by shard, the last shard decoded and compared."""
    from attar.core.store import Store
    from attar.data import load_data, load_pixels
    from attar.priors.codec import autoencoder_codec, load_autoencoder, to_float, to_uint8
    from attar.priors.latents import Latents

    files = sorted(file for file in Path(photos).iterdir() if file.suffix.lower() in (".jpeg", ".jpg", ".png"))
    codec = autoencoder_codec(load_autoencoder(vae), size // 4, torch.device("cpu"), torch.float32).with_batch_size(8)
    with tempfile.TemporaryDirectory() as temporary:
        for copy in range(copies):
            for file in files:
                target = Path(temporary) / "data" / "photo" / f"{copy:03d}_{file.name}"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        images = load_data(f"imagefolder:{temporary}/data")
        latents = Latents(images, codec, "adm", Store(Path(temporary) / "cache"), "benchmark")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.monotonic()
        for shard in latents.shards(0):
            last = shard
        seconds = time.monotonic() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        some = last.positions[:8]
        pixels = load_pixels(images, images.of_class(0)[some], size, "adm")
        decoded = to_uint8(codec.decode(last.mean[:8].float()))
        exact = to_uint8(codec.decode(codec.encode(to_float(pixels))[0]))
    return {
        "images": len(images),
        "images/s": len(images) / seconds,
        "peak MiB above start": (peak - before) / 1024,
        "PSNR dB, bfloat16 latents": psnr(pixels, decoded),
        "PSNR dB, float32 latents": psnr(pixels, exact),
    }


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 images."""
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b.astype(float)).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("vae", help="folder of an AutoencoderKL, or a pipeline folder that has one")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--copies", default="1,8")
    given = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for copies in map(int, given.copies.split(",")):
            found = pool.apply(measure, (given.photos, given.vae, given.size, copies))
            print(", ".join(f"{name} {value:.1f}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
