"""A waterfall run: one distilled set evaluated by one recipe after the other, resumably; how far each step moves it."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from attar.core.progress import Progress, Say, about
from attar.core.store import Store, write_json
from attar.core.wording import counted
from attar.data.output_places import check_place
from attar.evaluation import Recipe
from attar.evaluation.conditions import Conditions
from attar.evaluation.evaluator import training_plan
from attar.evaluation.load_images import images_of_set
from attar.evaluation.precision import resolve_precision
from attar.evaluation.records import Record, signed, spread
from attar.evaluation.records_file import read_records, write_record
from attar.evaluation.suited import if_smaller
from attar.experiments.scoring import TrainingGroup, check_inputs, evaluated, expected_seconds, grid_of, the_set
from attar.experiments.waterfall_steps import RecipeStep, ends
from attar.networks import build
from attar.sets.distilled import DistilledSet

FILES = ("waterfall.md", "waterfall.csv", "waterfall.json", "waterfall.png")
NUMBERS = ("size", "epochs", "batch", "lr", "weight_decay", "warmup")
"""Fields of a recipe that may come to another value for a set and a network."""


@dataclass(frozen=True)
class Bar:
    """What a step came to; accuracies in per cent, differences in points."""

    name: str
    """The field that was changed, or the first of a group; of the first bar, the recipe."""
    summary: str
    """The changes in words."""
    recipe: str
    """The recipe's name."""
    against: int | None
    """The number of the bar that it stands on; None: the first bar."""
    accuracies: tuple[float, ...]
    """Accuracy of each training seed: after the last epoch; of the bars that `best` marks, at the best one."""
    mean: float
    """Mean of the accuracies."""
    std: float | None
    """Sample deviation over the training seeds; None of a single one."""
    difference: float | None
    """To the bar that it stands on: mean over the seeds, each with itself."""
    difference_std: float | None
    """Sample deviation of these paired differences; None of a single seed."""
    random: float | None
    """Mean of random real images under the same recipe, where they were evaluated."""
    best: bool = False
    """Whether it shows the epoch that was best on the test set, of the same trainings as the bar it stands on."""

    @property
    def accuracy(self) -> str:
        """Mean and deviation in words: "50.0 ± 1.0"."""
        return spread(f"{self.mean:.1f}", self.std)

    @property
    def gap(self) -> str:
        """The difference and its deviation in words; nothing of the first bar."""
        return "" if self.difference is None else spread(signed(self.difference), self.difference_std)

    @property
    def row(self) -> str:
        """What changed, the accuracy and the difference, on a line."""
        return f"{self.summary or self.name}  {self.accuracy} %{'  ' if self.gap else ''}{self.gap}"

    def as_json(self) -> dict[str, Any]:
        """The bar as waterfall.json holds it."""
        return {"told" if name == "summary" else name: value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Waterfall:
    """What the steps of one set and network came to."""

    folder: Path
    """The set's folder."""
    network: str
    """The network's name."""
    bars: tuple[Bar, ...]
    """The steps, in order."""


def waterfall(
    folder: Path,
    steps: Sequence[RecipeStep],
    conditions: Conditions,
    out: Path,
    *,
    store: Store | None = None,
    progress: Progress,
    say: Say,
    dry_run: bool = False,
) -> Waterfall | None:
    """Evaluates the set in `folder` by every step's recipe; writes results.json and waterfall.json. None of a dry run.

    Steps that make no difference to this set and network are not trained again. Only those whose best epoch is shown
    are tested before the last one.

    Raises:
        AttarError: not one set in the folder, a recipe that does not fit it, or a missing teacher; before any training.
    """
    distilled, store, network = the_set(folder), store or Store(), conditions.network
    _check_out(out, [distilled.manifest["data"]["spec"], conditions.test])
    effective = [_effective(distilled, step.recipe, conditions) for step in steps]
    same = [next((k for k in range(n) if effective[k] == effective[n]), None) for n in range(len(steps))]
    steps = _in_numbers(steps, effective)
    check_inputs(distilled, [step.recipe for step in steps], conditions, store, progress, say)
    trainings = _trainings(distilled, steps, same, conditions, store, progress)
    say(_cost(steps, same, trainings.values(), max(recipe.size or 0 for recipe in effective)))
    if dry_run:
        return None
    records, whole = list[Record](), grid_of(trainings, network, progress)
    for number, recipe in enumerate(_trained(steps, same)):
        if (earlier := same[number]) is not None:
            records.append(replace(records[earlier], recipe=recipe.name))
            continue
        with whole.item(str(number)) as told:
            records.append(evaluated(distilled, recipe, conditions, store, told))
        write_record(out / "results.json", records[-1])
        say(bars(steps[: number + 1], records)[number].row)
    return _written(Waterfall(distilled.folder, network, tuple(bars(steps, records))), str(folder), records[0], out)


def _written(result: Waterfall, folder: str, first: Record, out: Path) -> Waterfall:
    about = {"set": folder, "network": result.network, "n": len(first.accuracies), "test": first.test}
    write_json(out / "waterfall.json", {**about, "bars": [bar.as_json() for bar in result.bars]})
    return result


def _check_out(out: Path, inputs: Sequence[str | None]) -> None:
    """Raises AttarError unless the results of these inputs can be kept in a folder."""
    check_place(out, "`out`", inputs, adds=("results.json", *FILES))
    if (out / "results.json").exists():
        read_records(out / "results.json")


def bars(steps: Sequence[RecipeStep], records: Sequence[Record]) -> list[Bar]:
    """The steps with their records; behind them, of each end that was tested as it trained, how much higher its best
    epoch lies than the last one.

    Args:
        records: one for each step, with the same training seeds.
    """
    made: list[Bar] = []
    for step, record in zip(steps, records, strict=True):
        below = None if step.against is None else made[step.against]
        random = None if record.baseline is None else record.baseline.mean
        made.append(_bar(step.name, step.summary, record, step.against, below, record.accuracies, random))
    for number in ends(steps):
        if steps[number].recipe.test_every is not None:
            summary, last = f"best epoch (on the test set) of {made[number].recipe}", records[number]
            made.append(replace(_bar("best epoch", summary, last, number, made[number], last.best), best=True))
    return made


def _bar(
    name: str,
    summary: str,
    record: Record,
    against: int | None,
    below: Bar | None,
    accuracies: Sequence[float],
    random: float | None = None,
) -> Bar:
    differences = [] if below is None else [a - b for a, b in zip(accuracies, below.accuracies, strict=True)]
    return Bar(
        name=name,
        summary=summary,
        recipe=record.recipe,
        against=against,
        accuracies=tuple(accuracies),
        mean=statistics.fmean(accuracies),
        std=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        difference=statistics.fmean(differences) if differences else None,
        difference_std=statistics.stdev(differences) if len(differences) > 1 else None,
        random=random,
    )


def _effective(distilled: DistilledSet, recipe: Recipe, conditions: Conditions) -> Recipe:
    """The recipe with the numbers that its tables and rules come to, and without what is then unused.

    When it is tested as it trains is left out, as that does not change the training.
    """
    train, network = images_of_set(distilled, recipe), conditions.network
    plan, augmentation = training_plan(recipe, train, network)
    batch = plan.batch if plan.steps is not None else min(plan.batch, len(train.labels))
    values = (augmentation.size, plan.epochs, batch, plan.lr, plan.weight_decay, plan.warmup)
    numbers: dict[str, Any] = dict(zip(NUMBERS, values, strict=True))
    unused: dict[str, Any] = {"name": "", "source": "", "batch_doubled_at": (), "many_classes": "as is"}
    unused |= {
        "test_every": None,
        "test_from": 0.0,
        "precision": resolve_precision(conditions.device, recipe.precision)[1],
    }
    unused |= {"temperature": 1.0} if recipe.labels == "hard" else {}
    unused |= {"momentum": 0.0} if recipe.optimiser == "adamw" else {}
    unused |= {"test_resize": "size"} if recipe.shorter_side(augmentation.size) == augmentation.size else {}
    if recipe.extra_forward and not _has_batch_norm(network, len(distilled.classes), augmentation.size):
        unused["extra_forward"] = False
    return replace(recipe, **numbers, **unused)


@cache
def _has_batch_norm(network: str, classes: int, size: int) -> bool:
    modules = build(network, classes, size, seed=0).modules()
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules)


