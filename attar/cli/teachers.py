"""The commands that make teachers and label with them: train-teacher and relabel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from attar.cli.flags import Assignments, FieldOptions, Settings, made
from attar.cli.shared import (
    Config,
    Device,
    DryRun,
    Engines,
    RecipeFields,
    SetFolder,
    TeacherOption,
    TrackerName,
    named_teacher,
    say,
    showing,
)
from attar.core.config import parsed
from attar.core.engine import Engine
from attar.core.errors import AttarError
from attar.core.tracking import beside, tracking
from attar.evaluation import Recipe, named_recipe
from attar.teachers.settings import TeacherTraining


def train_teacher(
    settings: Annotated[Settings, FieldOptions(TeacherTraining)],
    out: Annotated[Path, typer.Option(help="Folder to write: model.safetensors and teacher.json")],
    sets: Annotated[
        dict[str, Any], Assignments("Any field, by its name: --set shift=4", lambda _: TeacherTraining("digits"))
    ],
    config: Config = None,
    tracker: TrackerName = None,
    dry_run: DryRun = False,
) -> None:
    """Train a classifier on your images that then labels distilled ones.

    Run the same command again after an interruption: it goes on where it was, to the same weights.
    """
    spec = made(TeacherTraining, {**settings, **sets}, "train-teacher")
    from attar.teachers.train import train_teacher as train

    with showing() as progress, tracking(tracker, beside(out), {**settings, **sets}, dry_run):
        train(spec, out, progress=progress, say=say, dry_run=dry_run)


def relabel(
    folder: SetFolder,
    teacher: TeacherOption,
    out: Annotated[Path, typer.Option(help="Folder to write")],
    labels: Annotated[Settings, FieldOptions(Recipe, only=("scheme", "label_epochs"), optional=True)],
    sets: RecipeFields,
    device: Device,
    engines: Engines,
    recipe: Annotated[
        str,
        typer.Option(help="The recipe whose views are labelled: augmentation, epochs; a fixed scheme needs none"),
    ] = "fkd-soft",
    label_temperature: Annotated[
        str | None,
        typer.Option(
            help="Of fixed labels: the temperature that they are to be learnt from at, kept with them; auto: the best "
            "of some, if they are not best left out, in short trainings on the held-out tenth"
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Store a teacher's soft labels for the views of every epoch, or one an image, for `attar evaluate --labels`.

    Run the same command again after an interruption: it goes on where it was.
    """
    reference = named_teacher(teacher)
    if reference is None:
        raise AttarError("`teacher` is missing")
    protocol, engine = named_recipe(recipe, {**sets, **labels}), made(Engine, engines, "relabel")
    from attar.evaluation.relabel import Relabelling
    from attar.evaluation.relabel import relabel as write

    temperature = parsed(label_temperature, float | Literal["auto"] | None, "label_temperature")
    asked = Relabelling(folder, reference, protocol, temperature=temperature, **device)
    with showing() as progress:
        write(asked, out, progress=progress, say=say, dry_run=dry_run, engine=engine)
