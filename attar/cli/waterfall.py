"""The command that shows which element of a recipe makes how much of an accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import assignments, say, showing
from attar.cli.teachers import Teacher, TeacherClasses, TeacherNormalise, named_teacher
from attar.core.errors import AttarError
from attar.core.limits import seeds as numbered


def waterfall(
    folder: Annotated[Path, typer.Argument(help="A distilled set", metavar="DIR")],
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
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A field of both recipes, which are then modified: --set epochs=30; with --to, epochs and steps "
            "leave out a recipe that counts in the other",
        ),
    ] = None,
    network: Annotated[str, typer.Option(help="`attar list networks`, or any timm network")] = "convnet3",
    seeds: Annotated[int, typer.Option(help="How many training seeds")] = 3,
    test: Annotated[
        str | None, typer.Option(help="Test images, or held-out; default: the test split of the set's data")
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Evaluate random real images of the same count in every step")
    ] = False,
    teacher: Teacher = None,
    teacher_classes: TeacherClasses = None,
    teacher_normalise: TeacherNormalise = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the table, the chart and the results")] = Path("waterfall"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the steps and their cost, and stop")] = False,
) -> None:
    """Evaluate one distilled set while one element of the recipe changes at a time.

    Published numbers differ by their protocols: this shows by how much, and by which element. From one recipe to
    another (--to) the changes add up; with --change each is made alone. Every step is an ordinary evaluation: run the
    same command again after an interruption, and it goes on where it was. Where neither recipe is tested as it
    trains, the first and the last are, ten times, to show their best epoch (--set test_every=none: they are not).
    """
    from attar.evaluation import modified, named_recipe
    from attar.evaluation.waterfall import around, between, with_shared, with_tests
    from attar.networks import check

    if (end is None) == (not change):
        raise AttarError("give either --to RECIPE or --change FIELD=VALUE (`attar list recipes` shows both)")
    chosen = tuple(numbered(seeds))
    check(network)
    shared = assignments(sets or [])
    first = named_recipe(start)
    if end is not None:
        names = [name.strip() for name in order.split(",")] if order else []
        steps = between(*with_shared(first, named_recipe(end), shared), names)
    elif order is not None:
        raise AttarError("--order is for --to: with --change each change is made alone")
    else:
        steps = around(modified(first, shared), [assignments(one.split(";")) for one in change or []])
    if "test_every" not in shared:
        steps = with_tests(steps)
    from attar.experiments.scoring import Terms
    from attar.experiments.waterfall import waterfall as run

    named = named_teacher(teacher, teacher_classes, teacher_normalise)
    terms = Terms(network, chosen, test, baseline, named, device)
    with showing() as progress:
        run(folder, steps, terms, out, progress=progress, say=say, dry_run=dry_run)