def _in_numbers(steps: Sequence[RecipeStep], effective: Sequence[Recipe]) -> list[RecipeStep]:
    """The steps, their changes in the numbers that tables and rules come to: "lr 0.002 → 0.001"."""
    numbered = []
    for step, after in zip(steps, effective, strict=True):
        before = effective[step.against or 0]
        numbers = {field: (getattr(before, field), getattr(after, field)) for field in NUMBERS if field in step.changes}
        numbered.append(replace(step, changes={**step.changes, **numbers}))
    return numbered


def _trained(steps: Sequence[RecipeStep], same: Sequence[int | None]) -> list[Recipe]:
    """The steps' recipes as they are trained: tested before the last epoch only where a bar shows the best one."""
    recipes = []
    for number, step in enumerate(steps):
        shown = (steps[end].recipe for end in ends(steps) if number in (end, same[end]))
        tests = next((recipe for recipe in shown if recipe.test_every is not None), None)
        every, start = (None, 0.0) if tests is None else (tests.test_every, tests.test_from)
        recipes.append(replace(step.recipe, test_every=every, test_from=start))
    return recipes


def _trainings(
    distilled: DistilledSet,
    steps: Sequence[RecipeStep],
    same: Sequence[int | None],
    conditions: Conditions,
    store: Store,
    progress: Progress,
) -> dict[str, TrainingGroup]:
    """The trainings of each step that makes a difference, by its number."""
    times = len(conditions.seeds) * (2 if conditions.baseline else 1)
    return {
        str(number): TrainingGroup(
            step.name, step.recipe, times, expected_seconds(distilled, step.recipe, conditions, store, progress)
        )
        for number, (step, earlier) in enumerate(zip(steps, same, strict=True))
        if earlier is None
    }


def _cost(
    steps: Sequence[RecipeStep], same: Sequence[int | None], trainings: Collection[TrainingGroup], side: int
) -> str:
    """The steps, and about how long they take on this device; networks see images of up to `side` pixels."""
    lines = [f"{number}. {step.summary or step.name}" for number, step in enumerate(steps)]
    lines = [
        line if earlier is None else f"{line} (no effect on this set and network: not trained again)"
        for line, earlier in zip(lines, same, strict=True)
    ]
    many, seconds = sum(one.times for one in trainings), sum(one.seconds for one in trainings)
    total = f"{counted(many, 'training')} at most, {about(seconds)} without tests before the last"
    soft = " and the teacher's work" if any(one.recipe.labels == "soft" for one in trainings) else ""
    left = f"{total}{soft}; what is in the cache is not done again{if_smaller(side, seconds)}"
    return "\n".join([*lines, left])
