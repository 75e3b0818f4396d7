"""One distilled set under several recipes: what its evaluations share, with waterfalls and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.distilled import DistilledSet, find_distilled
from attar.errors import AttarError
from attar.evaluation.teaching import Named
from attar.progress import Progress
from attar.run import evaluate_sets
from attar.store import Store

if TYPE_CHECKING:
    from attar.evaluation import Recipe
    from attar.plan import Say


@dataclass(frozen=True)
class Terms:
    """What all evaluations of one set share."""

    network: str
    seeds: tuple[int, ...]
    test: str | None = None
    baseline: bool = False
    """Whether random real images are evaluated beside the set in every one."""
    teacher: Named | None = None
    device: str = "auto"


def the_set(folder: Path) -> DistilledSet:
    """The one distilled set in a folder.

    Raises:
        AttarError: there is none, or there are several.
    """
    sets = find_distilled(folder)
    if len(sets) > 1:
        raise AttarError(f"{folder} holds {len(sets)} sets: name one, such as {sets[0].folder}")
    return sets[0]


def check_inputs(
    one: DistilledSet, recipes: Sequence[Recipe], terms: Terms, store: Store, progress: Progress, say: Say
) -> None:
    """Says what is to be known of the data; tries the teacher for each of the recipes that has soft labels.

    Raises:
        AttarError: the data of the random images has changed; there is no teacher, or it fails a check.
    """
    from attar.evaluation.teaching import soft
    from attar.pictures import check_data, opened, tested_images, tried

    check_data(one, tested_images(one, terms.test, store, progress), terms.baseline, store, say)
    inputs = {(recipe.size, recipe.normalise): recipe for recipe in recipes if recipe.labels == "soft"}
    for recipe in inputs.values():
        if terms.teacher is None:
            raise AttarError(
                f"recipe {recipe.name} learns from a teacher's soft labels: name the teacher with --teacher "
                "(`attar train-teacher` makes one)"
            )
        train = opened(one, recipe)
        soft(recipe, train, terms.teacher, None, partial(tried, one, train, store), terms.device, terms.baseline)


def evaluated(
    one: DistilledSet, recipe: Recipe, terms: Terms, store: Store | None, progress: Progress
) -> dict[str, Any]:
    """The record of the set under a recipe; a teacher is asked where the recipe has soft labels."""
    teacher = terms.teacher if recipe.labels == "soft" else None
    common: dict[str, Any] = {"test": terms.test, "baseline": terms.baseline, "device": terms.device}
    found = evaluate_sets(
        [one.folder], recipe, [terms.network], terms.seeds, teacher=teacher, store=store, progress=progress, **common
    )
    return next(found)


def expected_seconds(
    one: DistilledSet, recipe: Recipe, terms: Terms, store: Store, progress: Progress, ipc: int | None = None
) -> float:
    """About how long one training on the set, or on `ipc` images of each class, takes on this device, with one test."""
    from attar.estimate import training_seconds
    from attar.pictures import opened, tested_images

    tested = len(tested_images(one, terms.test, store, progress))
    side = opened(one, recipe).side
    ipc = ipc or one.manifest["ipc"]
    return training_seconds(recipe, terms.network, len(one.classes), ipc, side, tested, terms.device)
