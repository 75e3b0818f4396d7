"""Soft labels made ahead, into a folder of the user's: for a set, a recipe and a teacher."""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.errors import AttarError
from attar.core.files import writing
from attar.core.progress import Progress, Say, silent
from attar.core.store import Store, fingerprint
from attar.data.places import check_place
from attar.evaluation.evaluator import labelling
from attar.evaluation.inputs import opened, teacher_examples
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import MODIFIED, changes
from attar.evaluation.teaching import recipe_teacher, summary
from attar.sets.distilled import DistilledSet, open_distilled, verify
from attar.sets.images import changed
from attar.teachers.reference import TeacherReference
from attar.teachers.soft_labels import Labelling, StoredLabels, write_labels

if TYPE_CHECKING:
    from attar.teachers.teacher import Teacher
    from attar.training import Pictures


def relabel(
    folder: Path,
    teacher: TeacherReference,
    recipe: Recipe,
    out: Path,
    *,
    device: str = "auto",
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = print,
) -> None:
    """Writes the labels of the distilled set in `folder` to `out`, whole; run again, it goes on where it was.

    Raises:
        AttarError: the recipe stores no labels, the teacher fails a check, or `out` holds something else; before any
            labelling.
    """
    if recipe.scheme == "online":
        raise AttarError(f"recipe {recipe.name} stores no labels: choose fkd-soft, or set scheme, for example int8")
    store = store or Store()
    distilled, earlier = _checked(folder, out, store, say)
    train = opened(distilled, recipe)
    opened_teacher = recipe_teacher(teacher, train, teacher_examples(distilled, train, store), recipe, device)
    say(f"{teacher}: {opened_teacher.accuracy:.1f} % right, classes {opened_teacher.matched}")
    wanted, images = labelling(train, recipe, opened_teacher, device)
    views = wanted.views.epochs * wanted.views.count
    say(f"{views:,} views ({wanted.views.epochs} epochs), {wanted.bytes:,} bytes as {recipe.scheme}")
    if earlier is not None:
        if other := earlier.differences(wanted):
            raise AttarError(f"--out {out} holds labels {' and '.join(other)}: choose another folder, or remove it")
        say(f"{out} is already there, and holds these labels: nothing to do")
        return
    about = {"recipe": recipe.name.removesuffix(MODIFIED), "changes": changes(recipe)}
    about |= {"teacher": summary(teacher.anywhere, opened_teacher)}
    _publish(out, wanted, images, opened_teacher, store, progress, about)
    say(f"wrote {out.resolve()}")


def _checked(folder: Path, out: Path, store: Store, say: Say) -> tuple[DistilledSet, StoredLabels | None]:
    """The set, whole, and the labels that are in `out` already, if any."""
    distilled = open_distilled(folder)
    check_place(out, "--out", [distilled.manifest["data"]["spec"]])
    earlier = _labels_in(out)
    if problems := verify(folder):
        raise AttarError(f"{folder} is damaged ({problems[0]}); `attar verify` lists all {len(problems)} problems")
    if differs := changed(distilled, store):
        say(f"note: {differs}: the teacher is tried on the images that there are now")
    return distilled, earlier


def _publish(
    out: Path,
    wanted: Labelling,
    images: Pictures,
    teacher: Teacher,
    store: Store,
    progress: Progress,
    about: dict[str, Any],
) -> None:
    """Labels the images in a hidden folder beside `out`, which then takes its place."""
    remedy = "choose another --out; the same command goes on from there"
    with store.lock("relabelling", fingerprint(str(out.absolute()))), writing(out, remedy):
        partial = out.with_name(f".{out.name}.{wanted.key[:12]}.partial")
        for stale in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
            if stale != partial:
                shutil.rmtree(stale)
        write_labels(partial, wanted, images, teacher, progress, about)
        if out.is_dir():
            out.rmdir()
        os.rename(partial, out)


def _labels_in(out: Path) -> StoredLabels | None:
    """The labels in `out`; None where nothing is."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        return StoredLabels(out)
    except AttarError as error:
        raise AttarError(
            f"--out {out} is not empty, and holds no whole labels of ours: choose another folder, or remove it"
        ) from error
