"""The command that shows which element of a recipe makes how much of an accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import FieldOptions, Settings, made, parsed_assignments
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
from attar.evaluation import modified, named_recipe
from attar.experiments.waterfall_steps import around, steps_between, with_shared, with_tests


def waterfall(
    folder: SetFolder,
    trainings: Annotated[Settings, FieldOptions(Trainings, without=("recipe",))],
    device: Device,
    teacher: TeacherOption,
    sets: RecipeFields,
    start: Annotated[str, typer.Option("--from", help="The recipe to begin with (`attar list recipes`)")] = "quick",
    end: Annotated[
        str | None, typer.Option("--to", help="The recipe to end with: their differences, cumulatively")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of --to: a field changed alone, crop=0.08, several together as 'steps=none; epochs=30'; "
            "repeat it for more bars"
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(help="Fields to change first: labels,schedule (default: images, labels, training, test)"),
    ] = None,
    baseline: Annotated[bool, typer.Option(help="Evaluate random real images of the same count in every step")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the table, the chart and the results")] = Path("waterfall"),
    dry_run: DryRun = False,
) -> None:
    """Evaluate one distilled set while one element of the recipe changes at a time.

    Published numbers differ by their protocols: this shows by how much, and by which element. From one recipe to
    another (--to) the changes add up; with --change each is made alone. Every step is an ordinary evaluation: run the
    same command again after an interruption, and it goes on where it was. Where neither recipe is tested as it
    trains, the first and the last are, ten times, to show their best epoch (--set test_every=none: they are not). With
    --to, epochs and steps that --set gives leave out a recipe that counts in the other.
    """
    if (end is None) == (not change):
        raise AttarError("give either --to RECIPE or --change FIELD=VALUE (`attar list recipes` shows both)")
    asked = made(Trainings, trainings, "waterfall")
    conditions = asked.conditions(baseline=baseline, teacher=named_teacher(teacher), **device)
    first = named_recipe(start)
    if end is not None:
        names = [name.strip() for name in order.split(",")] if order else []
        steps = steps_between(*with_shared(first, named_recipe(end), sets), names)
    elif order is not None:
        raise AttarError("--order is for --to: with --change each change is made alone")
    else:
        steps = around(
            modified(first, sets), [parsed_assignments(words.split(";"), "--change") for words in change or []]
        )
    if "test_every" not in sets:
        steps = with_tests(steps)
    from attar.report.written_experiments import waterfall_and_write

    with showing() as progress:
        waterfall_and_write(folder, steps, conditions, out, progress=progress, say=say, dry_run=dry_run)
