"""A waterfall run: one distilled set evaluated by one recipe after the other, resumably; its tables and chart."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.progress import Progress, duration
from attar.core.store import Store, replacing, write_json
from attar.data.places import check_place
from attar.evaluation.records import read_records, signed, write_record
from attar.evaluation.waterfall import Bar, Step, bars, ends
from attar.experiments.scoring import Terms, check_inputs, evaluated, expected_seconds, the_set
from attar.experiments.waterfall_chart import draw
from attar.networks import build
from attar.sets.distilled import DistilledSet

if TYPE_CHECKING:
    from attar.core.progress import Say
    from attar.evaluation import Recipe

Records = list[dict[str, Any]]

FILES = ("waterfall.md", "waterfall.csv", "waterfall.json", "waterfall.png")
NUMBERS = ("size", "epochs", "batch", "lr", "weight_decay", "warmup")
"""Fields of a recipe that may come to another value for a set and a network."""


def waterfall(
    folder: Path,
    steps: Sequence[Step],
    terms: Terms,
    out: Path,
    *,
    store: Store | None = None,
    progress: Progress,
    say: Say,
    dry_run: bool = False,
) -> list[Bar]:
    """Evaluates the set in `folder` by every step's recipe; writes results.json, waterfall.md, .csv, .json and .png.

    Steps that make no difference to this set and network are not trained again. Only those whose best epoch is shown
    are tested before the last one.

    Raises:
        AttarError: not one set in the folder, a recipe that does not fit it, or a missing teacher; before any training.
    """
    one = the_set(folder)
    check_place(out, "--out", [one.manifest["data"]["spec"], terms.test], adds=("results.json", *FILES))
    if (out / "results.json").exists():
        read_records(out / "results.json")
    settled = [_settled(one, step.recipe, terms) for step in steps]
    same = [next((k for k in range(n) if settled[k] == settled[n]), None) for n in range(len(steps))]
    steps = _in_numbers(steps, settled)
    check_inputs(one, [step.recipe for step in steps], terms, store or Store(), progress, say)
    say(_cost(one, steps, same, terms, store or Store(), progress))
    if dry_run:
        return []
    records: Records = []
    for number, recipe in enumerate(_trained(steps, same)):
        if same[number] is not None:
            records.append({**records[same[number] or 0], "recipe": recipe.name})
            continue
        records.append(evaluated(one, recipe, terms, store, progress))
        write_record(out / "results.json", records[-1])
        say(_line(bars(steps[: number + 1], records)[number]))
    found = bars(steps, records)
    about = {"set": str(folder), "network": terms.network, "n": len(terms.seeds), "test": records[0]["test"]}
    write_json(out / "waterfall.json", {**about, "bars": [asdict(bar) for bar in found]})
    for name, text in (("waterfall.md", markdown(found)), ("waterfall.csv", table(found))):
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    with replacing(out / "waterfall.png") as temporary:
        draw(found, f"{one.folder.name}, {terms.network}", temporary)
    say(f"\n{markdown(found)}\nwrote {out}/waterfall.md, .csv, .json, .png, and results.json for `attar report`")
    return found


def _settled(one: DistilledSet, recipe: Recipe, terms: Terms) -> Recipe:
    """The recipe with the numbers that its tables and rules come to, and without what is then unused.

    When it is tested as it trains is left out, as that does not change the training.
    """
    from attar.evaluation.evaluator import settle
    from attar.evaluation.inputs import opened
    from attar.evaluation.precision import settled

    train, network = opened(one, recipe), terms.network
    plan, how = settle(recipe, train, network)
    batch = plan.batch if plan.steps is not None else min(plan.batch, len(train.labels))
    values = (how.size, plan.epochs, batch, plan.lr, plan.weight_decay, plan.warmup)
    numbers: dict[str, Any] = dict(zip(NUMBERS, values, strict=True))
    unused: dict[str, Any] = {"name": "", "source": "", "batch_doubled_at": (), "many_classes": "as is"}
    unused |= {"test_every": None, "test_from": 0.0, "precision": settled(terms.device, recipe.precision)[1]}
    unused |= {"temperature": 1.0} if recipe.labels == "hard" else {}
    unused |= {"momentum": 0.0} if recipe.optimiser == "adamw" else {}
    unused |= {"test_resize": "size"} if recipe.shorter_side(how.size) == how.size else {}
    if recipe.extra_forward and not _has_batch_norm(network, len(one.classes), how.size):
        unused["extra_forward"] = False
    return replace(recipe, **numbers, **unused)


@cache
def _has_batch_norm(network: str, classes: int, size: int) -> bool:
    from torch import nn

    modules = build(network, classes, size, seed=0).modules()
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules)


def _in_numbers(steps: Sequence[Step], settled: Sequence[Recipe]) -> list[Step]:
    """The steps, told with what tables and rules come to: "lr 0.002 → 0.001"."""
    found = []
    for step, after in zip(steps, settled, strict=True):
        before = settled[step.against or 0]
        numbers = {field: (getattr(before, field), getattr(after, field)) for field in NUMBERS if field in step.changes}
        found.append(replace(step, changes={**step.changes, **numbers}))
    return found


def _trained(steps: Sequence[Step], same: Sequence[int | None]) -> list[Recipe]:
    """The steps' recipes as they are trained: tested before the last epoch only where a bar shows the best one."""
    found = []
    for number, step in enumerate(steps):
        shown = (steps[end].recipe for end in ends(steps) if number in (end, same[end]))
        tests = next((recipe for recipe in shown if recipe.test_every is not None), None)
        every, start = (None, 0.0) if tests is None else (tests.test_every, tests.test_from)
        found.append(replace(step.recipe, test_every=every, test_from=start))
    return found


