"""Whether a teacher's classes and input are those of the data: looked at before anything is labelled.

A wrong class order is the field's most common silent failure: the students learn, but the wrong names. Two tests look
for it on images whose classes are known.

all classes  An order found on half of the images is right far more often than the given one on the other half.
a few        Most images of one class are called by a second one's name, most of the second by a third's ... and most of
             the last by the first's: two that are swapped are a ring of two.

An honest teacher, however weak, calls no class by another's name more often than by its own. Errors that gather on a
similar class make no ring, for they do not come back: cats are called dogs, but dogs are not called cats. At worst it
cannot tell the classes of a ring apart. Of n images that are called by their own name or the ring's, those called by
the ring's are then Binomial(n, 1/2). K such classes are expected to make fewer rings of L than K / L times its tail,
since each has at most one such second name; this must be below the tail of three standard errors, 1 in 740. (26 of
20,000 drawn teachers that cannot tell any of five pairs apart, tried on 60 images, are refused.) Two swapped classes of
a perfect teacher are found with 6 images of each of 10 classes or 10 of each of 1000; with 2 of each they cannot be.
Where all images right would be no proof that it is above chance (2 of each of 2 classes), that is not asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom, norm
from torch import Tensor

from attar.core.errors import AttarError
from attar.core.wording import listed
from attar.data.class_names import matches
from attar.teachers.teacher import Ensemble, Pretrained, SingleTeacher, Teacher
from attar.training.augment import STATISTICS, normalised

SIGMAS = 3.0
"""How sure a check is before it refuses, in standard errors."""
TRIED_EACH = 10
"""Images of each class that a teacher is tried on, at least, where there are as many."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Images whose classes are known, for a teacher to be tried on."""

    images: Tensor
    """uint8 (N, H, W, 3), at the size that the teacher is to be shown, on its device."""
    labels: Tensor
    """(N,)."""
    classes: Sequence[str]
    """Class names in label order."""
    source: str
    """What they are, in words: "images of digits@train"."""


def check_teacher(pretrained: Pretrained, examples: Examples, normalise: str) -> SingleTeacher:
    """The teacher for views that are normalised by `normalise`, its logits in the order of the examples' classes.

    Raises:
        AttarError: a class that it does not know; another order of the classes, or other statistics of the input, under
            which it is right far more often; or no better than chance.
    """
    classes, labels = examples.classes, examples.labels
    columns, matched = _columns(pretrained, classes)
    teacher = SingleTeacher(pretrained, normalise, columns).eval().to(examples.images.device)
    predictions = predicted(teacher, examples.images, normalise, pretrained.source)
    right = predictions == labels
    result = f"{pretrained.source}: {100 * _share(right):.1f} % right on {len(labels)} {examples.source}"
    _check_order(predictions, labels, classes, result)
    if not pretrained.sure:  # one that was stopped early may happen to be better with others
        _check_input(teacher, examples, right, result)
    chance = 1 / len(classes)
    sure = chance + SIGMAS * math.sqrt(chance * (1 - chance) / len(labels))
    if _share(right) <= sure < 1:  # of so few images that all of them would be no proof, nothing is said
        raise AttarError(
            f"{result}, which is chance: its classes or its input are not those of this set, or it was never trained"
        )
    teacher.accuracy, teacher.matched = 100 * _share(right), matched
    teacher.weak = _weakness(pretrained.source, right, examples)
    return teacher


def check_together(members: Sequence[SingleTeacher], examples: Examples, normalise: str) -> Ensemble:
    """Teachers that have passed, each alone, as one that labels by the mean of their logits."""
    ensemble = Ensemble(members).eval()
    right = predicted(ensemble, examples.images, normalise, "the teachers together") == examples.labels
    ensemble.accuracy = 100 * _share(right)
    ensemble.weak = _weakness("the teachers together", right, examples)
    return ensemble


def _weakness(name: str, right: Tensor, examples: Examples) -> str:
    """That a teacher is wrong about most images, in words; nothing where it is not."""
    if 2 * right.sum() >= len(right):
        return ""
    return (
        f"{name} is a weak teacher: {100 * _share(right):.1f} % right on {len(right)} {examples.source}, "
        f"{100 / len(examples.classes):.1f} % by chance; it calls most images by another class's name"
    )


def _columns(pretrained: Pretrained, classes: Sequence[str]) -> tuple[list[int], str]:
    """Which logit each class is."""
    if pretrained.classes is None:
        if pretrained.outputs != len(classes):
            raise AttarError(
                f"{pretrained.source} has {pretrained.outputs} classes without names and the set {len(classes)}: give "
                "its class list with `teacher_classes` FILE"
            )
        return list(range(len(classes))), "by position: the teacher carries no class names"
    known = matches(classes, pretrained.classes, pretrained.outputs, classes)
    unclear = [name for name, labels in known.items() if len(labels) != 1]
    if unclear:
        raise AttarError(
            f"{pretrained.source} does not know these classes of the set, or not which: {listed(unclear)}; "
            f"its own: {listed(pretrained.classes, 10)} (another class list: `teacher_classes` FILE)"
        )
    columns = [known[name][0] for name in classes]
    if len(set(columns)) < len(columns):
        raise AttarError(f"{pretrained.source}: several classes of the set are the same class of the teacher's")
    if columns == list(range(pretrained.outputs)):
        return columns, "by name, in the same order"
    return columns, f"by name, {len(classes)} of its {pretrained.outputs}, in another order"


