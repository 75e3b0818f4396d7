"""The commands that make, judge, show and check distilled sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attar.cli import flags
from attar.cli.flags import DATA_HELP, assignments, ipcs_of, merged, say, showing, spec_of
from attar.cli.teachers import Teacher, TeacherClasses, TeacherNormalise, labelled_recipe, named_teacher
from attar.core.errors import AttarError
from attar.core.limits import seeds as numbered
from attar.core.words import counted

if TYPE_CHECKING:
    from attar.sets.distilled import DistilledSet


BESIDE = ("sets", "config", "dry_run", "explain")
"""Options of `distill` that are no settings of the run."""


def distill(
    context: typer.Context,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    prior: flags.Prior = None,
    codec: flags.Codec = None,
    method: Annotated[str | None, typer.Option(help="`attar list methods` names them")] = None,
    ipc: Annotated[str | None, typer.Option(help="Images per class; several as 1,10,50")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; several IPCs go to OUT/ipc-001, OUT/ipc-010 ...")
    ] = None,
    seed: flags.Seed = None,
    sets: flags.Fields = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML with any of these flags, and a table [set]; flags win")
    ] = None,
    classes: flags.Classes = None,
    class_map: flags.ClassMap = None,
    prompt: flags.Prompt = None,
    prompts: flags.PromptFile = None,
    negative_prompt: flags.NegativePrompt = None,
    imbalance_factor: flags.ImbalanceFactor = None,
    hold_out: Annotated[
        bool | None, typer.Option("--hold-out", help="Leave out a fixed tenth, to choose settings on")
    ] = None,
    keep_statistics: Annotated[
        bool | None,
        typer.Option("--keep-statistics", help="d3hr: keep the statistics that `attar regenerate` makes any IPC from"),
    ] = None,
    preprocess: flags.Preprocess = None,
    output_size: flags.OutputSize = None,
    output_filter: flags.OutputFilter = None,
    device: flags.Device = None,
    dtype: flags.Dtype = None,
    tile: flags.Tile = None,
    on_bad_image: flags.OnBadImage = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, estimate the cost, and stop")] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Check everything, say what is in the cache and what differs there, and stop"),
    ] = False,
) -> None:
    """Distill a labelled image set into a few images per class.

    Run the same command again after an interruption: it goes on where it was.
    """
    given = {name: value for name, value in context.params.items() if name not in BESIDE}
    settings = merged(given, config)
    changes = {**settings.pop("set", {}), **assignments(sets or [])}
    for needed in ("data", "method", "ipc", "out"):
        if needed not in settings:
            raise AttarError(f"--{needed} is missing (on the command line or in --config)")
    _distill(settings, changes, dry_run, explain)


def _distill(settings: dict[str, Any], changes: dict[str, Any], dry_run: bool, explain: bool) -> None:
    from attar.methods import METHODS

    METHODS.check(settings["method"])
    ipcs = ipcs_of(settings.pop("ipc"))
    name, out = settings.pop("method"), Path(settings.pop("out"))

    from attar.distillation.run import distill_sets
    from attar.methods import load_method

    chosen = load_method(name, changes)
    spec = spec_of(settings, "distill")
    with showing() as progress:
        if explain:
            from attar.cli.cache import reused
            from attar.distillation.reuse import explain_run

            found = explain_run(spec, name, chosen, ipcs, out, progress=progress, say=say)
        else:
            distill_sets(spec, name, chosen, ipcs, out, progress=progress, say=say, dry_run=dry_run)
    for line in reused(found) if explain else ():
        say(line)


def evaluate(
    folders: Annotated[list[Path], typer.Argument(help="Distilled sets, or folders of them", metavar="DIR...")],
    test: Annotated[
        str | None, typer.Option(help="Test images, or held-out; default: the test split of the set's data")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="The evaluation protocol; `attar list recipes` names them (default quick)")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="`attar list networks`, or any timm network; several: repeat it, or A,B")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many training seeds")] = 3,
    sets: Annotated[list[str] | None, typer.Option("--set", help="A field of the recipe: --set steps=200")] = None,
    baseline: Annotated[bool, typer.Option(help="Evaluate random real images of the same count beside it")] = True,
    teacher: Teacher = None,
    teacher_classes: TeacherClasses = None,
    teacher_normalise: TeacherNormalise = None,
    labels: Annotated[
        Path | None, typer.Option(help="Labels that `attar relabel` wrote for the set; their recipe is the default")
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="DIR is a set that another code wrote: minimax, rded, d4m, d3hr, or folder (named by class)"),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="With --layout: real images of its classes, as for `attar distill --data`")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="With --layout: the classes of the data that it has, if not all of them")
    ] = None,
    class_map: Annotated[
        Path | None, typer.Option(help="With --layout: TOML or JSON table, folder = class name or label of the data")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the records in this file")] = None,
    dry_run: flags.DryRun = False,
) -> None:
    """Train networks on distilled sets and test them on real images.

    Sets of other codes: --layout says how their folders are named, --data which real images they stand for.
    """
    from attar.evaluation import modified, named_recipe
    from attar.networks import check

    protocol = named_recipe(recipe or "quick") if labels is None else labelled_recipe(labels, recipe)
    chosen = numbered(seeds)
    networks = [name for names in network or ["convnet3"] for name in names.split(",")]
    for name in networks:
        check(name)
    if sets:
        protocol = modified(protocol, assignments(sets))
    from attar.data.places import check_place
    from attar.evaluation.records import read_records, write_record
    from attar.evaluation.run import evaluate_sets

    found = _found(folders, layout, data, classes, class_map)
    if json_file is not None:
        check_place(json_file, "--json", [test, *(one.manifest["data"]["spec"] for one in found)])
        if json_file.exists():
            read_records(json_file)
    if not dry_run:
        trainings = counted(len(found) * len(networks) * seeds * (2 if baseline else 1), "training")
        say(f"{trainings} at most; what is in the cache is not done again")
    with showing() as progress:
        for record in evaluate_sets(
            found,
            protocol,
            networks,
            chosen,
            test=test,
            baseline=baseline,
            teacher=named_teacher(teacher, teacher_classes, teacher_normalise),
            labels=labels,
            device=device,
            progress=progress,
            say=say,
            dry_run=dry_run,
        ):
            say(record.row)
            if json_file is not None:
                write_record(json_file, record)
    if json_file is not None:
        records = counted(len(found) * len(networks), "record")
        say(f"{records} would be kept in {json_file}" if dry_run else f"{records} kept in {json_file}")


def _found(
    folders: list[Path], layout: str | None, data: str | None, classes: str | None, class_map: Path | None
) -> list[DistilledSet]:
    """The sets in some folders: Attar's own, or, with a layout, those of other codes, said how they are understood."""
    from attar.sets.distilled import find_distilled

    if layout is None:
        for flag, value in (("data", data), ("classes", classes), ("class-map", class_map)):
            if value is not None:
                raise AttarError(f"--{flag} says what a set from elsewhere is of; name its --layout, too")
        return [one for folder in folders for one in find_distilled(folder)]
    if data is None:
        raise AttarError(f"--layout {layout}: name real images of the set's classes with --data")
    from attar.core.store import Store
    from attar.data import load_data
    from attar.data.class_names import read_class_map
    from attar.job import named_classes
    from attar.sets.layouts import open_layout, understood

    real = load_data(data)
    if classes is not None:
        real = real.restricted(named_classes([name.strip() for name in classes.split(",")], real.classes))
    mapping = None if class_map is None else read_class_map(class_map)
    found = [open_layout(folder, layout, real, mapping, Store()) for folder in folders]
    for one in found:
        say(understood(one))
    return found