def _cost(
    one: DistilledSet,
    steps: Sequence[Step],
    same: Sequence[int | None],
    terms: Terms,
    store: Store,
    progress: Progress,
) -> str:
    """The steps, and about how long they take on this device."""
    trained = [step.recipe for step, as_before in zip(steps, same, strict=True) if as_before is None]
    times = len(terms.seeds) * (2 if terms.baseline else 1)
    seconds = times * sum(expected_seconds(one, recipe, terms, store, progress) for recipe in trained)
    lines = [f"{number}. {step.told or step.name}" for number, step in enumerate(steps)]
    lines = [
        line if as_before is None else f"{line} (no effect on this set and network: not trained again)"
        for line, as_before in zip(lines, same, strict=True)
    ]
    total = f"{len(trained) * times} trainings at most, about {duration(seconds)} without tests before the last"
    soft = " and the teacher's work" if any(recipe.labels == "soft" for recipe in trained) else ""
    return "\n".join([*lines, f"{total}{soft}; those that are in the cache are not done again"])


def _line(bar: Bar) -> str:
    gap = "" if bar.difference is None else f"  {_spread(signed(bar.difference), bar.difference_std)}"
    return f"{bar.told or bar.name}  {_spread(f'{bar.mean:.1f}', bar.std)} %{gap}"


HEAD = ("step", "change", "accuracy", "difference", "n", "random")


def markdown(found: Sequence[Bar]) -> str:
    """A table for documents: per cent and points, mean ± sample deviation over the training seeds."""
    lines = [f"| {' | '.join(HEAD)} |", "|---|---|---:|---:|---:|---:|"]
    for bar in found:
        gap = "" if bar.difference is None else _spread(signed(bar.difference), bar.difference_std)
        random = "" if bar.random is None else f"{bar.random:.1f}"
        cells = (bar.name, bar.told, _spread(f"{bar.mean:.1f}", bar.std), gap, str(len(bar.accuracies)), random)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def table(found: Sequence[Bar]) -> str:
    """The same as CSV, with unrounded numbers and every seed's accuracy."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "change", "mean", "std", "difference", "difference_std", "n", "random", "accuracies"])
    for bar in found:
        numbers = (bar.mean, bar.std, bar.difference, bar.difference_std, len(bar.accuracies), bar.random)
        writer.writerow([bar.name, bar.told, *numbers, " ".join(map(str, bar.accuracies))])
    return text.getvalue()


def _spread(mean: str, std: float | None) -> str:
    return mean if std is None else f"{mean} ± {std:.1f}"
