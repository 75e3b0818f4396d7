"""The demonstration: digits distilled by several methods, each judged, on one page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.progress import Progress, Say, of_item
from attar.core.wording import counted

if TYPE_CHECKING:
    from attar.evaluation.records import Record

METHODS = ("random", "prior", "d3hr", "exemplars")
IPCS = (1, 10)
STEPS = 300
FIELDS: dict[str, dict[str, Any]] = {"d3hr": {"fit.per_class": 50}}
"""Fields of the methods that are not at their defaults."""
TEACHER = "teacher"
"""Where the teacher is written that exemplars are chosen with."""


def run_demo(out: Path, seeds: int, progress: Progress, say: Say) -> Path:
    """Writes the distilled sets, their records and one HTML page into `out`; returns the page's absolute path.

    What is already there is not made again, so an interrupted demonstration goes on where it was.
    """
    from attar.evaluation.records_file import write_record
    from attar.report import write_report
    from attar.sets.distilled import find_distilled
    from attar.sets.near_copies import nearest

    _check(out)
    steps = 2 * len(METHODS) + 3
    say(f"[1/{steps}] training a small teacher, which chooses exemplars")
    _train_teacher(out / TEACHER, progress)
    for number, name in enumerate(METHODS):
        say(f"[{number + 2}/{steps}] distilling the digits by {name}, {' and '.join(map(str, IPCS))} images per class")
        _distill(name, out / name, progress, say)
    records: list[Record] = []
    for number, (what, results) in enumerate(_results(out, seeds, progress)):
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
    from attar.core.progress import quiet
    from attar.teachers.settings import TeacherTraining
    from attar.teachers.train import train_teacher

    train_teacher(TeacherTraining("digits", epochs=20, flip=False), out, progress=progress, say=quiet)


def _distill(method: str, out: Path, progress: Progress, say: Say) -> None:
    from attar.distillation.run import distill_sets
    from attar.job import Job, Spec
    from attar.methods import load_method

    spec = Spec(data="digits", prior=None if method == "random" else "digits")
    job = Job(spec, progress=of_item(progress))
    fields = {"fit.select.teacher": str(out.parent / TEACHER)} if method == "exemplars" else FIELDS.get(method)
    distill_sets(job, method, load_method(method, fields), IPCS, out, say=say)


def _results(out: Path, seeds: int, progress: Progress) -> Iterator[tuple[str, Iterable[Record]]]:
    """What is trained on, in words, and the records that come of it: each method's sets, and all of the data."""
    from attar.evaluation import RECIPES, modified
    from attar.evaluation.conditions import Conditions
    from attar.evaluation.run import evaluate_all, evaluate_sets

    recipe = modified(RECIPES.open("quick"), {"flip": False, "steps": STEPS})
    conditions = Conditions(("convnet3-bn-w48",), tuple(range(seeds)))
    for name in METHODS:
        own = replace(conditions, baseline=name != "random")
        words = f"the sets of {name}, {counted(seeds, 'seed')} each"
        yield words, evaluate_sets([out / name], recipe, own, progress=of_item(progress))
    yield "all of the digits", evaluate_all("digits", recipe, conditions, progress=progress)
