"""The command that chooses a method's settings on the user's own data."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from attar.cli import flags
from attar.cli.flags import DATA_HELP, assignments, ipcs_of, merged, say, showing, spec_of
from attar.cli.teachers import Teacher, TeacherClasses, TeacherNormalise, named_teacher
from attar.core.errors import AttarError
from attar.core.limits import seeds as numbered


def tune(
    context: typer.Context,
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    method: Annotated[str, typer.Option(help="`attar list methods` names them")],
    ipc: Annotated[str, typer.Option(help="Images per class; several as 1,10,50: each is chosen for by itself")],
    out: Annotated[Path, typer.Option(help="Folder for the sets, the results, tuned.md, .json and .png")],
    prior: flags.Prior = None,
    codec: flags.Codec = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="A field of the method and the values to try: fit.time=280,600 (values with commas in them: separate "
            "by ;). Repeat it: all combinations are candidates. Default: sampler.guidance=2,4, and for exemplars "
            "fit.time=280,600"
        ),
    ] = None,
    sets: flags.Fields = None,
    recipe: Annotated[str, typer.Option(help="The evaluation protocol; `attar list recipes` names them")] = "quick",
    recipe_sets: Annotated[
        list[str] | None, typer.Option("--recipe-set", help="A field of the recipe: --recipe-set flip=false")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="`attar list networks`, or any timm network; several: repeat it, or A,B")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many training seeds in the last rung; those before have one")] = 3,
    eta: Annotated[int, typer.Option(help="1/ETA of the candidates go on to ETA times the training")] = 3,
    teacher: Teacher = None,
    teacher_classes: TeacherClasses = None,
    teacher_normalise: TeacherNormalise = None,
    seed: flags.Seed = None,
    classes: flags.Classes = None,
    class_map: flags.ClassMap = None,
    prompt: flags.Prompt = None,
    prompts: flags.PromptFile = None,
    negative_prompt: flags.NegativePrompt = None,
    imbalance_factor: flags.ImbalanceFactor = None,
    preprocess: flags.Preprocess = None,
    output_size: flags.OutputSize = None,
    output_filter: flags.OutputFilter = None,
    device: flags.Device = None,
    dtype: flags.Dtype = None,
    tile: flags.Tile = None,
    on_bad_image: flags.OnBadImage = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, estimate the cost, and stop")] = False,
) -> None:
    """Choose a method's settings on a tenth of your data, for each IPC: every candidate cheaply, the best in full.

    Sets are distilled from the other nine tenths (as with --hold-out) and judged on that one; the test images are
    never read. By successive halving: all candidates are evaluated by a short version of the recipe, the best of them
    by a longer one, the last few by all of it with all seeds. What to distill with is printed, and in OUT/tuned.md.

    Run the same command again after an interruption: it goes on where it was, and does nothing twice.
    """
    from attar.evaluation import modified, named_recipe
    from attar.methods import METHODS

    METHODS.check(method)
    protocol = modified(named_recipe(recipe), assignments(recipe_sets or [], "--recipe-set"))
    fixed = assignments(sets or [])
    from attar.experiments.tune import Tuning, default_grid
    from attar.job import Spec
    from attar.report.run import tune as run

    asked = {field.name: context.params.get(field.name) for field in fields(Spec)}
    tuning = Tuning(
        spec=spec_of(merged(asked, None), "tune"),
        name=method,
        fixed=fixed,
        grid=_grid(grid) if grid else default_grid(method, fixed),
        ipcs=tuple(sorted(set(ipcs_of(ipc)))),
        out=out,
        recipe=protocol,
        networks=tuple(dict.fromkeys(name for names in network or ["convnet3"] for name in names.split(","))),
        seeds=tuple(numbered(seeds)),
        eta=eta,
        teacher=named_teacher(teacher, teacher_classes, teacher_normalise),
    )
    with showing() as progress:
        run(tuning, progress=progress, say=say, dry_run=dry_run)


def _grid(words: list[str]) -> dict[str, list[str]]:
    """`field=value,value` words, or `field=value;value`, as fields and their values."""
    found: dict[str, list[str]] = {}
    for word in words:
        ((name, values),) = assignments([word], "--grid").items()
        if name in found:
            raise AttarError(f"--grid {word}: {name} has values already; give them all at once")
        found[name] = [value.strip() for value in values.split(";" if ";" in values else ",")]
    return found
