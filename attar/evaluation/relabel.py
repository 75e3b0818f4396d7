"""Soft labels made ahead, into a folder of the user's: for a set, a recipe and a teacher."""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from attar.core.errors import AttarError
from attar.core.files import writing
from attar.core.progress import Progress, silent
from attar.core.store import Artefact, Store
from attar.data.places import check_place

if TYPE_CHECKING:
    from attar.core.progress import Say
    from attar.evaluation import Recipe
    from attar.teachers.reference import TeacherReference
    from attar.teachers.soft_labels import StoredLabels


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
    from attar.evaluation import changes
    from attar.evaluation.evaluator import labelling
    from attar.evaluation.inputs import opened, tried
    from attar.evaluation.recipes import MODIFIED
    from attar.evaluation.teaching import fitted, told
    from attar.sets.distilled import open_distilled, verify
    from attar.sets.images import changed
    from attar.teachers.soft_labels import write_labels

    if recipe.scheme == "online":
        raise AttarError(f"recipe {recipe.name} stores no labels: choose fkd-soft, or set scheme, for example int8")
    one, kept = open_distilled(folder), store or Store()
    check_place(out, "--out", [one.manifest["data"]["spec"]])
    there = _there(out)
    if problems := verify(folder):
        raise AttarError(f"{folder} is damaged ({problems[0]}); `attar verify` lists all {len(problems)} problems")
    if differs := changed(one, kept):
        say(f"note: {differs}: the teacher is tried on the images that there are now")
    train = opened(one, recipe)
    fit = fitted(teacher, train, *tried(one, train, kept), recipe, device)
    about = {"recipe": recipe.name.removesuffix(MODIFIED), "changes": changes(recipe)}
    about |= {"teacher": told(teacher.anywhere, fit)}
    say(f"{teacher}: {fit.accuracy:.1f} % right, classes {fit.matched}")
    wanted, images = labelling(train, recipe, fit.labeller, device)
    views = wanted.views.epochs * wanted.views.count
    say(f"{views:,} views ({wanted.views.epochs} epochs), {wanted.bytes:,} bytes as {recipe.scheme}")
    if there is not None:
        if other := there.differences(wanted):
            raise AttarError(f"--out {out} holds labels {' and '.join(other)}: choose another folder, or remove it")
        say(f"{out} is already there, and holds these labels: nothing to do")
        return
    remedy = "choose another --out; the same command goes on from there"
    with kept.lock(Artefact("relabelling", {"out": str(out.absolute())})), writing(out, remedy):
        partial = out.with_name(f".{out.name}.{wanted.key[:12]}.partial")
        for stale in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
            if stale != partial:
                shutil.rmtree(stale)
        write_labels(partial, wanted, images, fit.labeller, progress, about)
        if out.is_dir():
            out.rmdir()
        os.rename(partial, out)
    say(f"wrote {out.resolve()}")


def _there(out: Path) -> StoredLabels | None:
    """The labels in `out`; None where nothing is."""
    from attar.teachers.soft_labels import StoredLabels

    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        return StoredLabels(out)
    except AttarError as error:
        raise AttarError(
            f"--out {out} is not empty, and holds no whole labels of ours: choose another folder, or remove it"
        ) from error