def report(
    folders: Annotated[list[Path], typer.Argument(help="Distilled sets, or folders of them", metavar="DIR...")],
    results: Annotated[list[Path] | None, typer.Option("--results", help="Files written by evaluate --json")] = None,
    out: Annotated[Path, typer.Option(help="The HTML page to write")] = Path("report.html"),
    dry_run: flags.DryRun = False,
) -> None:
    """Make one self-contained HTML page of distilled sets and their results."""
    from attar.evaluation.records import read_records
    from attar.report import write_report

    records = [record for file in results or [] for record in read_records(file)]
    for altered in write_report(folders, records, out, say=say, dry_run=dry_run):
        say(f"note: {altered}")


def verify(folder: Annotated[Path, typer.Argument(help="A distilled set, or a folder of them", metavar="DIR")]) -> None:
    """Check a distilled set's files against its manifest: finds missing, extra and altered ones."""
    from attar.sets.distilled import find_distilled
    from attar.sets.distilled import verify as problems_of

    wrong = 0
    for one in find_distilled(folder):
        problems = problems_of(one.folder)
        for problem in problems:
            say(f"{one.folder}: {problem}")
        if not problems:
            say(f"{one.folder}: {counted(len(one.manifest['images']), 'image')}, all as written")
        wrong += len(problems)
    if wrong:
        raise typer.Exit(1)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the sets and the page")] = Path("demo"),
    seeds: Annotated[int, typer.Option(help="How many training seeds")] = 3,
) -> None:
    """Distill handwritten digits three ways, judge the results, and make a page of them: about four minutes."""
    from attar.cli.demo import run_demo

    numbered(seeds)
    with showing() as progress:
        page = run_demo(out, seeds, progress, say)
    say(str(page))
