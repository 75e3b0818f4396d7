"""DD-Ranking's scores of one distilled set: the trainings that they need, as resumable items, and what they come to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from attar.core.errors import AttarError
from attar.core.files import write_json, writing
from attar.core.progress import Progress, Say, about
from attar.core.store import Store
from attar.core.whole_command import StageForecast
from attar.core.whole_grid import WholeGrid
from attar.core.wording import counted
from attar.data.output_places import check_file, check_place
from attar.evaluation import Recipe
from attar.evaluation.conditions import Conditions
from attar.evaluation.evaluator import Students, evaluate
from attar.evaluation.load_images import all_for_recipe, all_images, images_of_set, teacher_examples
from attar.evaluation.outlook import training_seconds
from attar.evaluation.records import Record, Result
from attar.evaluation.run import evaluate_sets
from attar.evaluation.scores import (
    augmentation_robust,
    hard_label,
    improvement,
    label_robust,
    on_all_data,
    recovery,
    unaugmented,
)
from attar.evaluation.teaching import open_label_source
from attar.experiments.settings import Protocol
from attar.sets.distilled import DistilledSet, check_undamaged, find_distilled
from attar.sets.source_data import check_data, real_images, tested_images


@dataclass(frozen=True)
class Scores:
    """A set's scores for each training seed, and the records that they are made of; scores are fractions."""

    full_accuracy: float
    """Accuracy of all the data with hard labels."""
    own: Record
    """The set by its own protocol, random real images beside it."""
    plain: Record
    """The same without augmentation."""
    hard: Record
    """The set with hard labels."""
    weight: float = 0.5
    """See `Protocol`."""

    @property
    def by_name(self) -> dict[str, list[float]]:
        """HLR, IOR, LRS and ARS, each for every training seed."""
        hlr = [recovery(self.full_accuracy, accuracy) for accuracy in _fractions(self.hard)]
        ior, without = _improvements(self.own), _improvements(self.plain)
        return {
            "HLR": hlr,
            "IOR": ior,
            "LRS": [label_robust(*pair, self.weight) for pair in zip(hlr, ior, strict=True)],
            "ARS": [augmentation_robust(*pair, self.weight) for pair in zip(ior, without, strict=True)],
        }

    def as_json(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        return {
            **{name: getattr(self.own, name) for name in ("set", "network", "recipe", "changes", "test")},
            "weight": self.weight,
            "full_accuracy": self.full_accuracy,
            "scores": self.by_name,
            "records": {name: getattr(self, name).as_json() for name in ("own", "plain", "hard")},
        }


def _fractions(result: Result) -> list[float]:
    return [accuracy / 100 for accuracy in result.accuracies]


def _improvements(record: Record) -> list[float]:
    """How far the set is ahead of random real images, for each training seed."""
    assert record.baseline is not None, "the set is scored beside random real images"
    pairs = zip(_fractions(record), _fractions(record.baseline), strict=True)
    return [improvement(own, random) for own, random in pairs]


def scored(
    folder: Path,
    protocol: Protocol,
    conditions: Conditions,
    json_file: Path | None = None,
    *,
    store: Store | None = None,
    progress: Progress,
    say: Say,
    dry_run: bool = False,
) -> Scores | None:
    """HLR, IOR, LRS and ARS of the set in `folder`; None of a dry run.

    Raises:
        AttarError: not one set in the folder, a recipe that does not fit it, or a missing teacher; before any training.
    """
    distilled, own, store = the_set(folder), protocol.own, store or Store()
    _check_json(json_file, [distilled.manifest["data"]["spec"], conditions.test])
    check_inputs(distilled, [own], conditions, store, progress, say)
    trainings = _trainings(distilled, protocol, conditions, store, progress)
    say(_cost(trainings.values(), own))
    if dry_run:
        return None
    whole = grid_of(trainings, conditions.network, progress)

    def judged(name: str, how: Conditions = conditions) -> Record:
        with whole.item(name) as told:
            return evaluated(distilled, trainings[name].recipe, how, store, told)

    full = protocol.full_accuracy
    if full is None:
        with whole.item("full") as told:
            full = _on_all_data(distilled, trainings["full"].recipe, conditions, store, told)
        epochs = counted(protocol.full_epochs, "epoch")
        say(f"all of the data, hard labels, {epochs}: {100 * full:.1f} % (one training)")
    usual, plain = judged("own"), judged("plain")
    hard = judged("hard", replace(conditions, baseline=False, teacher=None)) if "hard" in trainings else usual
    return _written(Scores(full, usual, plain, hard, protocol.weight), json_file)


def _check_json(file: Path | None, inputs: Sequence[str | None]) -> None:
    """Raises AttarError unless the scores of these inputs can be written to a file."""
    if file is not None:
        check_place(file, "`json`", inputs)
        check_file(file, "`json`", '"full_accuracy": ', "a file of scores")


def _written(scores: Scores, file: Path | None) -> Scores:
    if file is not None:
        with writing(file, "name another file with `json`"):
            write_json(file, scores.as_json())
    return scores


def _on_all_data(
    distilled: DistilledSet, recipe: Recipe, conditions: Conditions, store: Store, progress: Progress
) -> float:
    """The accuracy, a fraction, of one network trained on all real images that the set was distilled from."""
    side = images_of_set(distilled, recipe).side
    train = all_for_recipe(real_images(distilled, store), recipe, side, distilled.manifest["preprocess"], store)
    tested = tested_images(distilled, conditions.test, store, progress)
    tests = all_images(tested, recipe.shorter_side(recipe.size or side), "resize-crop", store)
    students = Students(train, tests, recipe, conditions.network, conditions.device, store=store)
    return evaluate(students, (0,), progress).mean / 100


@dataclass(frozen=True)
class TrainingGroup:
    """TrainingGroup of one kind: what they are, in words, by which recipe, how many, and the seconds of each."""

    words: str
    recipe: Recipe
    times: int
    each: float

    @property
    def line(self) -> str:
        """All of it, in words."""
        return f"{self.times} x {self.words}: {about(self.seconds)}"

    @property
    def seconds(self) -> float:
        """Of all of them."""
        return self.times * self.each


def grid_of(trainings: Mapping[str, TrainingGroup], network: str, progress: Progress) -> WholeGrid:
    """The clock of all trainings, which knows what was forecast of each."""
    whole = WholeGrid(progress)
    for name, each in trainings.items():
        whole.named(name).foresee({network: StageForecast(each.seconds, kinds=[network])})
    return whole


def _trainings(
    distilled: DistilledSet, protocol: Protocol, conditions: Conditions, store: Store, progress: Progress
) -> dict[str, TrainingGroup]:
    """All trainings, in their order, by what they give the scores."""
    own, n, parts = protocol.own, len(conditions.seeds), dict[str, TrainingGroup]()
    seconds = partial(expected_seconds, distilled, conditions=conditions, store=store, progress=progress)

    def add(name: str, words: str, recipe: Recipe, times: int, ipc: int | None = None) -> None:
        parts[name] = TrainingGroup(words, recipe, times, seconds(recipe=recipe, ipc=ipc))

    add("own", f"set and random images, {own.name}", own, 2 * n)
    add("plain", "the same without augmentation", unaugmented(own), 2 * n)
    if own.labels == "soft":
        add("hard", "set with hard labels", hard_label(own), n)
    if protocol.full_accuracy is None:
        count = len(real_images(distilled, store))
        words = f"all {counted(count, 'image')}, {counted(protocol.full_epochs, 'epoch')}"
        add("full", words, on_all_data(own, protocol.full_epochs), 1, count // len(distilled.classes))
    return parts


def _cost(trainings: Collection[TrainingGroup], own: Recipe) -> str:
    """The trainings, and about how long they take on this device."""
    total = about(sum(one.seconds for one in trainings))
    labelling = " and the teacher's work" if own.labels == "soft" else ""
    ending = f"{total} without tests before the last{labelling}; what is in the cache is not done again"
    return "\n".join([*(one.line for one in trainings), ending])


def the_set(folder: Path) -> DistilledSet:
    """The one distilled set in a folder.

    Raises:
        AttarError: there is none, there are several, or it is damaged.
    """
    sets = find_distilled(folder)
    if len(sets) > 1:
        raise AttarError(f"{folder} holds {len(sets)} sets: name one, such as {sets[0].folder}")
    check_undamaged(sets[0])
    return sets[0]


def check_inputs(
    distilled: DistilledSet,
    recipes: Sequence[Recipe],
    conditions: Conditions,
    store: Store,
    progress: Progress,
    say: Say,
) -> None:
    """Says what is to be known of the data; tries the teacher for each of the recipes that has soft labels.

    Raises:
        AttarError: the data of the random images has changed; there is no teacher, or it fails a check.
    """
    check_data(distilled, tested_images(distilled, conditions.test, store, progress), conditions.baseline, store, say)
    soft = [recipe for recipe in recipes if recipe.labels == "soft"]
    inputs = {(recipe.fixed, recipe.size, recipe.normalise): recipe for recipe in soft}
    for recipe in inputs.values():
        if conditions.teacher is None:
            raise AttarError(
                f"recipe {recipe.name} learns from a teacher's soft labels: name the teacher with `teacher` "
                "(`attar train-teacher` makes one)"
            )
        train = images_of_set(distilled, recipe)
        tried_on = partial(teacher_examples, distilled, train, store)
        open_label_source(recipe, train, conditions, tried_on)


def evaluated(
    distilled: DistilledSet, recipe: Recipe, conditions: Conditions, store: Store, progress: Progress
) -> Record:
    """The record of the set under a recipe; a teacher is asked where the recipe has soft labels."""
    own = replace(conditions, teacher=conditions.teacher if recipe.labels == "soft" else None)
    return next(evaluate_sets([distilled.folder], recipe, own, store=store, progress=progress))


def expected_seconds(
    distilled: DistilledSet,
    recipe: Recipe,
    conditions: Conditions,
    store: Store,
    progress: Progress,
    ipc: int | None = None,
) -> float:
    """About how long one training on the set, or on `ipc` images of each class, takes on this device, with one test."""
    tested = len(tested_images(distilled, conditions.test, store, progress))
    side = images_of_set(distilled, recipe).side
    ipc = ipc or distilled.manifest["ipc"] * distilled.formation**2
    return training_seconds(recipe, conditions.network, len(distilled.classes), ipc, side, tested, conditions.device)
