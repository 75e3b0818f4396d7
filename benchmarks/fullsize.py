"""Full-size priors with random weights, saved as the hub has them: two classes by every method that suits them.

    python -m benchmarks.fullsize --data imagefolder:PHOTOS --out runs/fullsize --model dit --model sd

dit is DiT-XL/2 at 256 pixels, sd Stable Diffusion 1.5 at 512; each is saved in bfloat16. First the plain pipeline of
diffusers makes two images with as many steps. Prints seconds, seconds of the processor, and the most memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

FEW = ["--ipc", "1", "--set", "sampler.steps=2"]
INVERTED = ["--set", "fit.steps=2"]
METHODS = {
    "dit": {
        "prior": [],
        "minimax": ["--set", "fit.max_steps=2", "--set", "fit.monitor.times=0", "--set", "select.pool=1"],
        "d4m": [],
        "d3hr": [*INVERTED, "--set", "fit.per_class=2", "--set", "subsets=10"],
        "mgd3": ["--set", "guide.until=0"],
        "exemplars": INVERTED,
    },
    "sd": {"prior": [], "d4m": [], "d3hr": [*INVERTED, "--set", "fit.per_class=2", "--set", "subsets=10"]},
}
PLAIN = """
import sys, torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.bfloat16)
pipe.set_progress_bar_config(disable=True)
if sys.argv[2] == "dit":
    pipe(class_labels=[0, 1], num_inference_steps=2)
else:
    pipe(["cat", "bee"], num_inference_steps=2)
"""


def dit(folder: Path) -> None:
    """DiT-XL/2 with the autoencoder of Stable Diffusion, of 1,000 classes."""
    from attar.priors.folder import linear_scheduler, write_pipeline
    from benchmarks.models import autoencoder, transformer

    classes = [f"class{number}" for number in range(1000)]
    write_pipeline(folder, transformer("full").bfloat16(), linear_scheduler(), classes, autoencoder("full").bfloat16())


def stable_diffusion(folder: Path) -> None:
    """Stable Diffusion 1.5: its UNet, its text encoder with a small vocabulary, its autoencoder."""
    from diffusers import PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from benchmarks.models import autoencoder

    words = tokenizer(folder / "tokenizer")
    down, up = ["CrossAttnDownBlock2D"] * 3, ["CrossAttnUpBlock2D"] * 3
    unet = UNet2DConditionModel(
        sample_size=64,
        cross_attention_dim=768,
        attention_head_dim=8,
        block_out_channels=(320, 640, 1280, 1280),
        down_block_types=(*down, "DownBlock2D"),
        up_block_types=("UpBlock2D", *up),
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=words,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            bos_token_id=words - 2,
            eos_token_id=words - 1,
        )
    )
    for name, part in {"unet": unet, "vae": autoencoder("full"), "text_encoder": text}.items():
        part.bfloat16().save_pretrained(folder / name)
    noise = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    noise.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


def tokenizer(folder: Path) -> int:
    """CLIP's tokenizer with letters alone; how many words it has."""
    folder.mkdir(parents=True)
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789,.-'()"]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(tokens)


MODELS = {"dit": dit, "sd": stable_diffusion}


def measured(words: list[str], cache: Path) -> dict[str, Any]:
    """Seconds of a command, its processor's seconds, and the most memory that it had."""
    begun = time.monotonic()
    run = subprocess.Popen([sys.executable, *words], env={**os.environ, "ATTAR_CACHE": str(cache)})
    _, status, used = os.wait4(run.pid, 0)
    if status:
        raise SystemExit(f"{words} ended with {status}")
    seconds = time.monotonic() - begun
    return {
        "seconds": round(seconds, 1),
        "processor": round(used.ru_utime + used.ru_stime, 1),
        "memory": 1024 * used.ru_maxrss,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, action="append", required=True)
    parser.add_argument("--method", action="append")
    asked = parser.parse_args()
    print(f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads", flush=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    for model in asked.model:
        folder = asked.out / model
        if not (folder / "model_index.json").is_file():
            torch.manual_seed(0)
            MODELS[model](folder)
        print(model, "diffusers", measured(["-c", PLAIN, str(folder), model], asked.out / "cache"), flush=True)
        for name, settings in METHODS[model].items():
            if asked.method and name not in asked.method:
                continue
            words = ["-m", "attar", "distill", "--data", asked.data, "--prior", str(folder), "--dtype", "bfloat16"]
            words += ["--device", "cpu", "--method", name, *FEW, *settings, "--out", str(asked.out / f"{model}-{name}")]
            print(model, name, measured(words, asked.out / "cache"), flush=True)


if __name__ == "__main__":
    main()
