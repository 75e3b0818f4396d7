"""Whether a teacher's classes and input are those of the data: looked at before anything is labelled.

A wrong class order is the field's most common silent failure: the students learn, but the wrong names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attar.core.errors import AttarError
from attar.data.class_names import matches
from attar.data.source import listed
from attar.teachers.teacher import Labeller, Teacher
from attar.training.augment import STATISTICS, normalised

SIGMAS = 3.0
"""How sure a check is before it refuses: so many standard errors."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A teacher that has passed."""

    labeller: Labeller
    accuracy: float
    """Top-1 in per cent on the images that it was tried on."""
    matched: str
    """How its classes were matched, in words."""


def fit_teacher(
    teacher: Teacher, images: Tensor, labels: Tensor, classes: Sequence[str], normalise: str, of: str
) -> Fitted:
    """The teacher behind a recipe that normalises by `normalise`, its logits in the order of `classes`.

    It is tried on images (N, H, W, 3) in uint8, at the recipe's size, with labels (N,); `of` says what they are.

    Raises:
        AttarError: a class that it does not know; another order of the classes, or other statistics of the input, under
            which it is right far more often; or no better than chance.
    """
    columns, matched = _columns(teacher, classes)
    labeller = Labeller(teacher, normalise, columns).eval().to(images.device)
    found = _predicted(labeller, images, normalise)
    right = found == labels
    told = f"{teacher.source}: {100 * _share(right):.1f} % right on {len(labels)} {of}"
    _check_order(found, labels, classes, told)
    _check_input(teacher, columns, images, labels, right, normalise, told)
    chance = 1 / len(classes)
    if _share(right) <= chance + SIGMAS * math.sqrt(chance * (1 - chance) / len(labels)):
        raise AttarError(
            f"{told}, which is chance: its classes or its input are not those of this set, or it was never trained"
        )
    return Fitted(labeller, 100 * _share(right), matched)


def _columns(teacher: Teacher, classes: Sequence[str]) -> tuple[list[int], str]:
    """Which logit each class is."""
    if teacher.classes is None:
        if teacher.outputs != len(classes):
            raise AttarError(
                f"{teacher.source} has {teacher.outputs} classes without names and the set {len(classes)}: give its "
                "class list with --teacher-classes FILE"
            )
        return list(range(len(classes))), "by position: the teacher carries no class names"
    found = matches(classes, teacher.classes, teacher.outputs, classes)
    unclear = [name for name, labels in found.items() if len(labels) != 1]
    if unclear:
        raise AttarError(
            f"{teacher.source} does not know these classes of the set, or not which: {listed(unclear)}; "
            f"its own: {listed(teacher.classes, 10)} (another class list: --teacher-classes FILE)"
        )
    columns = [found[name][0] for name in classes]
    if len(set(columns)) < len(columns):
        raise AttarError(f"{teacher.source}: several classes of the set are the same class of the teacher's")
    if columns == list(range(teacher.outputs)):
        return columns, "by name, in the same order"
    return columns, f"by name, {len(classes)} of its {teacher.outputs}, in another order"


@torch.no_grad()
def _predicted(labeller: Labeller, images: Tensor, normalise: str) -> Tensor:
    return torch.cat([labeller(normalised(part, normalise)).argmax(1) for part in images.split(128)])


def _check_order(found: Tensor, labels: Tensor, classes: Sequence[str], told: str) -> None:
    """The order that fits best is found on half of the images and held against the given one on the other half.

    It must be good in itself for the classes that it moves: some order fits a teacher that is hardly trained, too.
    """
    from scipy.optimize import linear_sum_assignment

    first = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(len(classes)):
        first[(labels == label).nonzero()[::2, 0].cpu()] = True
    first = first.to(labels.device)
    counts = torch.zeros(len(classes), len(classes), dtype=torch.int64, device=labels.device)
    counts.index_put_((found[first], labels[first]), torch.ones_like(labels[first]), accumulate=True)
    _, order = linear_sum_assignment(counts.cpu().numpy(), maximize=True)
    turned = torch.tensor(order, device=labels.device)
    found, labels = found[~first], labels[~first]
    better, given, moves = turned[found] == labels, found == labels, turned[labels] != labels
    if _far_better(better, given) and _share(better[moves]) > max(0.5, 2 * _share(given[moves])):
        moved = [f"{classes[new]!r} where it says {classes[old]!r}" for old, new in enumerate(order) if old != new]
        raise AttarError(
            f"{told}; in another order of its classes {100 * _share(better):.1f} %: they are in a wrong "
            f"order ({listed(moved, 3)}). Give its class list, in the order of its logits, with --teacher-classes FILE"
        )


def _check_input(
    teacher: Teacher,
    columns: Sequence[int],
    images: Tensor,
    labels: Tensor,
    right: Tensor,
    normalise: str,
    told: str,
) -> None:
    for name, (mean, std) in STATISTICS.items():
        other = Labeller(replace(teacher, mean=mean, std=std), normalise, columns).eval().to(images.device)
        better = _predicted(other, images, normalise) == labels
        if _far_better(better, right):
            raise AttarError(
                f"{told}; with its input normalised as {name} {100 * _share(better):.1f} %: give its "
                f"statistics with --teacher-normalise {name}"
            )


def _share(right: Tensor) -> float:
    return float(right.float().mean())


def _far_better(one: Tensor, other: Tensor) -> bool:
    """Whether `one` is right more often, by five points and beyond doubt: McNemar's test on what only one got right."""
    gained, lost = int((one & ~other).sum()), int((other & ~one).sum())
    return gained - lost > max(0.05 * len(one), SIGMAS * math.sqrt(gained + lost))
