"""A prior on disk: a diffusers DiTPipeline folder, its card, and how it comes to where the user wants it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers

from attar.core.errors import AttarError
from attar.core.files import appearing, write_json
from attar.core.json_shapes import DIGEST, MEASURED, Values, mistake, read_json
from attar.diffusion.straight import FLOW

RECORD = "training.json"
"""All that is recorded of a training: its key, its settings, its measures."""


def linear_scheduler(prediction: str = "epsilon") -> Any:
    """DDIM with linear betas from 1e-4 to 0.02 in 1000 steps, which does not clip; of noise or of `v_prediction`."""
    return diffusers.DDIMScheduler(beta_schedule="linear", clip_sample=False, prediction_type=prediction)


def new_scheduler(prediction: str) -> Any:
    """That of a new prior: linear betas, or the straight path of a rectified `flow`."""
    return diffusers.FlowMatchEulerDiscreteScheduler() if prediction == "flow" else linear_scheduler(prediction)


def write_pipeline(folder: Path, transformer: Any, scheduler: Any, classes: Sequence[str], vae: Any | None) -> None:
    """Writes the parts and `model_index.json` with `id2label`, so that DiTPipeline.from_pretrained opens it.

    A pixel-space prior has no VAE: diffusers opens its folder with `vae=None`. A network with the original's timestep
    frequencies (attar.priors.dit.Conventions) says so under `_frequency_shift`; diffusers itself knows only its own.
    """
    transformer.save_pretrained(folder / "transformer")
    scheduler.save_pretrained(folder / "scheduler")
    if vae is not None:
        vae.save_pretrained(folder / "vae")
    index = {
        "_class_name": "DiTPipeline",
        "_diffusers_version": diffusers.__version__,
        "id2label": {str(label): name for label, name in enumerate(classes)},
        "scheduler": ["diffusers", type(scheduler).__name__],
        "transformer": ["diffusers", type(transformer).__name__],
        "vae": [None, None] if vae is None else ["diffusers", type(vae).__name__],
    }
    shift = int(transformer.transformer_blocks[0].norm1.emb.time_proj.downscale_freq_shift)
    write_json(folder / "model_index.json", index if shift == 1 else {**index, "_frequency_shift": shift})


def write_card(folder: Path, title: str, record: Mapping[str, Any]) -> None:
    """Writes `training.json`, all of `record`, and README.md, a model card made of it."""
    write_json(folder / RECORD, dict(record))
    classes, measures = record["classes"], record["measures"]
    opening = "" if record["vae"] else ", vae=None"
    lines = [
        "---",
        "library_name: diffusers",
        "pipeline_tag: unconditional-image-generation",
        "---",
        f"# {title}",
        "",
        f"A class-conditional diffusion transformer of {len(classes)} classes, trained by Attar on `{record['data']}`.",
        "",
        "```python",
        "from diffusers import DiTPipeline",
        f'DiTPipeline.from_pretrained("THIS FOLDER"{opening})',
        "```",
        "",
        f"- {record['parameters']:,} parameters; {record['images_seen']:,} images seen in {record['seconds']:,.0f} s "
        f"on {record['device']}; final loss {record['loss']:.4f}.",
        *_kept(record),
        *_sampled_by(folder),
        f"- Null label {len(classes)}. `DiTPipeline.__call__` takes 1000 for it, so with other numbers of classes it "
        "samples at guidance 1 only; Attar reads it from the folder.",
        f"- Samples at guidance {measures['guidance']:g} in {measures['steps']} DDIM steps, {measures['samples']:,} of "
        f"them, against the {measures['held_out']:,} held-out real images: a small classifier gives "
        f"{measures['accuracy']:.1f} % of them their own class (real: {measures['accuracy_real']:.1f} %); Frechet "
        f"distance on its features {measures['frechet']:.3f} (as many real training images: "
        f"{measures['frechet_real']:.3f}). Not comparable with published FIDs.",
        *_taught(measures),
        "- All settings: `training.json`. Progress: `samples/`, `loss.png`, `losses.jsonl`.",
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _kept(record: Mapping[str, Any]) -> list[str]:
    """What a card says of a training of which the best average is kept: which that is, and how the last one was."""
    measures, steps = record["measures"], record["steps"]
    if "last_step" not in measures:
        return []
    step, share, distance = measures["step"], measures["last_accuracy"], measures["last_frechet"]
    seen = record["images_seen"] * step // steps
    worse = f"; those of the last were worse ({share:.1f} % their own class, Frechet distance {distance:.4f})"
    return [
        f"- The weights are the average at step {step:,} of {steps:,}, after {seen:,} images: its samples "
        f"(`samples/step-{step:07d}.png`) were the best of all measured{worse if step < steps else ''}."
    ]


def _taught(measures: Mapping[str, Any]) -> list[str]:
    """What a card says of what samples teach, where that was measured."""
    if "taught" not in measures or "taught_real" not in measures:
        return []
    return [
        f"- A linear classifier on random features that learns from these samples is right on {measures['taught']:.1f} "
        f"% of the held-out images; from as many random real ones, on {measures['taught_real']:.1f} %."
    ]


def _sampled_by(folder: Path) -> list[str]:
    """What a card says of a prior that diffusers' pipeline opens and cannot sample."""
    if read_json(folder / "model_index.json")["scheduler"][1] != FLOW:
        return []
    return [
        "- A rectified flow: it predicts noise - latents, at time 1000 s of the path (1 - s) latents + s noise. Attar "
        "samples it; `DiTPipeline.__call__` knows no such scheduler."
    ]


def read_card(folder: Path) -> dict[str, Any]:
    """What the folder of a trained prior says of it.

    Raises:
        AttarError: there is no such file, or it is not what a training writes.
    """
    record: dict[str, Any] = read_json(folder / RECORD)
    if wrong := mistake(record, {"key": DIGEST, "measures": Values(MEASURED)}):
        raise AttarError(f"{folder / RECORD} is damaged: {wrong}")
    return record


def publish(made: Path, out: Path, records: Mapping[str, Any] | None = None) -> None:
    """Copies a finished folder to `out`, where all of it appears at once; what a killed run left beside it goes.

    `records` are JSON files by name, in place of those of the finished folder.

    Raises:
        Unwritable: the disk is full, or the place may not be written; what is trained is kept in the cache.
    """
    with appearing(out, "choose another `out`; what is trained is kept in the cache") as copy:
        shutil.copytree(made, copy, ignore=shutil.ignore_patterns("meta.json", ".*"), dirs_exist_ok=True)
        for name, record in (records or {}).items():
            write_json(copy / name, record)
