"""A teacher for a set and a recipe: opened, matched and tried on real images before anything is labelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attar.core.batching import resolve
from attar.core.errors import AttarError
from attar.core.store import canonical
from attar.evaluation.images import resized
from attar.evaluation.recipe import Recipe
from attar.teachers.check import Fitted, fit_teacher, together
from attar.teachers.load import load_teacher
from attar.teachers.reference import TeacherReference
from attar.teachers.soft_labels import StoredLabels
from attar.teachers.teacher import digest_of

if TYPE_CHECKING:
    from torch import nn

    from attar.evaluation.images import Images


def fitted(teacher: TeacherReference, train: Images, tried_on: Images, of: str, recipe: Recipe, device: str) -> Fitted:
    """The teacher for students of `train` by `recipe`, tried on some images, which `of` names in words.

    Of several, each is tried by itself.

    Raises:
        AttarError: there is no such teacher, or it fails a check of `attar.teachers.check`.
    """
    size = recipe.size or train.side
    listed = None if teacher.classes is None else Path(teacher.classes)
    place, _ = resolve(device, "auto")
    pixels = torch.tensor(resized(tried_on.pictures, size), device=place)
    labels = torch.tensor(tried_on.labels, device=place)
    members = []
    for source in teacher.sources:
        loaded = load_teacher(source, listed, len(train.classes), size, teacher.normalise)
        members.append(fit_teacher(loaded, pixels, labels, train.classes, recipe.normalise, of))
    return members[0] if len(members) == 1 else together(members, pixels, labels, recipe.normalise)


@dataclass(frozen=True, eq=False)
class Soft:
    """What students by a recipe with soft labels learn from; nothing at all for hard labels."""

    teacher: nn.Module | None = None
    labels: StoredLabels | None = None
    about: dict[str, Any] | None = None
    """Of the teacher: see `told`."""


def soft(
    recipe: Recipe,
    train: Images,
    teacher: TeacherReference | None,
    labels: Path | None,
    tried_on: Callable[[], tuple[Images, str]],
    device: str,
    baseline: bool,
) -> Soft:
    """The teacher, and the labels in the folder `labels`, checked. Without a teacher it is that of the labels.

    `tried_on` opens the images that a teacher is tried on, and says what they are. Labels alone need no teacher, unless
    a `baseline` is to be labelled like the set.

    Raises:
        AttarError: the teacher is not there or fails a check, or the labels are another teacher's.
    """
    if recipe.labels == "hard":
        return Soft()
    stored, named = None if labels is None else StoredLabels(labels), teacher
    if stored is not None and named is None:
        about = stored.about("teacher")
        if not baseline:
            return Soft(None, stored, about)
        named = TeacherReference.of(about["source"], about["class_list"], about["normalise"])
    if named is None:
        return Soft()
    tried, of = tried_on()
    try:
        found = fitted(named, train, tried, of, recipe, device)
    except AttarError as error:
        if teacher is not None:
            raise
        raise AttarError(
            f"the labels' teacher {named} is not here, or no longer what it was: name it with --teacher, or add "
            f"--no-baseline ({error})"
        ) from error
    about = told(named, found)
    if stored is not None:
        _check_same(stored, named, about)
    return Soft(found.labeller, stored, about)


def _check_same(stored: StoredLabels, teacher: TeacherReference, about: dict[str, Any]) -> None:
    """Raises AttarError unless the labels are by the teacher that `told` tells about."""
    if about["digest"] == stored.teacher:
        return
    if stored.manifest.get("teacher", {}).get("network") == about["network"]:
        raise AttarError(
            f"{stored.folder} holds labels by {teacher} under another normalise or class order: leave the "
            "recipe's normalise, --teacher-normalise and --teacher-classes as they were for `attar relabel`"
        )
    raise AttarError(
        f"{stored.folder} holds labels by another teacher than {teacher}: name theirs with --teacher, or "
        "evaluate with --no-baseline and without --teacher"
    )


def check_given(recipe: Recipe, teacher: TeacherReference | None, labels: Path | None) -> None:
    """Raises AttarError unless a teacher or labels are given where the recipe needs them, and nowhere else."""
    if recipe.labels == "hard" and (teacher or labels):
        raise AttarError(
            f"recipe {recipe.name} learns from hard labels, without {'--teacher' if teacher else '--labels'}: "
            "choose rded-soft, d3hr-soft or fkd-soft (`attar list recipes`)"
        )
    if recipe.labels == "soft" and not (teacher or labels):
        raise AttarError(
            f"recipe {recipe.name} learns from a teacher's soft labels: name the teacher with --teacher "
            "(`attar train-teacher` makes one), or give stored labels with --labels (`attar relabel`)"
        )


def told(teacher: TeacherReference, found: Fitted) -> dict[str, Any]:
    """What records and labels say of a teacher.

    Its name, or a list of several; its "digest", input and classes included, and that of its "network" alone; its
    "accuracy" on what it was tried on; how its "classes" were matched.
    """
    about = {"source": canonical(teacher.source), "class_list": teacher.classes, "normalise": teacher.normalise}
    about |= {"digest": digest_of(found.labeller), "network": digest_of(found.labeller.network)}
    return {**about, "accuracy": found.accuracy, "classes": found.matched}
