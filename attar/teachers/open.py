"""Opening a teacher: loaded, tried on images whose classes are known, and checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attar.teachers.check import Examples, check_teacher, check_together
from attar.teachers.load import load_pretrained
from attar.teachers.reference import TeacherReference
from attar.teachers.teacher import Pretrained, Teacher


def open_teacher(
    reference: TeacherReference,
    examples: Callable[[Pretrained], Examples],
    *,
    classes: int,
    size: int,
    normalise: str,
) -> Teacher:
    """The teacher for views that are normalised by `normalise`; of several, each is checked alone.

    `examples` gives the images that a classifier is tried on. A checkpoint, which does not say how many classes it
    knows and how large its images are, is opened for `classes` of them and `size` pixels.

    Raises:
        AttarError: there is no such teacher, or it fails a check of `attar.teachers.check`.
    """
    class_list = None if reference.classes is None else Path(reference.classes)
    members = []
    for source in reference.sources:
        pretrained = load_pretrained(source, class_list, classes, size, reference.normalise)
        tried_on = examples(pretrained)
        members.append(check_teacher(pretrained, tried_on, normalise))
    return members[0] if len(members) == 1 else check_together(members, tried_on, normalise)
