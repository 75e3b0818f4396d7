"""The commands that make priors: train-prior and finetune-prior."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attar.cli.flags import Assignments, FieldOptions, Settings, made
from attar.cli.shared import Config, DryRun, TrackerName, say, showing
from attar.core.tracking import beside, tracking
from attar.priors.training.settings import AdaptedPrior, NewPrior

REPORT = {"report.every": "report_every", "report.samples": "report_samples", "report.guidance": "guidance"}
"""Fields of the report that are options."""

Out = Annotated[Path, typer.Option(help="Folder to write: a diffusers DiTPipeline")]


def train_prior(
    settings: Annotated[Settings, FieldOptions(NewPrior, parts=("training",), renamed=REPORT)],
    out: Out,
    sets: Annotated[dict[str, Any], Assignments("Any other field: --set vae.steps=2000", lambda _: NewPrior("digits"))],
    config: Config = None,
    tracker: TrackerName = None,
    dry_run: DryRun = False,
) -> None:
    """Train a class-conditional diffusion transformer on your images, pixels or latents.

    Run the same command again after an interruption: it goes on where it was, to the same weights.
    """
    spec = made(NewPrior, {**settings, **sets}, "train-prior")
    from attar.priors.training.run import train_new_prior
    from attar.teachers.maps import open_maps

    with showing() as progress, tracking(tracker, beside(out), {**settings, **sets}, dry_run):
        teacher = None if spec.align is None else open_maps(spec.align)
        train_new_prior(spec, out, progress=progress, say=say, dry_run=dry_run, teacher=teacher)
        if dry_run and teacher is None:
            say("aligned with a teacher of the same images (`align`) it would learn more in as long")


def finetune_prior(
    settings: Annotated[Settings, FieldOptions(AdaptedPrior, parts=("training",), renamed=REPORT)],
    out: Out,
    sets: Annotated[
        dict[str, Any],
        Assignments("Any other field: --set report.steps=50", lambda _: AdaptedPrior("digits", prior="digits")),
    ],
    config: Config = None,
    tracker: TrackerName = None,
    dry_run: DryRun = False,
) -> None:
    """Adapt a prior to your images; classes that it knows by name keep their embeddings.

    Run the same command again after an interruption: it goes on where it was, to the same weights.
    """
    spec = made(AdaptedPrior, {**settings, **sets}, "finetune-prior")
    from attar.priors.training.finetune import finetune_prior as finetune

    with showing() as progress, tracking(tracker, beside(out), {**settings, **sets}, dry_run):
        finetune(spec, out, progress=progress, say=say, dry_run=dry_run)
