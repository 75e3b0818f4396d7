"""DD-Ranking's scores of one distilled set: the trainings that they need, as resumable items, and what they come to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.errors import AttarError
from attar.core.progress import Progress, duration
from attar.core.store import Store, write_json
from attar.data.places import check_file, check_place
from attar.distill.run import evaluate_sets
from attar.evaluation.scores import (
    augmentation_robust,
    hard_label,
    improvement,
    label_robust,
    on_all_data,
    recovery,
    unaugmented,
)
from attar.sets.distilled import DistilledSet, find_distilled
from attar.teachers.reference import TeacherReference

if TYPE_CHECKING:
    from attar.core.progress import Say
    from attar.evaluation import Recipe


@dataclass(frozen=True)
class Protocol:
    """What a set is scored by."""

    own: Recipe
    """The protocol that its accuracy is usually reported by."""
    full_accuracy: float | None = None
    """Of all the data with hard labels, as a fraction; None: a network is trained on it, once."""
    full_epochs: int = 30
    """Of that training."""
    weight: float = 0.5
    """Of IOR in LRS, and of the augmented evaluation in ARS."""


def scored(
    folder: Path,
    protocol: Protocol,
    terms: Terms,
    json_file: Path | None = None,
    *,
    store: Store | None = None,
    progress: Progress,
    say: Say,
    dry_run: bool = False,
) -> dict[str, Any]:
    """HLR, IOR, LRS and ARS of the set in `folder`, as fractions, for each training seed; nothing of a dry run.

    Raises:
        AttarError: not one set in the folder, a recipe that does not fit it, or a missing teacher; before any training.
    """
    one, own, store = the_set(folder), protocol.own, store or Store()
    if json_file is not None:
        check_place(json_file, "--json", [one.manifest["data"]["spec"], terms.test])
        check_file(json_file, "--json", '"full_accuracy": ', "a file of scores")
    check_inputs(one, [own], terms, store, progress, say)
    say(_cost(one, protocol, terms, store, progress))
    if dry_run:
        return {}
    full = protocol.full_accuracy
    if full is None:
        full = _on_all_data(one, on_all_data(own, protocol.full_epochs), terms, store, progress)
        say(f"all of the data, hard labels, {protocol.full_epochs} epochs: {100 * full:.1f} % (one training)")
    records = {
        "own": evaluated(one, own, terms, store, progress),
        "plain": evaluated(one, unaugmented(own), terms, store, progress),
    }
    alone = Terms(terms.network, terms.seeds, terms.test, baseline=False, device=terms.device)
    records["hard"] = (
        evaluated(one, hard_label(own), alone, store, progress) if own.labels == "soft" else records["own"]
    )
    found = of_records(full, records, protocol.weight)
    about = {"set": str(one.folder), "network": terms.network, "recipe": records["own"]["recipe"]}
    about |= {"changes": records["own"]["changes"], "test": records["own"]["test"], "weight": protocol.weight}
    if json_file is not None:
        write_json(json_file, {**about, "full_accuracy": full, "scores": found, "records": records})
    say(_told(found, records))
    return found


def of_records(full: float, records: dict[str, dict[str, Any]], weight: float) -> dict[str, list[float]]:
    """The scores for each training seed.

    Args:
        full: accuracy of all the data with hard labels, a fraction.
        records: of `attar.distill.run.evaluate_sets`: "own" and "plain" (without augmentation), both with their baselines, and
            "hard", with hard labels.
    """
    found: dict[str, list[float]] = {"HLR": [], "IOR": [], "LRS": [], "ARS": []}
    own, plain = ((_fractions(records[name]), _fractions(records[name]["baseline"])) for name in ("own", "plain"))
    for seed, hard in enumerate(_fractions(records["hard"])):
        hlr, ior = recovery(full, hard), improvement(own[0][seed], own[1][seed])
        without = improvement(plain[0][seed], plain[1][seed])
        values = (hlr, ior, label_robust(hlr, ior, weight), augmentation_robust(ior, without, weight))
        for name, value in zip(found, values, strict=True):
            found[name].append(value)
    return found


def _fractions(record: dict[str, Any]) -> list[float]:
    return [accuracy / 100 for accuracy in record["accuracies"]]


def _on_all_data(one: DistilledSet, recipe: Recipe, terms: Terms, store: Store, progress: Progress) -> float:
    """The accuracy, a fraction, of one network trained on all real images that the set was distilled from."""
    from attar.evaluation import evaluate
    from attar.evaluation.inputs import in_memory, opened, real
    from attar.sets.images import real_images, tested_images

    side = opened(one, recipe).side
    train = real(real_images(one, store), recipe, side, one.manifest["preprocess"])
    held = tested_images(one, terms.test, store, progress)
    tests = in_memory(held, recipe.shorter_side(recipe.size or side), "resize-crop")
    common: dict[str, Any] = {"network": terms.network, "device": terms.device, "store": store, "progress": progress}
    return evaluate(train, tests, recipe=recipe, seeds=(0,), **common).mean / 100


def _cost(one: DistilledSet, protocol: Protocol, terms: Terms, store: Store, progress: Progress) -> str:
    """The trainings, and about how long they take on this device."""
    from attar.sets.images import real_images

    own, n = protocol.own, len(terms.seeds)
    parts = [
        (f"set and random images, {own.name}", own, 2 * n),
        ("the same without augmentation", unaugmented(own), 2 * n),
    ]
    if own.labels == "soft":
        parts.append(("set with hard labels", hard_label(own), n))
    lines = [(words, times, expected_seconds(one, recipe, terms, store, progress)) for words, recipe, times in parts]
    if protocol.full_accuracy is None:
        count = len(real_images(one, store))
        recipe, words = on_all_data(own, protocol.full_epochs), f"all {count:,} images, {protocol.full_epochs} epochs"
        ipc = count // len(one.classes)
        lines.append((words, 1, expected_seconds(one, recipe, terms, store, progress, ipc)))
    total = duration(sum(times * seconds for _, times, seconds in lines))
    told = [f"{times} x {words}: about {duration(times * seconds)}" for words, times, seconds in lines]
    soft = " and the teacher's work" if own.labels == "soft" else ""
    ending = f"about {total} without tests before the last{soft}; what is in the cache is not done again"
    return "\n".join([*told, ending])


def _told(found: dict[str, list[float]], records: dict[str, dict[str, Any]]) -> str:
    own, plain = records["own"], records["plain"]
    n = len(own["accuracies"])
    lines = [
        f"own protocol {own['mean']:.1f} %, random {own['baseline']['mean']:.1f} %; hard labels "
        f"{records['hard']['mean']:.1f} %; without augmentation {plain['mean']:.1f} %, random "
        f"{plain['baseline']['mean']:.1f} % (n = {n}, last epoch)"
    ]
    meanings = {
        "HLR": "all data minus the set, hard labels: lower is better",
        "IOR": "the set minus random images, own protocol",
        "LRS": "label-robust score: 26.9 is a set as good as random and as all data",
        "ARS": "augmentation-robust score: 26.9 is a set as good as random",
    }
    for name, meaning in meanings.items():
        values = [100 * value for value in found[name]]
        spread = f" ± {statistics.stdev(values):.1f}" if n > 1 else ""
        lines.append(f"{name}  {statistics.fmean(values):6.1f}{spread}  {meaning}")
    return "\n".join([*lines, "in per cent, by DD-Ranking's formulas on fractions: its package's own numbers differ"])


@dataclass(frozen=True)
class Terms:
    """What all evaluations of one set share."""

    network: str
    seeds: tuple[int, ...]
    test: str | None = None
    baseline: bool = False
    """Whether random real images are evaluated beside the set in every one."""
    teacher: TeacherReference | None = None
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
    from attar.evaluation.inputs import opened, tried
    from attar.evaluation.teaching import soft
    from attar.sets.images import check_data, tested_images

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
    from attar.distill.estimate import training_seconds
    from attar.evaluation.inputs import opened
    from attar.sets.images import tested_images

    tested = len(tested_images(one, terms.test, store, progress))
    side = opened(one, recipe).side
    ipc = ipc or one.manifest["ipc"]
    return training_seconds(recipe, terms.network, len(one.classes), ipc, side, tested, terms.device)
