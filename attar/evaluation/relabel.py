"""Soft labels made ahead, into a folder of the user's: for a set, a recipe and a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attar.core.errors import AttarError
from attar.core.files import appearing
from attar.core.progress import Progress, silent
from attar.core.store import Store, fingerprint
from attar.core.words import counted
from attar.data.places import check_place, ours

if TYPE_CHECKING:
    from attar.core.progress import Say
    from attar.evaluation import Recipe
    from attar.teachers.reference import TeacherReference


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
    dry_run: bool = False,
) -> None:
    """Writes the labels of the distilled set in `folder` to `out`, whole; run again, it goes on where it was.

    A dry run ends after the checks, having said how many labels there will be.

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
    from attar.teachers.soft_labels import StoredLabels, write_labels

    if recipe.scheme == "online":
        raise AttarError(f"recipe {recipe.name} stores no labels: choose fkd-soft, or set scheme, for example int8")
    one, kept = open_distilled(folder), store or Store()
    check_place(out, "--out", [one.manifest["data"]["spec"]])
    there = ours(out, StoredLabels, "whole labels")
    if problems := verify(folder):
        raise AttarError(f"{folder} is damaged ({problems[0]}); `attar verify` lists all problems: {len(problems)}")
    if differs := changed(one, kept):
        say(f"note: {differs}: the teacher is tried on the images that there are now")
    train = opened(one, recipe)
    fit = fitted(teacher, train, *tried(one, train, kept), recipe, device)
    about = {"recipe": recipe.name.removesuffix(MODIFIED), "changes": changes(recipe)}
    about |= {"teacher": told(teacher.anywhere, fit)}
    say(f"{teacher}: {fit.accuracy:.1f} % right, classes {fit.matched}")
    wanted, images = labelling(train, recipe, fit.labeller, device)
    views, epochs = wanted.views.epochs * wanted.views.count, counted(wanted.views.epochs, "epoch")
    say(f"labels of {counted(views, 'view')} ({epochs}), {wanted.bytes:,} bytes as {recipe.scheme}")
    if there is not None:
        if other := there.differences(wanted):
            raise AttarError(f"--out {out} holds labels {' and '.join(other)}: choose another folder, or remove it")
        say(f"{out} is already there, and holds these labels: nothing to do")
        return
    if dry_run:
        say(f"they would be written to {out.resolve()}, in {counted(len(wanted.shards), 'file')} and labels.json")
        return
    remedy = "choose another --out; the same command goes on from there"
    lock = kept.lock("relabelling", fingerprint(str(out.absolute())))
    with lock, appearing(out, remedy, wanted.key[:12]) as made:
        write_labels(made, wanted, images, fit.labeller, progress, about)
    say(f"wrote {out.resolve()}")
