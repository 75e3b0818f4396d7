"""Soft labels made ahead, into a folder of the user's: for a set, a recipe and a teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from attar.core.arguments import check_fields, checked
from attar.core.engine import LOCAL, Engine, raise_first
from attar.core.errors import AttarError
from attar.core.files import appearing
from attar.core.fingerprints import digest
from attar.core.progress import Meter, Progress, Say, about, quiet, silent, timed_on
from attar.core.store import Artefact, Store
from attar.core.wording import counted
from attar.data.output_places import check_place, ours
from attar.evaluation.evaluator import labelling
from attar.evaluation.label_temperature import FORETOLD, chosen_temperature
from attar.evaluation.load_images import images_of_set, teacher_examples
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import MODIFIED, changes
from attar.evaluation.teaching import recipe_teacher, summary
from attar.sets.distilled import DistilledSet, check_undamaged, open_distilled
from attar.sets.own_labels import LABELS
from attar.sets.source_data import data_changes
from attar.teachers.label_schemes import check_temperature
from attar.teachers.reference import TeacherReference
from attar.teachers.soft_labels import BATCH, Labelling, StoredLabels, advise, has_shard, write_labels, write_shard
from attar.teachers.teacher import Teacher
from attar.training import DeviceImages, autocast

TIMED = 8
"""Views that are labelled at once on a CPU to see how long they take."""


@dataclass(frozen=True)
class Relabelling:
    """Which labels of which set."""

    folder: Path
    """The distilled set."""
    teacher: TeacherReference
    """Who labels it."""
    recipe: Recipe
    """Whose views are labelled, and in which scheme; of a fixed scheme none are, and only it counts."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    temperature: float | Literal["auto"] | None = None
    """Of fixed labels, the temperature that they are to be learnt from at, as `label_temperature` of a set's own."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_temperature(self.temperature, self.recipe.scheme)

    def opened(self, store: Store) -> _Opened:
        """All that makes the labels; the teacher is tried first."""
        return _opened(open_distilled(self.folder), self.teacher, self.recipe, self.device, store)


@dataclass(frozen=True, eq=False)
class _Opened:
    teacher: Teacher
    wanted: Labelling
    """What the labels depend on."""
    images: DeviceImages


def _opened(distilled: DistilledSet, reference: TeacherReference, recipe: Recipe, device: str, store: Store) -> _Opened:
    train = images_of_set(distilled, recipe)
    examples = teacher_examples(distilled, train, store)
    teacher = recipe_teacher(reference, train, examples, recipe, device)
    return _Opened(teacher, *labelling(train, recipe, teacher, device))


def label_set(
    distilled: DistilledSet,
    reference: TeacherReference,
    recipe: Recipe,
    device: str,
    store: Store,
    progress: Progress = silent,
    originals: Tensor | None = None,
) -> dict[str, Any]:
    """Writes the labels of a set into its own folder, or what is missing of them; what is known of the teacher.

    The teacher looks at `originals`, uint8 (N, S, S, 3), in the place of the set's images, if there are any: the
    images that parts of mosaics were reduced from.

    Raises:
        AttarError: the teacher fails a check.
    """
    ready = _opened(distilled, reference, recipe, device, store)
    about = summary(reference.anywhere, ready.teacher)
    folder = distilled.folder / LABELS
    images, wanted = ready.images, ready.wanted
    if originals is not None:
        images, wanted = originals.to(images.device), replace(wanted, looked_at=digest(originals.numpy().tobytes()))
    write_labels(folder, wanted, images, ready.teacher, progress, {"teacher": about})
    return about


def advised(
    distilled: DistilledSet,
    labels: Path,
    temperature: float | Literal["auto"],
    device: str,
    store: Store,
    progress: Progress = silent,
    say: Say = quiet,
) -> dict[str, Any]:
    """Writes beside whole labels at which temperature they are to be learnt from; the same, `auto` after trials."""
    advice: dict[str, Any] = {"temperature": temperature}
    if temperature == "auto":
        choice = chosen_temperature(distilled, labels, device, store, progress)
        say(choice.words)
        advice = vars(choice)
    advise(labels, advice)
    return advice


@checked
def relabel(
    asked: Relabelling,
    out: Path,
    *,
    progress: Progress = silent,
    say: Say = print,
    dry_run: bool = False,
    engine: Engine = LOCAL,
) -> None:
    """Writes the labels of a distilled set to `out`, whole; run again, it goes on where it was.

    A dry run ends after the checks, having said how many labels there will be. Workers of an engine write a file each.

    Raises:
        AttarError: the recipe stores no labels, the teacher fails a check, or `out` holds something else; before any
            labelling.
    """
    store, recipe = Store(), asked.recipe
    engine.check(asked.device)
    earlier = _checked(asked, out, store, say)
    ready = asked.opened(store)
    teacher, wanted = ready.teacher, ready.wanted
    say(f"{asked.teacher}: {teacher.accuracy:.1f} % right, classes {teacher.matched}")
    if teacher.weak:
        say(f"note: {teacher.weak}, and so do its labels: train it for longer, or name a better one")
    say(f"{_amount(wanted, recipe.fixed)} as {recipe.scheme}")
    if earlier is not None:
        _keep(out, earlier, wanted, asked.temperature, say)
        return
    tried = FORETOLD if asked.temperature == "auto" else ""
    say(f"labelling takes {about(_seconds(ready))}; files that are there already are not made again{tried}")
    if dry_run:
        say(f"they would be written to {out.resolve()}, in {counted(len(wanted.shards), 'file')} and labels.json")
        return
    with store.lock(Artefact("relabelling", {"out": str(out.absolute())})):
        if (meanwhile := ours(out, StoredLabels, "whole labels")) is not None:
            _keep(out, meanwhile, wanted, asked.temperature, say)
            return
        _write(asked, ready, out, store, engine, progress, say)
    say(f"wrote {out.resolve()}")


@torch.no_grad()
def _seconds(ready: _Opened) -> float:
    """About how long all labels take on this device: a few views are drawn and labelled, timed."""
    views, images = ready.wanted.views, ready.images
    index = torch.arange(min(BATCH if images.device.type == "cuda" else TIMED, views.count), device=images.device)
    with autocast(images.device, ready.wanted.precision):
        each = timed_on(lambda: ready.teacher(views(images, 0, index).view), images.device) / len(index)
    return each * views.epochs * views.count


def _write(
    asked: Relabelling, ready: _Opened, out: Path, store: Store, engine: Engine, progress: Progress, say: Say
) -> None:
    recipe, wanted = asked.recipe, ready.wanted
    about: dict[str, Any] = {"teacher": summary(asked.teacher.anywhere, ready.teacher)}
    if not recipe.fixed:
        about |= {"recipe": recipe.name.removesuffix(MODIFIED), "changes": changes(recipe)}
    remedy = "choose another `out`; the same command goes on from there"
    with appearing(out, remedy, wanted.key[:12]) as temporary:
        temporary.mkdir(parents=True, exist_ok=True)
        shards = [_Shard(asked, store.root, wanted.key, temporary, number) for number in range(len(wanted.shards))]
        raise_first(engine.ahead(shards, asked.device, progress))
        write_labels(temporary, wanted, ready.images, ready.teacher, progress, about)
        if asked.temperature is not None:
            distilled = open_distilled(asked.folder)
            advised(distilled, temporary, asked.temperature, asked.device, store, progress, say)


_labelling: dict[str, _Opened] = {}
"""What this process labels, where it is a worker, by the key of the labels."""


@dataclass(frozen=True, eq=False)
class _Shard:
    """The labels of some epochs, a file: an item of `Engine.ahead`."""

    asked: Relabelling
    cache: Path
    key: str
    """The key of all the labels."""
    folder: Path
    """The folder that they are written to."""
    number: int

    @property
    def what(self) -> str:
        """The work, in words."""
        return f"labels of {self.asked.folder}, file {self.number}"

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
            _labelling[self.key] = self.asked.opened(Store(self.cache))
        ready = _labelling[self.key]
        if ready.wanted.key != self.key:
            raise AttarError(f"{self.what}: a worker would make others; its set, teacher or versions are not the same")
        if not self.done:
            views = Meter(silent, "", 0, "views")
            write_shard(self.folder, self.number, ready.wanted, ready.images, ready.teacher, views)


def _amount(wanted: Labelling, fixed: bool) -> str:
    """How many labels there are, and how large they are, in words."""
    if fixed:
        return f"labels of {counted(wanted.views.count, 'image')}, {wanted.bytes:,} bytes"
    views, epochs = wanted.views.epochs * wanted.views.count, counted(wanted.views.epochs, "epoch")
    return f"labels of {counted(views, 'view')} ({epochs}), {wanted.bytes:,} bytes"


def _keep(
    out: Path, earlier: StoredLabels, wanted: Labelling, temperature: float | Literal["auto"] | None, say: Say
) -> None:
    """Says that the labels are there already; raises AttarError where `out` holds other ones."""
    other = earlier.differences(wanted)
    if temperature != earlier.advised and not (temperature == "auto" and earlier.tried):
        other.append("for another temperature")
    if other:
        raise AttarError(f"`out` {out} holds labels {' and '.join(other)}: choose another folder, or remove it")
    say(f"{out} is already there, and holds these labels: nothing to do")


def _checked(asked: Relabelling, out: Path, store: Store, say: Say) -> StoredLabels | None:
    """The labels that are in `out` already, if any; the set is looked at."""
    recipe = asked.recipe
    if recipe.scheme == "online":
        raise AttarError(
            f"recipe {recipe.name} stores no labels: choose fkd-soft, or set scheme, for example int8, or fixed"
        )
    distilled = open_distilled(asked.folder)
    check_place(out, "`out`", [distilled.manifest["data"]["spec"]])
    earlier = ours(out, StoredLabels, "whole labels")
    check_undamaged(distilled)
    if differs := data_changes(distilled, store):
        say(f"note: {differs}: the teacher is tried on the images that there are now")
    return earlier
