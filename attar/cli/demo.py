"""The demonstration: digits distilled by several methods, each judged, on one page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attar.core.progress import Progress, Say
from attar.core.words import counted

METHODS = ("random", "prior", "d3hr")
IPCS = (1, 10)
STEPS = 300
FIELDS: dict[str, dict[str, Any]] = {"d3hr": {"fit.per_class": 50}}
"""Fields of the methods that are not at their defaults."""


def run_demo(out: Path, seeds: int, progress: Progress, say: Say) -> Path:
    """Writes the distilled sets, their records and one HTML page into `out`; returns the page's absolute path.

    What is already there is not made again, so an interrupted demonstration goes on where it was.
    """
    from attar.distillation.run import distill_sets
    from attar.evaluation import RECIPES, modified
    from attar.evaluation.records import Record, write_record
    from attar.evaluation.run import evaluate_all, evaluate_sets
    from attar.job import Spec
    from attar.methods import load_method
    from attar.report import write_report

    steps = len(METHODS) + len(METHODS) + 2
    for number, name in enumerate(METHODS):
        say(f"[{number + 1}/{steps}] distilling the digits by {name}, {' and '.join(map(str, IPCS))} images per class")
        spec = Spec(data="digits", prior=None if name == "random" else "digits")
        distill_sets(spec, name, load_method(name, FIELDS.get(name)), IPCS, out / name, progress=progress, say=say)
    recipe = modified(RECIPES.open("quick"), {"flip": False, "steps": STEPS})
    chosen: dict[str, Any] = {
        "recipe": recipe,
        "networks": ["convnet3-bn-w48"],
        "seeds": range(seeds),
        "progress": progress,
    }
    records: list[Record] = []

    def keep(results: Iterable[Record]) -> None:
        for record in results:
            say(record.row)
            write_record(out / "results.json", record)
            records.append(record)

    for number, name in enumerate(METHODS):
        say(f"[{len(METHODS) + number + 1}/{steps}] training on the sets of {name}, {counted(seeds, 'seed')} each")
        keep(evaluate_sets([out / name], **chosen, baseline=name != "random"))
    say(f"[{steps - 1}/{steps}] training on all of the digits")
    keep(evaluate_all("digits", **chosen))
    page = out / "report.html"
    say(f"[{steps}/{steps}] writing the page")
    write_report([out / name for name in METHODS], records, page, title="Attar: handwritten digits, distilled")
    return page.resolve()