@torch.no_grad()
def predicted(teacher: Teacher, images: Tensor, normalise: str, source: str) -> Tensor:
    """The classes (N,) of images (N, H, W, 3) in uint8.

    Raises:
        AttarError: the teacher, named `source`, gives logits that are no numbers.
    """
    logits = torch.cat([teacher(normalised(part, normalise)) for part in images.split(128)])
    if not logits.isfinite().all():
        raise AttarError(f"{source}: its logits are not finite numbers; its weights are broken")
    return logits.argmax(1)


def _check_order(predictions: Tensor, labels: Tensor, classes: Sequence[str], result: str) -> None:
    """Refuses a teacher that calls classes by each other's names, all of them or a few (see the head of the file)."""
    order = _whole_order(predictions, labels, len(classes)) or _rings(predictions, labels, len(classes))
    if not order:
        return
    reordered = torch.arange(len(classes), device=predictions.device)
    reordered[list(order.values())] = torch.tensor(list(order), device=predictions.device)
    counts = _counts(predictions, labels, len(classes))
    calls = [
        f"{'most' if 2 * counts[own, name] > counts[own].sum() else 'some'} {classes[own]!r} images {classes[name]!r}"
        for own, name in sorted(order.items())
    ]
    raise AttarError(
        f"{result}; in another order of its classes {100 * _share(reordered[predictions] == labels):.1f} %: it calls "
        f"{listed(calls, 3)}{_known_order(order, classes)}. Give its class list, in the order of its logits, with "
        "`teacher_classes` FILE"
    )


def _whole_order(predictions: Tensor, labels: Tensor, count: int) -> dict[int, int]:
    """What it calls each class that it calls by another's name; nothing where the given order fits as well.

    The order that fits best is found on half of the images and held against the given one on the other half. It must
    be good in itself for the classes that it moves: some order fits a teacher that is hardly trained, too.
    """
    first = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(count):
        first[(labels == label).nonzero()[::2, 0].cpu()] = True
    first = first.to(labels.device)
    _, order = linear_sum_assignment(_counts(predictions[first], labels[first], count).T.numpy(), maximize=True)
    reordered = torch.tensor(order, device=labels.device)
    predictions, labels = predictions[~first], labels[~first]
    better, given, moves = reordered[predictions] == labels, predictions == labels, reordered[labels] != labels
    if not _far_better(better, given) or _share(better[moves]) <= max(0.5, 2 * _share(given[moves])):
        return {}
    return {int(own): called for called, own in enumerate(order) if own != called}


def _rings(predictions: Tensor, labels: Tensor, count: int) -> dict[int, int]:
    """The same of the classes in rings that are beyond doubt (see the head of the file)."""
    counts = _counts(predictions, labels, count)
    most = {own: int(row.argmax()) for own, row in enumerate(counts) if 2 * row.max() > row.sum()}
    rings: dict[int, int] = {}
    while most:
        path = [min(most)]
        while (called := most.pop(path[-1], None)) is not None and called not in path:
            path.append(called)
        if called is None or called == path[-1]:
            continue
        ring = path[path.index(called) :]
        calls = dict(zip(ring, [*ring[1:], called], strict=True))
        moved = sum(int(counts[own, name]) for own, name in calls.items())
        either = moved + sum(int(counts[own, own]) for own in ring)
        if count / len(ring) * binom.sf(moved - 1, either, 0.5) < norm.sf(SIGMAS):
            rings |= calls
    return rings


def _counts(predictions: Tensor, labels: Tensor, count: int) -> Tensor:
    """How many images of each class (a row) are called by each name (a column)."""
    return torch.bincount(labels * count + predictions, minlength=count**2).view(count, count).cpu()


def _known_order(order: Mapping[int, int], classes: Sequence[str]) -> str:
    """What the teacher's own order of its classes is, in words, where it is one of the usual ones."""
    own = list(range(len(classes)))
    for label, called in order.items():
        own[called] = label
    names = [classes[label] for label in own]
    if len(own) > 2 and len({(label - called) % len(classes) for called, label in enumerate(own)}) == 1:
        return f": its classes are shifted by {order[0]}"
    return ": its classes are in alphabetical order" if names == sorted(classes) else ""


def _check_input(teacher: SingleTeacher, examples: Examples, right: Tensor, result: str) -> None:
    """Refuses a teacher that is right far more often where its input is normalised in another of the usual ways."""
    pretrained, normalise = teacher.pretrained, teacher.normalise
    for name, (mean, std) in STATISTICS.items():
        other = SingleTeacher(replace(pretrained, mean=mean, std=std), normalise, teacher.logits).eval()
        other = other.to(examples.images.device)
        better = predicted(other, examples.images, normalise, pretrained.source) == examples.labels
        if _far_better(better, right):
            raise AttarError(
                f"{result}; with its input normalised as {name} {100 * _share(better):.1f} %: give its "
                f"statistics with `teacher_normalise` {name}"
            )


def _share(right: Tensor) -> float:
    return float(right.float().mean())


def _far_better(better: Tensor, given: Tensor) -> bool:
    """Whether `better` is right more often by five points, beyond doubt: McNemar's test on what only one got right."""
    gained, lost = int((better & ~given).sum()), int((given & ~better).sum())
    return gained - lost > max(0.05 * len(given), SIGMAS * math.sqrt(gained + lost))
