"""The command that chooses a method's settings on the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attar.cli.flags import Assignments, FieldOptions, Settings, made, parsed_assignments
from attar.cli.shared import (
    DryRun,
    Engines,
    Ipc,
    MethodFields,
    MethodName,
    TeacherOption,
    Trainings,
    a_recipe,
    ipcs_of,
    named_teacher,
    say,
    showing,
)
from attar.core.engine import Engine
from attar.core.errors import AttarError
from attar.evaluation import named_recipe
from attar.experiments.settings import Tuning
from attar.job import Spec
from attar.methods import METHODS

OF_SETS = ("hold_out", "keep_statistics", "labels", "label_teacher", "label_temperature")
"""Fields of a spec that no tuning has."""


def tune(
    spec: Annotated[Settings, FieldOptions(Spec, without=OF_SETS)],
    method: MethodName,
    ipc: Ipc,
    out: Annotated[Path, typer.Option(help="Folder for the sets, the results, tuned.md, .json and .png")],
    sets: MethodFields,
    trainings: Annotated[Settings, FieldOptions(Trainings, only=("recipe", "network", "seeds"))],
    recipe_sets: Annotated[
        dict[str, Any],
        Assignments("A field of the recipe: --recipe-set flip=false", a_recipe, "--recipe-set"),
    ],
    teacher: TeacherOption,
    halving: Annotated[Settings, FieldOptions(Tuning, only=("eta",))],
    engines: Engines,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="A field of the method and the values to try: fit.time=280,600 (values with commas in them: separate "
            "by ;). Repeat it: all combinations are candidates. Default: sampler.guidance=2,4, and for exemplars "
            "fit.time=280,600"
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Choose a method's settings on a tenth of your data, for each IPC: every candidate cheaply, the best in full.

    Sets are distilled from the other nine tenths (as with --hold-out) and judged on that one; the test images are
    never read. By successive halving: all candidates are evaluated by a short version of the recipe, the best of them
    by a longer one, the last few by all of it with all seeds (those before have one). What to distill with is printed,
    and in OUT/tuned.md.

    Run the same command again after an interruption: it goes on where it was, and does nothing twice.
    """
    METHODS.check(method)
    asked, own = made(Trainings, trainings, "tune"), made(Spec, spec, "tune")
    engine = made(Engine, engines, "tune")
    from attar.experiments.candidates import default_grid
    from attar.report.written_experiments import tune_and_write

    tuning = made(
        Tuning,
        halving,
        "tune",
        spec=own,
        name=method,
        fixed=sets,
        grid=_grid(grid) if grid else default_grid(method, sets),
        ipcs=tuple(sorted(set(ipcs_of(ipc)))),
        out=out,
        recipe=named_recipe(asked.recipe, recipe_sets),
        conditions=asked.conditions(teacher=named_teacher(teacher)),
    )
    with showing() as progress:
        tune_and_write(tuning, progress=progress, say=say, dry_run=dry_run, engine=engine)


def _grid(words: list[str]) -> dict[str, list[str]]:
    """`field=value,value` words, or `field=value;value`, as fields and their values."""
    grid: dict[str, list[str]] = {}
    for word in words:
        ((name, values),) = parsed_assignments([word], "--grid").items()
        if name in grid:
            raise AttarError(f"--grid {word}: {name} has values already; give them all at once")
        grid[name] = [value.strip() for value in values.split(";" if ";" in values else ",")]
    return grid
