"""The commands that make, judge, show and check distilled sets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attar.cli import shared
from attar.cli.flags import FieldOptions, Settings, made
from attar.cli.shared import Trainings, ipcs_of, named_teacher, say, showing
from attar.core.engine import Engine
from attar.core.errors import AttarError
from attar.core.limits import seeds as numbered
from attar.core.tracking import beside, tracking
from attar.core.wording import counted
from attar.job import Job, Spec
from attar.methods import METHODS, load_method

if TYPE_CHECKING:
    from attar.evaluation.records import Record
    from attar.sets.distilled import DistilledSet


def distill(
    settings: Annotated[Settings, FieldOptions(Spec)],
    ipc: shared.Ipc,
    out: shared.Sets,
    sets: shared.MethodFields,
    engines: shared.Engines,
    method: shared.OptionalMethodName = None,
    config: shared.Config = None,
    dry_run: shared.DryRun = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Check everything, say what is in the cache and what differs there, and stop"),
    ] = False,
) -> None:
    """Distill a labelled image set into a few images per class.

    Run the same command again after an interruption: it goes on where it was.
    """
    ipcs, spec, engine = ipcs_of(ipc), made(Spec, settings, "distill"), made(Engine, engines, "distill")
    if method is None:
        if sets or explain:
            raise AttarError(f"`{'set' if sets else 'explain'}` is of a method: name one as `method`")
        from attar.distillation.prior_first import distill_with
        from attar.distillation.run_without_method import distill_chosen

        run = partial(distill_chosen, ipcs=ipcs, out=out, engine=engine)
        with showing() as progress:
            distill_with(Job(spec, progress=progress, dry=dry_run), None, run, out, say)
        return
    METHODS.check(method)
    from attar.distillation.prior_first import distill_with
    from attar.distillation.run import distill_sets

    chosen = load_method(method, sets)
    with showing() as progress:
        if explain:
            from attar.cli.cache import reused
            from attar.distillation.explain_run import explain_run

            reuse = explain_run(spec, method, chosen, ipcs, out, progress=progress, say=say)
        else:
            run = partial(distill_sets, name=method, method=chosen, ipcs=ipcs, out=out, engine=engine)
            distill_with(Job(spec, progress=progress, dry=dry_run), chosen, run, out, say)
    for line in reused(reuse) if explain else ():
        say(line)


@dataclass(frozen=True)
class Foreign:
    """A set that another code wrote, and what it is of."""

    layout: str | None = None
    """DIR is a set that another code wrote: minimax, rded, d4m, d3hr, or folder (named by class)."""
    data: str | None = None
    """With `layout`: real images of its classes, as for `attar distill --data`."""
    classes: tuple[str, ...] | None = None
    """With `layout`: the classes of the data that it has; none: all of them."""
    class_map: str | None = None
    """With `layout`: a TOML or JSON file, folder = class name or label of the data."""


def evaluate(
    folders: shared.SetFolders,
    trainings: Annotated[Settings, FieldOptions(Trainings)],
    device: shared.Device,
    sets: shared.RecipeFields,
    teacher: shared.TeacherOption,
    foreign: Annotated[Settings, FieldOptions(Foreign)],
    engines: shared.Engines,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Labels that `attar relabel` wrote for the set; their recipe is the default. Without them, sets that "
            "hold labels themselves are learnt from with these, and by class alone with --set labels=hard"
        ),
    ] = None,
    baseline: Annotated[bool, typer.Option(help="Evaluate random real images of the same count beside it")] = True,
    weights: Annotated[bool, typer.Option(help="Use the weights that a set has for its images")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the records in this file")] = None,
    tracker: shared.TrackerName = None,
    dry_run: shared.DryRun = False,
) -> None:
    """Train networks on distilled sets and test them on real images.

    Where no network is named, a ConvNet is trained that suits the images' size; where no recipe is, photographs are
    seen at 64 pixels.

    Sets of other codes: --layout says how their folders are named, --data which real images they stand for.
    """
    asked, engine = made(Trainings, trainings, "evaluate"), made(Engine, engines, "evaluate")
    judging: dict[str, Any] = {"baseline": baseline, "weights": weights, "labels": labels, **device}
    conditions = asked.conditions(teacher=named_teacher(teacher), **judging)
    from attar.evaluation.outlook import evaluation_forecast
    from attar.evaluation.records_file import write_record
    from attar.evaluation.run import evaluate_sets
    from attar.evaluation.suited import suited
    from attar.evaluation.teaching import asked_recipe, with_own_labels

    recipe = asked_recipe(labels, trainings.get("recipe"), sets)
    chosen = _sets_in(folders, made(Foreign, foreign, "evaluate"))
    recipe, conditions = with_own_labels(chosen, recipe, conditions, trainings.get("recipe"), sets, say)
    recipe, conditions = suited(
        chosen,
        recipe,
        conditions,
        any_size="recipe" not in trainings and (conditions.labels is None or recipe.fixed) and "size" not in sets,
        any_network="network" not in trainings,
        say=say,
    )
    if json_file is not None:
        _check_records(json_file, [asked.test, *(distilled.manifest["data"]["spec"] for distilled in chosen)])
    records = len(chosen) * len(conditions.networks)
    if not dry_run:
        say(evaluation_forecast(chosen, recipe, conditions))
    tracked = tracking(tracker, beside(folders[0]), {**trainings, **sets}, dry_run)
    with tracked, showing() as progress, nullcontext() if dry_run else engine.cluster():
        how: dict[str, Any] = {"progress": progress, "say": say, "dry_run": dry_run, "engine": engine}
        for record in evaluate_sets(chosen, recipe, conditions, **how):
            say(record.row)
            if json_file is not None:
                write_record(json_file, record, "name another file with `json`")
    if json_file is not None:
        say(f"{counted(records, 'record')} {'would be kept' if dry_run else 'kept'} in {json_file}")


def _check_records(file: Path, inputs: Sequence[str | None]) -> None:
    """Raises AttarError unless records of these inputs can be kept in a file."""
    from attar.data.output_places import check_place
    from attar.evaluation.records_file import read_records

    check_place(file, "`json`", inputs)
    if file.exists():
        read_records(file)


def _sets_in(folders: list[Path], foreign: Foreign) -> list[DistilledSet]:
    """The sets in some folders: Attar's own, or, with a layout, those of other codes, said how they are understood."""
    from attar.sets.distilled import find_distilled

    if foreign.layout is None:
        for name in ("data", "classes", "class_map"):
            if getattr(foreign, name) is not None:
                raise AttarError(f"`{name}` says what a set from elsewhere is of; name its `layout`, too")
        return [distilled for folder in folders for distilled in find_distilled(folder)]
    if foreign.data is None:
        raise AttarError(f"`layout` {foreign.layout}: name real images of the set's classes with `data`")
    from attar.core.store import Store
    from attar.data import load_data
    from attar.data.class_names import read_class_map
    from attar.job import named_classes
    from attar.sets.layouts import open_layout, understood

    real = load_data(foreign.data)
    if foreign.classes is not None:
        real = real.restricted(named_classes(foreign.classes, real.classes))
    mapping = None if foreign.class_map is None else read_class_map(Path(foreign.class_map))
    sets = [open_layout(folder, foreign.layout, real, mapping, Store()) for folder in folders]
    for distilled in sets:
        say(understood(distilled))
    return sets


