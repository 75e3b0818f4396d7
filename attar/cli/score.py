"""The command that gives DD-Ranking's scores of a distilled set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import FieldOptions, Settings, made
from attar.cli.shared import (
    Device,
    DryRun,
    RecipeFields,
    SetFolder,
    TeacherOption,
    Trainings,
    named_teacher,
    say,
    showing,
)
from attar.core.errors import AttarError
from attar.evaluation import named_recipe
from attar.experiments.settings import Protocol


def score(
    folder: SetFolder,
    trainings: Annotated[Settings, FieldOptions(Trainings)],
    protocol: Annotated[Settings, FieldOptions(Protocol, only=("full_epochs", "weight"))],
    device: Device,
    teacher: TeacherOption,
    sets: RecipeFields,
    full_accuracy: Annotated[
        float | None, typer.Option(help="Accuracy of all the data with hard labels, in per cent, where it is known")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores to this file")] = None,
    dry_run: DryRun = False,
) -> None:
    """Score a distilled set as DD-Ranking does: label-robust (LRS) and augmentation-robust (ARS).

    Where no network or no recipe is named, they are those of `attar evaluate`.

    LRS weighs how far the set falls short of all the data with hard labels (HLR) against how far it is ahead of random
    real images under its own protocol (IOR); ARS its lead over random with and without augmentation. Every training is
    an ordinary evaluation: run the same command again after an interruption, and it goes on where it was.
    """
    asked = made(Trainings, trainings, "score")
    conditions = asked.conditions(teacher=named_teacher(teacher), **device)
    if full_accuracy is not None and not 0 <= full_accuracy <= 100:
        raise AttarError(f"`full_accuracy` {full_accuracy}: a number from 0 to 100")
    from attar.evaluation.suited import suited
    from attar.experiments.scoring import scored, the_set
    from attar.report.tables import scores_text

    own, conditions = suited(
        [the_set(folder)],
        named_recipe(asked.recipe, sets),
        conditions,
        any_size="recipe" not in trainings and "size" not in sets,
        any_network="network" not in trainings,
        say=say,
    )
    known = None if full_accuracy is None else full_accuracy / 100
    chosen = made(Protocol, protocol, "score", own=own, full_accuracy=known)
    with showing() as progress:
        scores = scored(folder, chosen, conditions, json_file, progress=progress, say=say, dry_run=dry_run)
    if scores is not None:
        say(scores_text(scores))
