"""Full-size priors with random weights, saved as the hub has them: two classes by every method that suits them.

    python -m benchmarks.fullsize --out runs/fullsize                       # all rows of both; goes on where it was
    python -m benchmarks.fullsize --out runs/fullsize --model dit --row prior --again

dit is DiT-XL/2 at 256 pixels, sd Stable Diffusion 1.5 at 512; each is saved in bfloat16. First the plain pipeline of
diffusers makes two images with as many steps. Each row is a process of its own, in a cache of its own that holds
nothing but the images' latents, which the row `herding` makes. A row is kept as soon as it is done, and one that needs
more processor time or memory than it may is ended and says so. `python -m benchmarks --write` puts them on the page.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.__main__ import RESULTS, keep, machine

PLAIN = "diffusers"
ENCODING = "herding"
"""The row that encodes the images for all."""
CLASSES = ("class0", "class1")
EACH = 3
"""Images of a class."""
FEW: dict[str, Any] = {"sampler.steps": 2}
TUNED = {"fit.max_steps": 2, "fit.batch": 2, "fit.monitor.times": 0, "select.pool": 1, **FEW}
INVERTED = {"fit.steps": 2, **FEW}
EXEMPLARS = {**INVERTED, "fit.time": 500}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "herding": ("herding", {"select.features": "latents"}),
    "prior": ("prior", FEW),
    "d4m": ("d4m", {"strength": 1, **FEW}),
    "d4m-noise": ("d4m-noise", FEW),
    "mgd3": ("mgd3", {"guide.until": 0, **FEW}),
    "tgdd": ("tgdd", {"guide.until": 0, **FEW}),
    "ot": ("ot", {"guide.first": 1, "guide.last": 0, "fit.count": 3, **FEW}),
    "dmgd": ("dmgd", {"guide.first": 1, "guide.last": 0, "fit.count": 3, **FEW}),
    "cgs": ("cgs", FEW),
    "dap": ("dap", FEW),
    "d3hr": ("d3hr", {"fit.times": 500, "fit.per_class": 2, "subsets": 10, **INVERTED}),
    "exemplars": ("exemplars", EXEMPLARS),
    "exemplars, refined": ("exemplars", {**EXEMPLARS, "refine": "true", "refine.steps": 1, "refine.real": 2}),
    "exemplars, DIVER": (
        "exemplars",
        {**EXEMPLARS, "refine": "diver", "refine.sampler.steps": 2, "refine.noised": 1, "refine.first": 1}
        | {"refine.last": 0},
    ),
    "cao2": ("cao2", {"select.rule": "first", "select.times": 1, "refine.steps": 1, **FEW}),
    "igd": (
        "igd",
        {"guide.first": 1, "guide.last": 0, "guide.real": 1, "fit.epochs": 1, "fit.kept": 1, "fit.batch": 2, **FEW},
    ),
    "minimax": ("minimax", TUNED),
    "minimax, LoRA": ("minimax", {"fit.adapt": "lora", **TUNED}),
    "rsm": ("rsm", TUNED),
}
"""Each in as few steps as it takes; `cao2` without the classifier of its first stage."""
NAMES = {"dit": "DiT-XL/2, 256 pixels", "sd": "Stable Diffusion 1.5, 512 pixels"}
DITS_ONLY = ("minimax", "rsm")
SD_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"latents": 8, "wide": (32, 64), "text": 12, "layers": 2, "heads": 3},
    "full": {"latents": 64, "wide": (320, 640, 1280, 1280), "text": 768, "layers": 12, "heads": 12},
}


def dit(folder: Path, size: str) -> None:
    """DiT-XL/2 with the autoencoder of Stable Diffusion, of 1,000 classes."""
    from attar.priors.folder import linear_scheduler, write_pipeline
    from benchmarks.models import autoencoder, transformer

    names = [f"class{number}" for number in range(1000)]  # diffusers' pipeline takes label 1000 for none
    network = transformer(size, len(names)).bfloat16()
    write_pipeline(folder, network, linear_scheduler(), names, autoencoder(size).bfloat16())


def stable_diffusion(folder: Path, size: str) -> None:
    """Stable Diffusion 1.5: its UNet, its text encoder with a small vocabulary, its autoencoder."""
    from diffusers import PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from benchmarks.models import autoencoder

    words, sizes = tokenizer(folder / "tokenizer"), SD_SIZES[size]
    attending = len(sizes["wide"]) - 1
    unet = UNet2DConditionModel(
        sample_size=sizes["latents"],
        cross_attention_dim=sizes["text"],
        attention_head_dim=8,
        block_out_channels=sizes["wide"],
        down_block_types=("CrossAttnDownBlock2D",) * attending + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * attending,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=words,
            hidden_size=sizes["text"],
            intermediate_size=4 * sizes["text"],
            num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["heads"],
            bos_token_id=words - 2,
            eos_token_id=words - 1,
        )
    )
    for name, part in {"unet": unet, "vae": autoencoder(size), "text_encoder": text}.items():
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


def rows_of(model: str) -> Iterator[str]:
    """The rows that a model has, the plain pipeline first."""
    yield PLAIN
    yield from (row for row, (method, _) in ROWS.items() if model == "dit" or method not in DITS_ONLY)


def words_of(row: str, data: Path, prior: Path, out: Path) -> list[str]:
    """What `benchmarks.steps` runs for a row."""
    if row == PLAIN:
        return ["diffusers", str(prior), *CLASSES]
    method, settings = ROWS[row]
    fields = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    words = ["attar", "distill", "--data", f"imagefolder:{data}", "--prior", str(prior), "--dtype", "bfloat16"]
    return [*words, "--device", "cpu", "--method", method, "--ipc", "1", *fields, "--out", str(out)]


def measured(words: list[str], cache: Path, steps: Path, most: dict[str, float]) -> dict[str, Any]:
    """What a run took: `seconds`, those of the `processor`, bytes of `memory` at most and the seconds of its `steps`.

    `stopped` says which of the limits in `most` it passed, which ended it.
    """
    begun, why = time.monotonic(), ""
    command = [sys.executable, "-m", "benchmarks.steps", str(steps), *words]
    run = subprocess.Popen(command, env={**os.environ, "ATTAR_CACHE": str(cache)})
    while True:
        ended, status, used = os.wait4(run.pid, os.WNOHANG)
        if ended:
            break
        if not why and (why := passed(run.pid, most)):
            run.kill()
        time.sleep(0.2)
    run.returncode = os.waitstatus_to_exitcode(status)
    found: dict[str, Any] = {
        "seconds": round(time.monotonic() - begun, 1),
        "processor": round(used.ru_utime + used.ru_stime, 1),
        "memory": 1024 * used.ru_maxrss,
    }
    if why:
        return {**found, "stopped": why}
    if run.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {run.returncode}")
    return {**found, "steps": json.loads(steps.read_text())}


def passed(pid: int, most: dict[str, float]) -> str:
    """Which limit a process has passed, in words."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    if int(status.get("VmRSS", "0").split()[0]) * 1024 > most["GB"] * 1e9:
        return f"more than {most['GB']:g} GB"
    if (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") > 60 * most["minutes"]:
        return f"more than {most['minutes']:g} min of the processor"
    return ""


def in_words(model: str, row: str, found: dict[str, dict[str, Any]]) -> str:
    """A row beside the plain pipeline's, in one line."""
    case = found[name_of(model, row)]
    words = f"{model}, {row}: {case['processor']:.0f} s of the processor, {case['memory'] / 1e9:.1f} GB"
    if "stopped" in case:
        return f"{words}, stopped: {case['stopped']}"
    if (against := beside_plain(model, row, found)) is None:
        return words
    return f"{words}, {min(case['steps']):.2f} s a step and image, {against:.2f} times the plain pipeline's"


def beside_plain(model: str, row: str, found: dict[str, dict[str, Any]]) -> float | None:
    """A row's shortest step, as a multiple of the plain pipeline's; None of a row that samples nothing itself."""
    steps, plain = (found.get(name_of(model, of), {}).get("steps") for of in (row, PLAIN))
    return min(steps) / min(plain) if steps and plain else None


def emptied(folder: Path) -> Path:
    """A folder that is not there, whatever an earlier run has left of it."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def name_of(model: str, row: str) -> str:
    """The key that a row is kept under."""
    return f"fullsize/{model}/{row}"


def main() -> None:
    import torch

    from attar.core.batching import resolve
    from benchmarks.models import pictures
    from benchmarks.timing import Where

    parser = argparse.ArgumentParser("python -m benchmarks.fullsize", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="for the models, the sets and the cache")
    parser.add_argument("--model", choices=MODELS, action="append", help="both, if you name none")
    parser.add_argument("--row", choices=[PLAIN, *ROWS], action="append", help="all, if you name none")
    parser.add_argument("--again", action="store_true", help="measure rows that the file has already once more")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where rows are kept; others there stay")
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help="tiny: to try this program")
    parser.add_argument("--minutes", type=float, default=6, help="of the processor that a row may take")
    parser.add_argument("--memory", type=float, default=12, help="GB that a row may take")
    asked = parser.parse_args()
    photos, about = asked.out / "photos", machine(Where(*resolve("cpu", "bfloat16")))
    if not photos.is_dir():
        pictures(photos, len(CLASSES), EACH, 256)
    for model in asked.model or MODELS:
        prior = asked.out / model
        if not (prior / "model_index.json").is_file():
            torch.manual_seed(0)
            MODELS[model](prior, asked.size)
        for row in rows_of(model):
            found = json.loads(asked.json.read_text()) if asked.json.is_file() else {}
            if (asked.row and row not in asked.row) or (name_of(model, row) in found and not asked.again):
                continue
            words = words_of(row, photos, prior, emptied(asked.out / "set"))
            most = {"minutes": asked.minutes, "GB": asked.memory}
            latents, cache = asked.out / f"latents-{model}", emptied(asked.out / "cache")
            if row != ENCODING and latents.is_dir():
                shutil.copytree(latents, cache)
            case = measured(words, cache, asked.out / "steps.json", most)
            if row == ENCODING:
                shutil.copytree(cache, emptied(latents))
            case |= {"device": "cpu", "dtype": "bfloat16", "machine": about}
            keep(asked.json, name_of(model, row), case)
            print(in_words(model, row, {**found, name_of(model, row): case}), flush=True)


if __name__ == "__main__":
    main()
