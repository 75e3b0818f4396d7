"""Distilled sets, recipe, networks, seeds -> records: every set is judged beside random real images of its size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from attar.core.arguments import checked
from attar.core.batching import resolve
from attar.core.engine import LOCAL, Engine, check_same, raise_first
from attar.core.errors import AttarError
from attar.core.progress import Progress, Say, quiet, silent
from attar.core.store import Artefact, Store, fingerprint
from attar.core.tracking import begin_tracking, part
from attar.core.whole_command import StageForecast, WholeCommand
from attar.core.whole_grid import whole_of
from attar.core.wording import counted
from attar.data import ImageSet, load_data, test_spec, usual_side
from attar.evaluation.conditions import Conditions
from attar.evaluation.evaluator import Students, evaluate
from attar.evaluation.labelled_images import LabelledImages
from attar.evaluation.load_images import all_for_recipe, all_images, images_of_set, random_real_images, teacher_examples
from attar.evaluation.outlook import TrainingCost, cost_in_words, expected, training_kinds
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import changes
from attar.evaluation.records import ALL_DATA, Record, Result
from attar.evaluation.suited import if_smaller, side_of
from attar.evaluation.teaching import LabelSource, open_label_source
from attar.sets.distilled import DistilledSet, check_undamaged, find_distilled
from attar.sets.source_data import check_data, tested_images


@checked
def evaluate_sets(
    folders: Sequence[Path | DistilledSet],
    recipe: Recipe,
    conditions: Conditions,
    *,
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = quiet,
    dry_run: bool = False,
    engine: Engine = LOCAL,
) -> Iterator[Record]:
    """One record for each distilled set in `folders` and each network, as soon as it is there.

    A set from elsewhere is given opened (attar.sets.layouts). A dry run gives no records: it ends after all checks, and
    says how many trainings there are, how many are cached and what the others take.

    Raises:
        AttarError: a set is damaged, the test data does not have its classes, the recipe does not fit, the teacher
            fails a check, the labels are of something else, or the data of the random images has changed.
    """
    store = store or Store()
    engine.check(conditions.device)
    conditions.check(recipe)
    resolve(conditions.device, "auto")
    sets = _sets_in(folders, conditions.labels)
    tested = _checked(sets, conditions, store, progress, say)
    every = (_judged(*pair, recipe, conditions, store) for pair in zip(sets, tested, strict=True))
    if dry_run:
        return say(_left(_warned(every, say), recipe, store))
    seen = progress is not silent
    whole = whole_of(progress, _parts(sets, tested, recipe, conditions, seen))
    for judged in _warned(every, say):
        begin_tracking()
        raise_first(engine.ahead(list(judged.runs()), conditions.device, progress))
        yield from (judged.record(network, whole) for network in conditions.networks)


def _checked(
    sets: Sequence[DistilledSet], conditions: Conditions, store: Store, progress: Progress, say: Say
) -> list[ImageSet]:
    """The images that each set is tested on, after a look at the set and at its data."""
    tested = []
    for distilled in sets:
        check_undamaged(distilled)
        tested.append(tested_images(distilled, conditions.test, store, progress))
        check_data(distilled, tested[-1], conditions.baseline, store, say)
    return tested


def _warned(every: Iterator[_Judged], say: Say) -> Iterator[_Judged]:
    """The same; a weak teacher is told of once."""
    said = False
    for judged in every:
        if judged.source.weak and not said:
            say(f"note: {judged.source.weak}")
            said = True
        yield judged


def _parts(
    sets: Sequence[DistilledSet], tested: Sequence[ImageSet], recipe: Recipe, conditions: Conditions, timed: bool
) -> dict[str, StageForecast]:
    """The trainings on each set, and on the images beside it, each by what it takes, or not `timed`."""
    parts = {}
    for distilled, images in zip(sets, tested, strict=True):
        ipc = distilled.manifest["ipc"] * distilled.formation**2
        for network in conditions.networks:
            each = expected(distilled, recipe, network, len(images), conditions.device).seconds if timed else 1.0
            for beside in (False, True)[: 1 + conditions.baseline]:
                seconds, kinds = each * len(conditions.seeds), training_kinds(recipe, network, ipc)
                parts[_part(distilled, network, beside)] = StageForecast(seconds, kinds=kinds)
    return parts


def _part(distilled: DistilledSet, network: str, beside: bool) -> str:
    return f"{'beside ' if beside else ''}{distilled.folder}, {network}"


def _left(every: Iterator[_Judged], recipe: Recipe, store: Store) -> str:
    """How many trainings there are, how many of them are to be done, and what these take, in words."""
    asked: dict[str, tuple[Artefact, TrainingCost]] = {}
    side = recipe.size or 0
    for judged in every:
        asked |= _costs(judged)
        side = recipe.size or max(side, side_of(judged.distilled))
    left = [cost for wanted, cost in asked.values() if not store.has(wanted)]
    takes = f"{len(left):,} to be done" + (f", {cost_in_words(recipe, left)}" if left else "")
    smaller = if_smaller(side, sum(cost.seconds for cost in left))
    return f"{counted(len(asked), 'training')}: {len(asked) - len(left):,} in the cache, {takes}{smaller}"


def _costs(judged: _Judged) -> dict[str, tuple[Artefact, TrainingCost]]:
    """The outcomes of all trainings on a set, by their keys, and what each takes."""
    conditions, tested = judged.conditions, len(judged.tests.labels)
    by_network = {
        network: expected(judged.distilled, judged.recipe, network, tested, conditions.device)
        for network in conditions.networks
    }
    return {run.wanted.key: (run.wanted, by_network[run.network]) for run in judged.runs()}


_judging: dict[str, _Judged] = {}
"""The set that this process judges, where it is a worker, by the fingerprint of it and of all that it is judged by."""


def _reopened(distilled: DistilledSet, recipe: Recipe, conditions: Conditions, cache: Path) -> _Judged:
    labels = replace(conditions, labels=None), str(conditions.labels)
    key = fingerprint(str(distilled.folder), distilled.manifest.get("digest"), recipe, labels, str(cache))
    if key not in _judging:
        _judging.clear()
        store = Store(cache)
        tested = tested_images(distilled, conditions.test, store, silent)
        _judging[key] = _judged(distilled, tested, recipe, conditions, store)
    return _judging[key]


@dataclass(frozen=True, eq=False)
class _Run:
    """The training of one network with one seed, and its test: an item of `Engine.ahead`."""

    judged: _Judged
    network: str
    seed: int
    beside: bool
    """Whether it learns from the random images beside the set."""
    wanted: Artefact
    """Its outcome."""

    @property
    def what(self) -> str:
        """The work, in words."""
        images = f"random real images beside {self.judged.distilled.folder}" if self.beside else "the set"
        return f"{self.network}, {self.judged.recipe.name}, seed {self.seed}, {images}"

    @property
    def done(self) -> bool:
        """Whether the outcome is in the store."""
        return self.judged.store.has(self.wanted)

    def make(self) -> None:
        """Trains and tests, if it is missing."""
        students = self.judged.students(self.network)[self.beside]
        assert students is not None
        check_same(self.what, [self.wanted], list(students.trainings([self.seed]).values()))
        evaluate(students, [self.seed])


@dataclass(frozen=True, eq=False)
class _Judged:
    """A set with all that it is judged by."""

    distilled: DistilledSet
    train: LabelledImages
    random: LabelledImages | None
    """Random real images of the same count, which are evaluated beside it."""
    tests: LabelledImages
    recipe: Recipe
    conditions: Conditions
    source: LabelSource
    store: Store

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled in words: each process opens it for itself, once."""
        return _reopened, (self.distilled, self.recipe, self.conditions, self.store.root.absolute())

    def runs(self) -> Iterator[_Run]:
        """All trainings, each by itself."""
        for network in self.conditions.networks:
            for beside, students in enumerate(self.students(network)):
                trainings = {} if students is None else students.trainings(self.conditions.seeds)
                for seed, wanted in zip(self.conditions.seeds, trainings.values(), strict=False):
                    yield _Run(self, network, seed, bool(beside), wanted)

    def students(self, network: str) -> tuple[Students, Students | None]:
        """The labels of the set, and of the random images."""
        device, source = self.conditions.device, self.source
        own = Students(self.train, self.tests, self.recipe, network, device, source.teacher, source.labels, self.store)
        return own, None if self.random is None else replace(own, train=self.random, labels=None)

    def record(self, network: str, whole: WholeCommand) -> Record:
        """What a network that is trained on it comes to, and beside it one that is trained on the random images."""
        own, beside = self.students(network)
        with part(str(self.distilled.folder)):
            result = self._result(own, network, whole, False)
        with part(f"random real images beside {self.distilled.folder}"):
            baseline = None if beside is None else self._result(beside, network, whole, True)
        about = _about(self.distilled, self.conditions.test, self.recipe)
        if result.labels is not None:
            about["labels"] = {**result.labels, "own": self.conditions.own_labels}
        weighted = None if self.distilled.weights() is None else self.conditions.weights
        return Record.of(result, **about, weighted=weighted, teacher=self.source.about, baseline=baseline)

    def _result(self, students: Students, network: str, whole: WholeCommand, beside: bool) -> Result:
        name = _part(self.distilled, network, beside)
        shown = f"{'random real images beside ' if beside else ''}{self.distilled.folder}"
        result = evaluate(students, self.conditions.seeds, _prefixed(whole.of(name), shown))
        whole.parts[name].finish()
        return result


