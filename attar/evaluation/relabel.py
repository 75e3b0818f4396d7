"""Soft labels made ahead, into a folder of the user's: for a set, a recipe and a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from attar.core.arguments import checked
from attar.core.engine import LOCAL, Engine, raise_first
from attar.core.errors import AttarError
from attar.core.files import appearing
from attar.core.progress import Meter, Progress, Say, silent
from attar.core.store import Artefact, Store
from attar.core.wording import counted
from attar.data.output_places import check_place, ours
from attar.evaluation.evaluator import labelling
from attar.evaluation.inputs import opened, teacher_examples
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import MODIFIED, changes
from attar.evaluation.teaching import recipe_teacher, summary
from attar.sets.distilled import DistilledSet, check_undamaged, open_distilled
from attar.sets.images import changed
from attar.teachers.reference import TeacherReference
from attar.teachers.soft_labels import Labelling, StoredLabels, has_shard, write_labels, write_shard
from attar.teachers.teacher import Teacher
from attar.training import Pictures


@checked
def relabel(
    folder: Path,
    teacher: TeacherReference,
    recipe: Recipe,
    out: Path,
    *,
    device: str = "auto",
    progress: Progress = silent,
    say: Say = print,
    dry_run: bool = False,
    engine: Engine = LOCAL,
) -> None:
    """Writes the labels of the distilled set in `folder` to `out`, whole; run again, it goes on where it was.

    A dry run ends after the checks, having said how many labels there will be.

    Raises:
        AttarError: the recipe stores no labels, the teacher fails a check, or `out` holds something else; before any
            labelling.
    """
    store = Store()
    engine.check(device)
    distilled, earlier = _checked(folder, recipe, out, store, say)
    train = opened(distilled, recipe)
    opened_teacher = recipe_teacher(teacher, train, teacher_examples(distilled, train, store), recipe, device)
    say(f"{teacher}: {opened_teacher.accuracy:.1f} % right, classes {opened_teacher.matched}")
    wanted, images = labelling(train, recipe, opened_teacher, device)
    say(f"{_amount(wanted)} as {recipe.scheme}")
    if earlier is not None:
        _check_same(out, earlier, wanted)
        say(f"{out} is already there, and holds these labels: nothing to do")
        return
    if dry_run:
        say(f"they would be written to {out.resolve()}, in {counted(len(wanted.shards), 'file')} and labels.json")
        return
    about = {"recipe": recipe.name.removesuffix(MODIFIED), "changes": changes(recipe)}
    about |= {"teacher": summary(teacher.anywhere, opened_teacher)}
    remedy = "choose another `out`; the same command goes on from there"
    lock = store.lock(Artefact("relabelling", {"out": str(out.absolute())}))
    with lock, appearing(out, remedy, wanted.key[:12]) as temporary:
        if not engine.is_local:
            asked = _Asked(distilled, teacher, recipe, device, store.root.absolute())
            shards = [_Shard(asked, wanted.key, temporary.absolute(), number) for number in range(len(wanted.shards))]
            raise_first(engine.ahead(shards, device, progress))
        write_labels(temporary, wanted, images, opened_teacher, progress, about)
    say(f"wrote {out.resolve()}")


@dataclass(frozen=True, eq=False)
class _Asked:
    """Which labels: all that a worker needs to open what makes them."""

    distilled: DistilledSet
    teacher: TeacherReference
    recipe: Recipe
    device: str
    cache: Path

    @cached_property
    def opened(self) -> tuple[Labelling, Pictures, Teacher]:
        """What the labels depend on, the images, and the teacher."""
        train = opened(self.distilled, self.recipe)
        examples = teacher_examples(self.distilled, train, Store(self.cache))
        teacher = recipe_teacher(self.teacher, train, examples, self.recipe, self.device)
        return *labelling(train, self.recipe, teacher, self.device), teacher


_labelling: dict[str, _Asked] = {}
"""What this process labels, where it is a worker, by the key of the labels."""


@dataclass(frozen=True, eq=False)
class _Shard:
    """The labels of some epochs, a file: an item of `Engine.ahead`."""

    asked: _Asked
    key: str
    """Of all labels."""
    folder: Path
    """Where they are written."""
    number: int

    @property
    def what(self) -> str:
        """The work, in words."""
        return f"labels of {self.asked.distilled.folder}, file {self.number}"

    @property
    def done(self) -> bool:
        """Whether the file is there, whole."""
        return has_shard(self.folder, self.number)

    def make(self) -> None:
        """Writes it, if it is missing.

        Raises:
            AttarError: this worker's labels would be others.
        """
        if self.key not in _labelling:
            _labelling.clear()
            _labelling[self.key] = self.asked
        wanted, images, teacher = _labelling[self.key].opened
        if wanted.key != self.key:
            raise AttarError(f"{self.what}: a worker would make others; its set, teacher or versions are not the same")
        if not self.done:
            write_shard(self.folder, self.number, wanted, images, teacher, Meter(silent, "", 0, "views"))


def _amount(wanted: Labelling) -> str:
    """How many labels there are, and how large they are, in words."""
    views, epochs = wanted.views.epochs * wanted.views.count, counted(wanted.views.epochs, "epoch")
    return f"labels of {counted(views, 'view')} ({epochs}), {wanted.bytes:,} bytes"


def _check_same(out: Path, earlier: StoredLabels, wanted: Labelling) -> None:
    """Raises AttarError where `out` holds other labels."""
    if other := earlier.differences(wanted):
        raise AttarError(f"`out` {out} holds labels {' and '.join(other)}: choose another folder, or remove it")


def _checked(
    folder: Path, recipe: Recipe, out: Path, store: Store, say: Say
) -> tuple[DistilledSet, StoredLabels | None]:
    """The set, whole, and the labels that are in `out` already, if any."""
    if recipe.scheme == "online":
        raise AttarError(f"recipe {recipe.name} stores no labels: choose fkd-soft, or set scheme, for example int8")
    distilled = open_distilled(folder)
    check_place(out, "`out`", [distilled.manifest["data"]["spec"]])
    earlier = ours(out, StoredLabels, "whole labels")
    check_undamaged(distilled)
    if differs := changed(distilled, store):
        say(f"note: {differs}: the teacher is tried on the images that there are now")
    return distilled, earlier
