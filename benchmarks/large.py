"""Memory against the number of images: many synthetic photographs of 64 pixels, and the commands that read them all.

    python -m benchmarks.large --out runs/large --images 50000 --images 200000

Makes shards of parquet with JPEG files of ten classes, and a small random latent prior, then runs each command and
watches the anonymous memory of its process: what it took from the system, files that are mapped left out. Prints a line
for each, and writes large.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

TEN = 10
"""Classes, where nothing else is asked for."""
SHARD = 10_000
SIDE = 64


def class_names(count: int) -> list[str]:
    return [f"class {number}" for number in range(count)]


def made(folder: Path, count: int, classes: int = TEN) -> Path:
    """Shards of `count` images of smooth noise, each class in a colour of its own."""
    names = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())])
    feature = {"image": {"_type": "Image"}, "label": {"names": class_names(classes), "_type": "ClassLabel"}}
    schema = names.with_metadata({"huggingface": json.dumps({"info": {"features": feature}})})
    shards = -(-count // SHARD)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        file, draw = folder / f"train-{number:05d}-of-{shards:05d}.parquet", np.random.default_rng(number)
        if file.exists():
            continue
        labels = np.arange(min(SHARD, count - number * SHARD)) % classes
        coarse = draw.integers(0, 200, (len(labels), 8, 8, 3), np.uint8)
        coarse[..., 0] = coarse[..., 0] // 4 + (labels * (200 // classes))[:, None, None]
        images = [{"bytes": _jpeg(pixels), "path": None} for pixels in coarse]
        pq.write_table(pa.table({"image": images, "label": labels}, schema), file, row_group_size=500)
    return folder


def _jpeg(coarse: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def prior(folder: Path, classes: int = TEN) -> Path:
    """A DiT of two small blocks on the latents of a small AutoencoderKL."""
    import torch
    from diffusers import AutoencoderKL, DiTTransformer2DModel

    from attar.priors.folder import linear_scheduler, write_pipeline
    from benchmarks.models import alike

    if folder.exists():
        return folder
    torch.manual_seed(0)
    widths = (8, 8, 16, 16)
    blocks = len(widths)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIDE,
    )
    dit = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=classes,
    )
    write_pipeline(folder, alike(dit), linear_scheduler(), class_names(classes), vae)
    return folder


def commands(data: Path, prior: Path, out: Path) -> dict[str, list[str]]:
    real, few = ["--data", f"parquet:{data}@train", "--device", "cpu"], ["--set", "sampler.steps=2"]
    latent = [*real, "--prior", str(prior), "--ipc", "2", *few]
    methods = {
        "d3hr": ["fit.steps=2", "fit.times=500", "subsets=20"],
        "minimax": ["fit.max_steps=20", "fit.monitor.times=0", "sampler.guided_channels=none"],
        "d4m": [],
        "exemplars": ["fit.steps=2", "fit.time=500"],
    }
    chain = {
        f"distill {name}": ["distill", *latent, "--method", name, *(w for s in settings for w in ("--set", s))]
        for name, settings in methods.items()
    }
    chain["distill random"] = ["distill", *real, "--method", "random", "--ipc", "2"]
    training = ["--codec", str(prior), "--steps", "20", "--batch", "64", "--set", "training.hidden=64"]
    judged = ["--report-samples", "20", "--set", "report.judge_steps=20", "--set", "report.steps=2"]
    chain["train-prior"] = ["train-prior", *real, *training, *judged]
    chain["train-teacher"] = ["train-teacher", *real, "--network", "convnet3-w8", "--epochs", "1", "--batch", "256"]
    return {name: [*words, "--out", str(out / name.replace(" ", "-"))] for name, words in chain.items()}


def watched(words: list[str], cache: Path, log: Path) -> tuple[float, int]:
    """Runs a command; its seconds, and the most bytes of anonymous memory that its process had."""
    begun, most = time.monotonic(), 0
    with log.open("ab") as kept:
        run = subprocess.Popen(
            [sys.executable, "-m", "attar", *words],
            env={**os.environ, "ATTAR_CACHE": str(cache)},
            stdout=kept,
            stderr=kept,
        )
        while run.poll() is None:
            status = Path(f"/proc/{run.pid}/status")
            try:
                held = [line.split() for line in status.read_text().splitlines() if line.startswith("RssAnon")]
            except OSError:
                held = []
            most = max([most, *(1024 * int(line[1]) for line in held)])
            time.sleep(0.05)
    if run.returncode:
        raise RuntimeError(f"attar {' '.join(words)}\n{log.read_text()[-2000:]}")
    return time.monotonic() - begun, most


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, action="append", required=True)
    parser.add_argument("--only", action="append")
    asked = parser.parse_args()
    file, rows = asked.out / "large.json", list[dict[str, object]]()
    for count in asked.images:
        place = asked.out / str(count)
        chain = commands(made(place / "data", count), prior(asked.out / "prior"), place)
        for name, words in chain.items():
            if asked.only and name not in asked.only:
                continue
            seconds, memory = watched(words, place / "cache", place / "log")
            rows.append({"command": name, "images": count, "seconds": round(seconds, 1), "anonymous": memory})
            print(f"{count:,} images, {name}: {memory / 2**30:.2f} GiB, {seconds:.0f} s", flush=True)
            file.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
