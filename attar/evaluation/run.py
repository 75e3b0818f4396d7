"""Distilled sets, recipe, networks, seeds -> records: every set is judged beside random real images of its size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from attar.core.errors import AttarError
from attar.core.progress import Progress, silent
from attar.core.store import Store
from attar.data import load_data, test_spec
from attar.evaluation.evaluator import evaluate
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import changes
from attar.evaluation.records import ALL_DATA, Record
from attar.evaluation.teaching import check_given, soft
from attar.sets.distilled import DistilledSet, find_distilled, verify
from attar.sets.images import in_memory, opened, random_real, tested_images, tried
from attar.teachers.reference import TeacherReference


def evaluate_sets(
    folders: Sequence[Path | DistilledSet],
    recipe: Recipe,
    networks: Sequence[str],
    seeds: Sequence[int],
    *,
    test: str | None = None,
    baseline: bool = True,
    teacher: str | TeacherReference | None = None,
    labels: str | Path | None = None,
    device: str = "auto",
    store: Store | None = None,
    progress: Progress = silent,
) -> Iterator[Record]:
    """One record for each distilled set in `folders` and each network, as soon as it is there.

    A set from elsewhere is given opened (attar.sets.layouts).
    Random real images of the same count are evaluated beside each set, unless `baseline` is False; with the same
    teacher, and labels of their own. `labels` is what `attar relabel` wrote for the set.

    Raises:
        AttarError: a set is damaged, the test data does not have its classes, the network or recipe is unknown, the
            teacher fails a check, or the labels are of something else.
    """
    store = store or Store()
    teacher = TeacherReference(teacher) if isinstance(teacher, str) else teacher
    labels = None if labels is None else Path(labels)
    check_given(recipe, teacher, labels)
    sets = _undamaged(folders, labels)
    tested = {distilled.folder: tested_images(distilled, test, store, progress) for distilled in sets}
    for distilled in sets:
        train = opened(distilled, recipe)
        side, about = train.pixels.shape[1], _about(distilled, test, recipe)
        random = random_real(distilled, side, store) if baseline else None
        tests = in_memory(tested[distilled.folder], recipe.shorter_side(recipe.size or side), "resize-crop")
        taught = soft(recipe, train, teacher, labels, partial(tried, distilled, train, store), device, baseline)
        common: dict[str, Any] = {"recipe": recipe, "seeds": seeds, "device": device, "store": store}
        for network in networks:
            common |= {"network": network, "teacher": taught.teacher}
            shown = _prefixed(progress, str(distilled.folder))
            result = evaluate(train, tests, labels=taught.labels, progress=shown, **common)
            shown = _prefixed(progress, f"random real images beside {distilled.folder}")
            beside = None if random is None else evaluate(random, tests, progress=shown, **common)
            yield Record.of(result, **about, teacher=taught.about, baseline=beside)


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
    side = recipe.size or min(images.open(0).size)
    train = in_memory(images, side, "resize-crop")
    tests = in_memory(tested.restricted(images.classes), recipe.shorter_side(side), "resize-crop")
    progress = _prefixed(progress, "all of the data")
    common: dict[str, Any] = {"seeds": seeds, "device": device, "store": store or Store(), "progress": progress}
    for network in networks:
        result = evaluate(train, tests, recipe=recipe, network=network, **common)
        yield Record.of(result, set="", method=ALL_DATA, test=test, changes=changes(recipe))


def _undamaged(folders: Sequence[Path | DistilledSet], labels: Path | None) -> list[DistilledSet]:
    """The sets in some folders, whole; one, where labels are given.

    Raises:
        AttarError: a set is damaged, or labels of one set are given for several.
    """
    opened_sets = ([folder] if isinstance(folder, DistilledSet) else find_distilled(folder) for folder in folders)
    sets = list(chain.from_iterable(opened_sets))
    if labels is not None and len(sets) != 1:
        raise AttarError(f"--labels {labels}: labels are of one set, and {len(sets)} were given")
    for distilled in sets:
        if distilled.elsewhere is None and (problems := verify(distilled.folder)):
            raise AttarError(
                f"{distilled.folder} is damaged ({problems[0]}); `attar verify` lists all {len(problems)} problems"
            )
    return sets


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
