"""The commands that make priors: train-prior and finetune-prior."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attar.cli.flags import DATA_HELP, assignments, merged, say, showing
from attar.core.errors import AttarError
from attar.core.store import check_writable

TRAINING = ("steps", "batch", "learning_rate", "schedule", "label_dropout", "ema_decay", "min_snr", "compile", "seed")
NETWORK = ("hidden", "layers", "heads", "patch", "learned_sigma")
PLACES = {name: f"training.{name}" for name in (*TRAINING, *NETWORK)} | {
    "report_every": "report.every",
    "report_samples": "report.samples",
    "guidance": "report.guidance",
}
"""Where the flags go that are fields of a part."""

Data = Annotated[str | None, typer.Option(help=DATA_HELP)]
Out = Annotated[Path | None, typer.Option(help="Folder to write: a diffusers DiTPipeline")]
Steps = Annotated[int | None, typer.Option(help="How many batches")]
Batch = Annotated[int | None, typer.Option(help="Images in a batch, over all processes")]
Rate = Annotated[float | None, typer.Option(help="Of AdamW, after its warm-up")]
Falling = Annotated[str | None, typer.Option(help="Of the learning rate: cosine (default), constant")]
Dropout = Annotated[float | None, typer.Option(help="Share of labels replaced by the null label (default 0.1)")]
Average = Annotated[float | None, typer.Option(help="Of the averaged weights, which are kept (default 0.999)")]
Snr = Annotated[str | None, typer.Option(help="Min-SNR weights of the loss, for example 5; none: all 1")]
Compile = Annotated[
    bool | None, typer.Option("--compile/--no-compile", help="Compile the blocks: pays in long trainings")
]
Flip = Annotated[
    bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the images (default); off for digits and text")
]
Seed = Annotated[int | None, typer.Option(help="Seed of all randomness (default 0)")]
Preprocess = Annotated[str | None, typer.Option(help="How images are resized: adm (default), resize-crop, squash")]
BadImage = Annotated[str | None, typer.Option(help="What to do with unreadable images: error (default), skip")]
Device = Annotated[str | None, typer.Option(help="auto (default), cpu, cuda")]
Dtype = Annotated[str | None, typer.Option(help="auto (default), float32, bfloat16 (mixed precision)")]
Every = Annotated[int | None, typer.Option(help="Steps between sample grids and measures (default: five times in all)")]
Measured = Annotated[int | None, typer.Option(help="Samples that are measured (default 500)")]
Guidance = Annotated[float | None, typer.Option(help="Of the samples that are shown and measured (default 2)")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Any other field: --set vae.steps=2000")]
Config = Annotated[Path | None, typer.Option(help="TOML with any of these flags, and a table [set]; flags win")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Check everything, estimate the cost, and stop")]


def train_prior(
    data: Data = None,
    out: Out = None,
    codec: Annotated[
        str | None,
        typer.Option(
            help="What the prior works on: pixel, grey, an autoencoder (folder, hub id, or a pipeline's), "
            "or train to train one first"
        ),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images, in pixels; autoencoders know their own")] = None,
    hidden: Annotated[int | None, typer.Option(help="Width of the network (default 256)")] = None,
    layers: Annotated[int | None, typer.Option(help="Blocks (default 8)")] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads (default 4)")] = None,
    patch: Annotated[int | None, typer.Option(help="Side of a token, in latent pixels (default 2)")] = None,
    learned_sigma: Annotated[
        bool | None, typer.Option("--learned-sigma/--no-learned-sigma", help="Learn the variance, too (default: no)")
    ] = None,
    steps: Steps = None,
    batch: Batch = None,
    learning_rate: Rate = None,
    schedule: Falling = None,
    label_dropout: Dropout = None,
    ema_decay: Average = None,
    min_snr: Snr = None,
    compile: Compile = None,
    flip: Flip = None,
    seed: Seed = None,
    preprocess: Preprocess = None,
    on_bad_image: BadImage = None,
    device: Device = None,
    dtype: Dtype = None,
    report_every: Every = None,
    report_samples: Measured = None,
    guidance: Guidance = None,
    sets: Sets = None,
    config: Config = None,
    dry_run: Dry = False,
) -> None:
    """Train a class-conditional diffusion transformer on your images, pixels or latents.

    Run the same command again after an interruption: it goes on where it was, to the same weights.
    """
    flags = {name: value for name, value in locals().items() if name not in ("sets", "config", "dry_run")}
    chosen, target = _settled(flags, sets, config, ("data", "out"))
    from attar.core.config import changed
    from attar.priors.training.run import NewPrior, train_new_prior

    spec = changed(NewPrior(chosen.pop("data")), chosen, "train-prior")
    with showing() as progress:
        train_new_prior(spec, target, progress=progress, say=say, dry_run=dry_run)


def finetune_prior(
    prior: Annotated[str | None, typer.Option(help="What is adapted: a DiTPipeline folder, hub id, or digits")] = None,
    data: Data = None,
    out: Out = None,
    adapt: Annotated[
        str | None, typer.Option(help="What is trained: all (default), difffit, lora (needs attar[lora])")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Of LoRA (default 16)")] = None,
    steps: Steps = None,
    batch: Batch = None,
    learning_rate: Rate = None,
    schedule: Falling = None,
    label_dropout: Dropout = None,
    ema_decay: Average = None,
    min_snr: Snr = None,
    compile: Compile = None,
    flip: Flip = None,
    seed: Seed = None,
    preprocess: Preprocess = None,
    on_bad_image: BadImage = None,
    device: Device = None,
    dtype: Dtype = None,
    report_every: Every = None,
    report_samples: Measured = None,
    guidance: Guidance = None,
    sets: Sets = None,
    config: Config = None,
    dry_run: Dry = False,
) -> None:
    """Adapt a prior to your images; classes that it knows by name keep their embeddings.

    Run the same command again after an interruption: it goes on where it was, to the same weights.
    """
    flags = {name: value for name, value in locals().items() if name not in ("sets", "config", "dry_run")}
    chosen, target = _settled(flags, sets, config, ("prior", "data", "out"))
    from attar.core.config import changed
    from attar.priors.training.finetune import AdaptedPrior
    from attar.priors.training.finetune import finetune_prior as finetune

    spec = changed(AdaptedPrior(chosen.pop("data")), chosen, "finetune-prior")
    with showing() as progress:
        finetune(spec, target, progress=progress, say=say, dry_run=dry_run)


def _settled(
    flags: dict[str, Any], sets: list[str] | None, config: Path | None, needed: tuple[str, ...]
) -> tuple[dict[str, Any], Path]:
    """Fields by name, the command line's before the TOML's, and the folder to write."""
    flags["out"] = str(flags["out"]) if flags["out"] else None
    settings = merged(flags, config)
    for name in needed:
        if name not in settings:
            raise AttarError(f"--{name} is missing (on the command line or in --config)")
    out = Path(settings.pop("out"))
    check_writable(out, "--out")
    changes = {**settings.pop("set", {}), **assignments(sets or [])}
    return {**{PLACES.get(name, name): value for name, value in settings.items()}, **changes}, out
