"""Distilled sets, recipe, networks, seeds -> records: every set is judged beside random real images of its size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from attar.core.arguments import checked
from attar.core.batching import resolve
from attar.core.errors import AttarError
from attar.core.progress import Progress, Say, quiet, silent
from attar.core.store import Artefact, Store
from attar.core.words import counted
from attar.data import load_data, test_spec, usual_side
from attar.evaluation.evaluator import evaluate, trainings
from attar.evaluation.images import Images
from attar.evaluation.inputs import in_memory, opened, random_real, real, teacher_examples
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import changes
from attar.evaluation.records import ALL_DATA, Record
from attar.evaluation.teaching import LabelSource, check_given, open_label_source
from attar.sets.distilled import DistilledSet, find_distilled, verify
from attar.sets.images import check_data, tested_images
from attar.teachers.reference import TeacherReference


@checked
def evaluate_sets(
    folders: Sequence[Path | DistilledSet],
    recipe: Recipe,
    networks: Sequence[str],
    seeds: Sequence[int],
    *,
    test: str | None = None,
    baseline: bool = True,
    teacher: str | Sequence[str] | TeacherReference | None = None,
    labels: str | Path | None = None,
    device: str = "auto",
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = quiet,
    dry_run: bool = False,
) -> Iterator[Record]:
    """One record for each distilled set in `folders` and each network, as soon as it is there.

    A dry run gives none: it ends after all checks, and says how many trainings there are and how many are cached.

    A set from elsewhere is given opened (attar.sets.layouts).
    Random real images of the same count are evaluated beside each set, unless `baseline` is False; with the same
    teacher, and labels of their own. `labels` is what `attar relabel` wrote for the set.

    Raises:
        AttarError: a set is damaged, the test data does not have its classes, the network or recipe is unknown, the
            teacher fails a check, the labels are of something else, or the data of the random images has changed.
    """
    store = store or Store()
    teacher = teacher if teacher is None or isinstance(teacher, TeacherReference) else TeacherReference.of(teacher)
    labels = None if labels is None else Path(labels)
    check_given(recipe, teacher, labels)
    resolve(device, "auto")
    sets, tested, wanted = _sets_in(folders, labels), {}, dict[str, Artefact]()
    for distilled in sets:
        _check_undamaged(distilled)
        tested[distilled.folder] = tested_images(distilled, test, store, progress)
        check_data(distilled, tested[distilled.folder], baseline, store, say)
    common: dict[str, Any] = {"recipe": recipe, "seeds": seeds, "device": device, "store": store}
    for distilled in sets:
        train = opened(distilled, recipe)
        random = random_real(distilled, recipe, train.side, store) if baseline else None
        tests = in_memory(tested[distilled.folder], recipe.shorter_side(recipe.size or train.side), "resize-crop")
        examples = partial(teacher_examples, distilled, train, store)
        source = open_label_source(recipe, train, teacher, labels, examples, device, baseline)
        judged = _Judged(distilled, train, random, tests, source, common)
        if dry_run:
            wanted |= {key: artefact for network in networks for key, artefact in judged.trainings(network).items()}
            continue
        about = _about(distilled, test, recipe)
        yield from (judged.record(network, progress, about) for network in networks)
    if dry_run:
        cached = sum(map(store.has, wanted.values()))
        say(f"{counted(len(wanted), 'training')}: {cached:,} in the cache, {len(wanted) - cached:,} to be done")


@dataclass(frozen=True, eq=False)
class _Judged:
    """A set with all that it is judged by."""

    distilled: DistilledSet
    train: Images
    random: Images | None
    """Random real images of the same count, which are evaluated beside it."""
    tests: Images
    source: LabelSource
    common: dict[str, Any]
    """What the evaluations of all sets and networks share."""

    def trainings(self, network: str) -> dict[str, Artefact]:
        """What there is to train, by its key."""
        common = {**self.common, "network": network, "teacher": self.source.teacher}
        beside = {} if self.random is None else trainings(self.random, self.tests, **common)
        return trainings(self.train, self.tests, labels=self.source.labels, **common) | beside

    def record(self, network: str, progress: Progress, about: dict[str, Any]) -> Record:
        """What a network that is trained on it comes to, and beside it one that is trained on the random images."""
        common = {**self.common, "network": network, "teacher": self.source.teacher}
        shown = _prefixed(progress, str(self.distilled.folder))
        result = evaluate(self.train, self.tests, labels=self.source.labels, progress=shown, **common)
        shown = _prefixed(progress, f"random real images beside {self.distilled.folder}")
        beside = None if self.random is None else evaluate(self.random, self.tests, progress=shown, **common)
        return Record.of(result, **about, teacher=self.source.about, baseline=beside)


def evaluate_all(
    data: str,
    recipe: Recipe,
    networks: Sequence[str],
    seeds: Sequence[int],
    *,
    test: str | None = None,
    device: str = "auto",
    store: Store | None = None,
    progress: Progress = silent,
) -> Iterator[Record]:
    """One record for each network, trained on all of the data: the ceiling of what distilled sets can reach."""
    test = test or test_spec(data)
    images, tested = load_data(data), load_data(test)
    side = recipe.size or usual_side(images)
    train = real(images, recipe, side, "resize-crop")
    tests = in_memory(tested.restricted(images.classes), recipe.shorter_side(side), "resize-crop")
    progress = _prefixed(progress, "all of the data")
    common: dict[str, Any] = {"seeds": seeds, "device": device, "store": store or Store(), "progress": progress}
    for network in networks:
        result = evaluate(train, tests, recipe=recipe, network=network, **common)
        yield Record.of(result, set="", method=ALL_DATA, test=test, changes=changes(recipe))


def _sets_in(folders: Sequence[Path | DistilledSet], labels: Path | None) -> list[DistilledSet]:
    """The sets in some folders; one, where labels are given."""
    opened_sets = ([folder] if isinstance(folder, DistilledSet) else find_distilled(folder) for folder in folders)
    sets = list(chain.from_iterable(opened_sets))
    if labels is not None and len(sets) != 1:
        raise AttarError(f"`labels` {labels}: labels are of one set, and {len(sets)} were given")
    return sets


def _check_undamaged(distilled: DistilledSet) -> None:
    """Raises AttarError where a set's files are not what its manifest says."""
    if distilled.elsewhere is None and (problems := verify(distilled.folder)):
        raise AttarError(f"{distilled.folder} is damaged ({problems[0]}); `attar verify` lists all that is wrong")


def _about(distilled: DistilledSet, test: str | None, recipe: Recipe) -> dict[str, Any]:
    """What a record says of the set, and of how it was judged, beside the result."""
    manifest = distilled.manifest
    return {
        "set": str(distilled.folder),
        "method": manifest["method"]["name"],
        "seed": manifest["seed"],
        "ipc": manifest["ipc"],
        "layout": manifest.get("layout"),
        "test": test or test_spec(manifest["data"]["spec"]),
        "changes": changes(recipe),
    }


def _prefixed(progress: Progress, prefix: str) -> Progress:
    return lambda text, fraction: progress(f"{prefix}: {text}", fraction)
