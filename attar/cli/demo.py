"""The demonstration: digits distilled by several methods, each judged, on one page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.progress import Progress, Say, quiet
from attar.core.whole_grid import WholeGrid
from attar.core.wording import counted

if TYPE_CHECKING:
    from attar.evaluation.conditions import Conditions
    from attar.evaluation.recipe import Recipe
    from attar.evaluation.records import Record

METHODS = ("random", "prior", "d3hr", "exemplars")
IPCS = (1, 10)
STEPS = 300
FIELDS: dict[str, dict[str, Any]] = {"d3hr": {"fit.per_class": 50}}
"""Fields of the methods that are not at their defaults."""
TEACHER = "teacher"
"""Where the teacher is written that exemplars are chosen with."""
EPOCHS = 20
"""Of its training."""
NETWORK, SIDE = "convnet3-bn-w48", 8
"""What is trained on the sets, and the side of their images, in pixels."""
ALL = "all of the data"


def run_demo(out: Path, seeds: int, progress: Progress, say: Say) -> Path:
    """Writes the distilled sets, their records and one HTML page into `out`; returns the page's absolute path.

    What is already there is not made again, so an interrupted demonstration goes on where it was.
    """
    from attar.evaluation.records_file import write_record
    from attar.report import write_report
    from attar.sets.distilled import find_distilled
    from attar.sets.near_copies import nearest

    _check(out)
    whole = WholeGrid(progress)
    _foresee(out, seeds, whole)
    steps = 2 * len(METHODS) + 3
    say(f"[1/{steps}] training a small teacher, which chooses exemplars")
    with whole.item(TEACHER) as told:
        _train_teacher(out / TEACHER, told)
    _foresee_sets("exemplars", out, whole)
    for number, name in enumerate(METHODS):
        say(f"[{number + 2}/{steps}] distilling the digits by {name}, {' and '.join(map(str, IPCS))} images per class")
        with whole.item(name) as told:
            _distill(name, out / name, told, say)
    records: list[Record] = []
    for number, (what, results) in enumerate(_results(out, seeds, whole)):
        say(f"[{len(METHODS) + number + 2}/{steps}] training on {what}")
        for record in results:
            say(record.row)
            write_record(out / "results.json", record)
            records.append(record)
    page = out / "report.html"
    say(f"[{steps}/{steps}] looking for the nearest real images, writing the page")
    for distilled in (one for name in METHODS for one in find_distilled(out / name)):
        nearest(distilled, progress=progress)
    write_report([out / name for name in METHODS], records, page, title="Attar: handwritten digits, distilled")
    return page.resolve()


def _check(out: Path) -> None:
    """Raises AttarError where something else stands than a demonstration's own results; before any work."""
    from attar.data.output_places import check_place, occupied
    from attar.distillation.run_plan import set_in
    from attar.evaluation.records_file import read_records
    from attar.report.page import check_page

    check_place(out, "`out`", adds=["results.json", "report.html"])
    check_page(out / "report.html")
    if (out / "results.json").exists():
        read_records(out / "results.json")
    for folder in (out / name / f"ipc-{ipc:03d}" for name in METHODS for ipc in IPCS):
        if occupied(folder):
            set_in(folder)


def _train_teacher(out: Path, progress: Progress) -> None:
    from attar.teachers.settings import TeacherTraining
    from attar.teachers.train import train_teacher

    train_teacher(TeacherTraining("digits", epochs=EPOCHS, flip=False), out, progress=progress, say=quiet)


def _foresee(out: Path, seeds: int, whole: WholeGrid) -> None:
    """What everything takes; exemplars are foreseen when their teacher is there."""
    from attar.core.whole_command import StageForecast
    from attar.data import load_data, test_spec
    from attar.evaluation import modified
    from attar.evaluation.outlook import training_kinds, training_seconds

    images, tested = load_data("digits"), len(load_data(test_spec("digits")))
    recipe, conditions = _protocol(seeds)
    each_class = len(images) // len(images.classes)

    def takes(ipc: int, how: Recipe = recipe) -> float:
        return training_seconds(how, NETWORK, len(images.classes), ipc, SIDE, tested, conditions.device)

    if not (out / TEACHER).exists():
        seconds = takes(each_class, modified(recipe, {"steps": None, "epochs": EPOCHS}))
        whole.named(TEACHER).foresee({"training": StageForecast(seconds)})
    for name in METHODS:
        times = seeds if name == "random" else 2 * seeds
        parts = {ipc: StageForecast(times * takes(ipc), kinds=training_kinds(recipe, NETWORK, ipc)) for ipc in IPCS}
        whole.named(f"training on {name}").foresee({f"{name}, {ipc}": part for ipc, part in parts.items()})
        if name != "exemplars":
            _foresee_sets(name, out, whole)
    whole.named(ALL).foresee({ALL: StageForecast(seeds * takes(each_class), kinds=[NETWORK])})


def _foresee_sets(name: str, out: Path, whole: WholeGrid) -> None:
    _distill(name, out / name, whole.named(name), quiet, dry=True)


def _distill(method: str, out: Path, progress: Progress, say: Say, dry: bool = False) -> None:
    from attar.distillation.run import distill_sets
    from attar.job import Job, Spec
    from attar.methods import load_method

    spec = Spec(data="digits", prior=None if method == "random" else "digits")
    job = Job(spec, progress=progress, dry=dry)
    fields = {"fit.select.teacher": str(out.parent / TEACHER)} if method == "exemplars" else FIELDS.get(method)
    distill_sets(job, method, load_method(method, fields), IPCS, out, say=say)


def _protocol(seeds: int) -> tuple[Recipe, Conditions]:
    from attar.evaluation import RECIPES, modified
    from attar.evaluation.conditions import Conditions

    recipe = modified(RECIPES.open("quick"), {"flip": False, "steps": STEPS})
    return recipe, Conditions((NETWORK,), tuple(range(seeds)))


def _results(out: Path, seeds: int, whole: WholeGrid) -> Iterator[tuple[str, Iterable[Record]]]:
    """What is trained on, in words, and the records that come of it: each method's sets, and all of the data."""
    from attar.evaluation.run import evaluate_all, evaluate_sets

    recipe, conditions = _protocol(seeds)
    for name in METHODS:
        own = replace(conditions, baseline=name != "random")
        words = f"the sets of {name}, {counted(seeds, 'seed')} each"
        with whole.item(f"training on {name}") as told:
            yield words, evaluate_sets([out / name], recipe, own, progress=told)
    with whole.item(ALL) as told:
        yield "all of the digits", evaluate_all("digits", recipe, conditions, progress=told)
