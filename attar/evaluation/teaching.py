"""A teacher for a set and a recipe: opened, matched and tried on real images before anything is labelled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from attar.core.batching import resolve
from attar.core.errors import AttarError
from attar.core.progress import Say, quiet
from attar.core.store import canonical
from attar.evaluation.conditions import Conditions
from attar.evaluation.labelled_images import LabelledImages, resized
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import modified, named_recipe
from attar.teachers.check import Examples
from attar.teachers.label_schemes import LEFT_OUT
from attar.teachers.open import open_teacher
from attar.teachers.reference import TeacherReference
from attar.teachers.soft_labels import WHOLE, StoredLabels

if TYPE_CHECKING:
    from pathlib import Path

    from attar.sets.distilled import DistilledSet
    from attar.teachers.teacher import Pretrained, Teacher

ASKING = frozenset(["labels", "scheme", "temperature"])
"""Fields of a recipe that, where they are set, decide how labels are learnt from, whatever these say themselves."""
LEAVES_OUT = "they are left out, for classes alone taught more when that was tried (set scheme = fixed to use them)"
"""What is said where labels name no temperature, for they are best left out."""
TriedOn = tuple[LabelledImages, str]
"""Images that a teacher is tried on, and what they are in words: "images of digits@train"."""


def recipe_teacher(
    reference: TeacherReference, train: LabelledImages, tried_on: TriedOn, recipe: Recipe, device: str
) -> Teacher:
    """The teacher for students of `train` by `recipe`. Of several, each is tried by itself.

    For fixed labels, which depend on no recipe, it is tried at the size that it knows.

    Raises:
        AttarError: there is no such teacher, or it fails a check of `attar.teachers.check`.
    """
    size, place = train.side if recipe.fixed else recipe.size or train.side, resolve(device, "auto")[0]
    images, source = tried_on

    def examples(pretrained: Pretrained) -> Examples:
        side = pretrained.size or size if recipe.fixed else size
        pixels = torch.tensor(resized(images.images, side), device=place)
        return Examples(pixels, torch.tensor(images.labels, device=place), train.classes, source)

    normalise = WHOLE if recipe.fixed else recipe.normalise
    return open_teacher(reference, examples, classes=len(train.classes), size=size, normalise=normalise)


def left_out(labels: Path, recipe: Recipe, fields: Mapping[str, Any]) -> bool:
    """Whether labels say that they are best left out, and neither a recipe nor the fields set of it ask for them."""
    return not _asks(recipe, fields) and StoredLabels(labels).advised == LEFT_OUT


def _asks(recipe: Recipe, fields: Mapping[str, Any]) -> bool:
    """Whether a recipe, or the fields set of it, asks for soft labels."""
    return recipe.labels == "soft" or not ASKING.isdisjoint(fields)


def labelled_recipe(labels: Path, recipe: str | None) -> Recipe:
    """The recipe that labels were made for; or a named one, with the labels' scheme and number of epochs.

    Fixed labels were made for none: then it is quick, at the temperature that they name, if any.
    """
    stored = StoredLabels(labels)
    if stored.fixed:
        known = stored.temperature or (None if stored.advised == LEFT_OUT else stored.advised)
        temperature = {} if known is None else {"temperature": known}
        return named_recipe(recipe or "quick", {"scheme": stored.scheme.fixed_name, **temperature})
    own = named_recipe(stored.about("recipe"), stored.about("changes"))
    if recipe is None:
        return own
    return named_recipe(recipe, {"scheme": own.scheme, "label_epochs": own.label_epochs})


def asked_recipe(labels: Path | None, name: str | None, fields: Mapping[str, Any]) -> Recipe:
    """The recipe of a name (none: that of the labels, or quick) with fields set, for labels that are given or none.

    Labels that say so are left out, unless the recipe or the fields ask for soft ones.

    Raises:
        AttarError: there is no such recipe or field, or the labels cannot be read.
    """
    plain = named_recipe(name or "quick")
    taught = labels is not None and not left_out(labels, plain, fields)
    return modified(labelled_recipe(labels, name) if labels is not None and taught else plain, fields)


def with_own_labels(
    sets: Sequence[DistilledSet],
    recipe: Recipe,
    conditions: Conditions,
    name: str | None,
    fields: Mapping[str, Any],
    say: Say = quiet,
) -> tuple[Recipe, Conditions]:
    """The recipe that was asked for by name and fields, and the conditions, for labels that all sets hold themselves.

    Both stay as they are where there are none, other labels are given, or the recipe asks a teacher that is named or,
    by its fields, for hard labels. Labels that are best left out, the sets' own or others, are: and it is said.

    Raises:
        AttarError: the labels cannot be read, or the sets hold them in several schemes or for several temperatures.
    """
    if conditions.labels is not None and left_out(conditions.labels, recipe, fields):
        say(f"{conditions.labels}: {LEAVES_OUT}")
        return recipe, replace(conditions, labels=None)
    others = conditions.labels is not None or (conditions.teacher is not None and recipe.labels == "soft")
    own = [distilled.labels for distilled in sets if distilled.labels is not None]
    if others or fields.get("labels") == "hard" or not own:
        return recipe, conditions
    if len(own) < len(sets):
        say(f"{own[0].parent} holds soft labels, and not all of these sets do: they are learnt from by class alone")
        return recipe, conditions
    _check_alike(sets, own, recipe, fields)
    if left_out(own[0], recipe, fields):
        say(f"the sets' own soft labels: {LEAVES_OUT}")
        return recipe, conditions
    by = " and ".join(dict.fromkeys(distilled.manifest["labelled_by"]["teacher"] for distilled in sets))
    say(f"learnt from: the sets' own soft labels, by {by} (their classes alone: set labels = hard)")
    return asked_recipe(own[0], name, fields), replace(conditions, own_labels=True)


def _check_alike(
    sets: Sequence[DistilledSet], labels: Sequence[Path], recipe: Recipe, fields: Mapping[str, Any]
) -> None:
    """Raises AttarError unless sets hold labels that one recipe can be for: in one scheme, for one temperature."""
    schemes = {distilled.manifest["label_scheme"]: distilled.folder for distilled in sets}
    if len(schemes) > 1:
        each = ", ".join(f"{folder} as {scheme}" for scheme, folder in schemes.items())
        raise AttarError(
            f"sets hold soft labels in several schemes ({each}): evaluate each by itself, or set labels = hard"
        )
    advised = {StoredLabels(folder).advised: folder.parent for folder in labels}
    if _asks(recipe, fields) and LEFT_OUT in advised:
        advised[None] = advised.pop(LEFT_OUT)  # at the recipe's own
    if len(advised) > 1 and "temperature" not in fields:
        each = ", ".join(f"{folder}: {'not said' if said is None else said}" for said, folder in advised.items())
        raise AttarError(
            f"sets hold soft labels for several temperatures ({each}): evaluate each by itself, set temperature for "
            "all, or labels = hard"
        )


@dataclass(frozen=True, eq=False)
class LabelSource:
    """Who or what gives students their soft labels; nothing at all for recipes with hard ones."""

    teacher: Teacher | None = None
    """Asked for every view, where there are no stored labels, and for the labels of the baseline."""
    labels: StoredLabels | None = None
    """Labels that `attar relabel` stored."""
    about: dict[str, Any] | None = None
    """What records say of the teacher: see `summary`."""

    @property
    def weak(self) -> str:
        """That the teacher is weak, in words; nothing where it is not, or was not tried."""
        return "" if self.teacher is None else self.teacher.weak


def open_label_source(
    recipe: Recipe, train: LabelledImages, conditions: Conditions, tried_on: Callable[[], TriedOn]
) -> LabelSource:
    """The teacher, and the stored labels, checked. Without a teacher it is that of the labels.

    `tried_on` opens the images that a teacher is tried on. Labels alone need no teacher, unless a baseline is to be
    labelled like the set.

    Raises:
        AttarError: the teacher is not there or fails a check, or the labels are another teacher's.
    """
    if recipe.labels == "hard":
        return LabelSource()
    teacher, labels = conditions.teacher, conditions.labels
    stored = None if labels is None else StoredLabels(labels)
    if stored is not None and teacher is None and not conditions.baseline:
        return LabelSource(None, stored, stored.about("teacher"))
    reference = teacher if stored is None or teacher is not None else _teacher_of(stored)
    if reference is None:
        return LabelSource()
    try:
        opened = recipe_teacher(reference, train, tried_on(), recipe, conditions.device)
    except AttarError as error:
        if teacher is not None:
            raise
        raise AttarError(
            f"the labels' teacher {reference} is not here, or no longer what it was: name it with `teacher`, or add "
            f"`baseline=false` ({error})"
        ) from error
    about = summary(reference, opened)
    if stored is not None:
        _check_same(stored, reference, about)
    return LabelSource(opened, stored, about)


def _teacher_of(stored: StoredLabels) -> TeacherReference:
    """The teacher that stored labels are by."""
    about = stored.about("teacher")
    return TeacherReference.of(about["source"], about["class_list"], about["normalise"])


def _check_same(stored: StoredLabels, teacher: TeacherReference, about: dict[str, Any]) -> None:
    """Raises AttarError unless the labels are by the teacher that `summary` describes."""
    if about["digest"] == stored.teacher:
        return
    if stored.manifest.get("teacher", {}).get("network") == about["network"]:
        raise AttarError(
            f"{stored.folder} holds labels by {teacher} under another normalise or class order: leave the "
            "recipe's normalise, `teacher_normalise` and `teacher_classes` as they were for `attar relabel`"
        )
    raise AttarError(
        f"{stored.folder} holds labels by another teacher than {teacher}: name theirs with `teacher`, or "
        "evaluate with `baseline=false` and without `teacher`"
    )


def summary(reference: TeacherReference, teacher: Teacher) -> dict[str, Any]:
    """What records and labels say of a teacher.

    Its name, or a list of several; its "digest", input and classes included, and that of its "network" alone; its
    "accuracy" on what it was tried on; how its "classes" were matched.
    """
    about = {"source": canonical(reference.source), "class_list": reference.classes, "normalise": reference.normalise}
    about |= {"digest": teacher.digest, "network": teacher.network_digest}
    return {**about, "accuracy": teacher.accuracy, "classes": teacher.matched}