def _judged(distilled: DistilledSet, tested: ImageSet, recipe: Recipe, conditions: Conditions, store: Store) -> _Judged:
    """Opens all that a set is judged by."""
    train = images_of_set(distilled, recipe)
    if conditions.weights and (weights := distilled.weights()) is not None:
        train = replace(train, weights=np.concatenate(weights))
    random = random_real_images(distilled, recipe, train.side, store) if conditions.baseline else None
    tests = all_images(tested, recipe.shorter_side(recipe.size or train.side), "resize-crop", store)
    own = replace(conditions, labels=conditions.labels_of(distilled))
    source = open_label_source(recipe, train, own, partial(teacher_examples, distilled, train, store))
    return _Judged(distilled, train, random, tests, recipe, conditions, source, store)


def evaluate_all(
    data: str, recipe: Recipe, conditions: Conditions, *, store: Store | None = None, progress: Progress = silent
) -> Iterator[Record]:
    """One record for each network, trained on all of the data: the ceiling of what distilled sets can reach."""
    test = conditions.test or test_spec(data)
    images, tested = load_data(data), load_data(test)
    side = recipe.size or usual_side(images)
    store = store or Store()
    train = all_for_recipe(images, recipe, side, "resize-crop", store)
    tests = all_images(tested.restricted(images.classes), recipe.shorter_side(side), "resize-crop", store)
    for network in conditions.networks:
        students = Students(train, tests, recipe, network, conditions.device, store=store)
        result = evaluate(students, conditions.seeds, _prefixed(progress, "all of the data"))
        yield Record.of(result, set="", method=ALL_DATA, test=test, changes=changes(recipe))


def _sets_in(folders: Sequence[Path | DistilledSet], labels: Path | None) -> list[DistilledSet]:
    """The sets in some folders; one, where labels are given."""
    opened_sets = ([folder] if isinstance(folder, DistilledSet) else find_distilled(folder) for folder in folders)
    sets = list(chain.from_iterable(opened_sets))
    if labels is not None and len(sets) != 1:
        raise AttarError(f"`labels` {labels}: labels are of one set, and {len(sets)} were given")
    return sets


def _about(distilled: DistilledSet, test: str | None, recipe: Recipe) -> dict[str, Any]:
    """What a record says of the set, and of how it was judged, beside the result."""
    manifest = distilled.manifest
    return {
        "set": str(distilled.folder),
        "method": manifest["method"]["name"],
        "seed": manifest["seed"],
        "ipc": manifest["ipc"],
        "formation": distilled.formation,
        "reduced_by": distilled.reduced_by,
        "layout": manifest.get("layout"),
        "test": test or test_spec(manifest["data"]["spec"]),
        "changes": changes(recipe),
    }


def _prefixed(progress: Progress, prefix: str) -> Progress:
    return lambda text, fraction: progress(f"{prefix}: {text}", fraction)
