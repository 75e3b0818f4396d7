"""The command that gives DD-Ranking's scores of a distilled set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import assignments, say, showing
from attar.cli.teachers import Teacher, TeacherClasses, TeacherNormalise, named_teacher
from attar.core.errors import AttarError
from attar.core.limits import seeds as numbered


def score(
    folder: Annotated[Path, typer.Argument(help="A distilled set", metavar="DIR")],
    recipe: Annotated[
        str, typer.Option(help="The set's own protocol (`attar list recipes`); with soft labels it needs --teacher")
    ] = "quick",
    sets: Annotated[list[str] | None, typer.Option("--set", help="A field of the recipe: --set steps=200")] = None,
    network: Annotated[str, typer.Option(help="`attar list networks`, or any timm network")] = "convnet3",
    seeds: Annotated[int, typer.Option(help="How many training seeds; all the data is trained on once")] = 3,
    full_accuracy: Annotated[
        float | None, typer.Option(help="Accuracy of all the data with hard labels, in per cent, where it is known")
    ] = None,
    full_epochs: Annotated[int, typer.Option(help="Epochs of that training, where it is done here")] = 30,
    weight: Annotated[float, typer.Option(help="0 to 1: of IOR in LRS, of the augmented evaluation in ARS")] = 0.5,
    test: Annotated[
        str | None, typer.Option(help="Test images, or held-out; default: the test split of the set's data")
    ] = None,
    teacher: Teacher = None,
    teacher_classes: TeacherClasses = None,
    teacher_normalise: TeacherNormalise = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores to this file")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what will be trained and its cost, and stop")
    ] = False,
) -> None:
    """Score a distilled set as DD-Ranking does: label-robust (LRS) and augmentation-robust (ARS).

    LRS weighs how far the set falls short of all the data with hard labels (HLR) against how far it is ahead of random
    real images under its own protocol (IOR); ARS its lead over random with and without augmentation. Every training is
    an ordinary evaluation: run the same command again after an interruption, and it goes on where it was.
    """
    from attar.evaluation import modified, named_recipe
    from attar.networks import check

    chosen = tuple(numbered(seeds))
    if full_epochs < 1:
        raise AttarError(f"--full-epochs {full_epochs}: at least 1")
    for name, value, most in (("--full-accuracy", full_accuracy, 100), ("--weight", weight, 1)):
        if value is not None and not 0 <= value <= most:
            raise AttarError(f"{name} {value}: a number from 0 to {most}")
    check(network)
    own = modified(named_recipe(recipe), assignments(sets or []))
    from attar.experiments.scoring import Protocol, Terms, scored

    named = named_teacher(teacher, teacher_classes, teacher_normalise)
    terms = Terms(network, chosen, test, True, named, device)
    protocol = Protocol(own, None if full_accuracy is None else full_accuracy / 100, full_epochs, weight)
    with showing() as progress:
        scored(folder, protocol, terms, json_file, progress=progress, say=say, dry_run=dry_run)