def _records_beside(file: Path) -> list[Record]:
    """The records in a file of a folder of sets, if it is there; what is none of ours is left out, and said."""
    from attar.evaluation.records_file import read_records

    if not file.is_file():
        return []
    try:
        records = read_records(file)
    except AttarError as error:
        say(f"note: {file} is left out: {error}")
        return []
    say(f"with the results in {file}")
    return records


def report(
    folders: shared.SetFolders,
    results: Annotated[
        list[Path] | None,
        typer.Option("--results", help="Files written by evaluate --json; none: those in the folders"),
    ] = None,
    out: Annotated[Path, typer.Option(help="The HTML page to write")] = Path("report.html"),
    dry_run: shared.DryRun = False,
) -> None:
    """Make one self-contained HTML page of distilled sets and their results."""
    from attar.evaluation.records_file import read_records
    from attar.report import write_report

    records = [record for file in results or () for record in read_records(file)]
    for file in [folder / "results.json" for folder in folders] if results is None else ():
        records += _records_beside(file)
    for altered in write_report(folders, records, out, say=say, dry_run=dry_run):
        say(f"note: {altered}")


def verify(folder: Annotated[Path, typer.Argument(help="A distilled set, or a folder of them", metavar="DIR")]) -> None:
    """Check a distilled set's files against its manifest: finds missing, extra and altered ones."""
    from attar.sets.distilled import find_distilled
    from attar.sets.distilled import verify as problems_of

    wrong = 0
    for distilled in find_distilled(folder):
        problems = problems_of(distilled.folder)
        for problem in problems:
            say(f"{distilled.folder}: {problem}")
        if not problems:
            say(f"{distilled.folder}: {counted(len(distilled.manifest['images']), 'image')}, all as written")
        wrong += len(problems)
    if wrong:
        raise typer.Exit(1)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the sets and the page")] = Path("demo"),
    seeds: Annotated[int, typer.Option(help="How many training seeds")] = 3,
) -> None:
    """Distill handwritten digits four ways, judge the results, and make a page of them: about four minutes."""
    from attar.cli.demo import run_demo

    numbered(seeds)
    with showing() as progress:
        page = run_demo(out, seeds, progress, say)
    say(str(page))
