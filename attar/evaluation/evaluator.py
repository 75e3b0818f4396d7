"""Trains networks on one set, tests them on another: one resumable item for each seed."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attar.core.batching import device_class
from attar.core.compiler import check_compiler, compile_network
from attar.core.config import by_ipc, by_network, number_by_ipc
from attar.core.errors import AttarError
from attar.core.finite import naming
from attar.core.progress import Progress, silent
from attar.core.rng import seed_of
from attar.core.store import Artefact, Store, write_json
from attar.core.tracking import note, part
from attar.evaluation.labelled_images import LabelledImages, check_sets, resized
from attar.evaluation.labels import SoftLabels, views_of, whole_views
from attar.evaluation.native import Native
from attar.evaluation.precision import resolve_precision
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import MODIFIED, RECIPES
from attar.evaluation.records import Result
from attar.networks import build, check, check_size
from attar.teachers.soft_labels import Labelling, StoredLabels, Views
from attar.training import DeviceImages, Plan, Precision, Step, Supervision, placed, top1, train
from attar.training.augment import Augmentation, arithmetic
from attar.training.loop import HALF
from attar.training.meters import Tally, TrainAccuracy

__all__ = ["LabelledImages", "Students", "evaluate", "training_plan"]

REVISION = 4
"""Part of every item's key: raise it when a change of the code changes what a recipe measures."""


def evaluate(students: Students, seeds: Sequence[int], progress: Progress = silent) -> Result:
    """Trains one student for each seed and tests it. With a store, a finished seed is never trained again.

    Raises:
        AttarError: as `Students.inputs`; before any training.
        NotFinite: a training diverged; nothing of it is kept.
    """
    outcomes, inputs = [], students.inputs(seeds)
    for i, (seed, about) in enumerate(inputs.items()):
        title = f"{students.network}, {students.recipe.name}, seed {seed}"
        shown = partial(_seed_progress, progress, title, i, len(inputs))
        with naming(title), part(f"{students.network}, seed {seed}"):
            outcomes.append(students.outcome(seed, about, shown))
            note(0, accuracy=outcomes[-1]["accuracy"])
    return _result(students, outcomes)


def _result(students: Students, outcomes: Sequence[dict[str, Any]]) -> Result:
    """The outcomes of all seeds as one result."""
    curves = [tuple(map(tuple, outcome.get("curve") or ())) for outcome in outcomes]
    accuracies = tuple(outcome["accuracy"] for outcome in outcomes)
    train, test = students.train, students.test
    return Result(
        recipe=students.recipe.name,
        network=students.network,
        ipc=len(train.labels) / len(train.classes),
        n_train=len(train.labels),
        n_test=len(test.labels),
        accuracies=accuracies,
        best=tuple(outcome["best"] for outcome in outcomes),
        curves=tuple(curves) if all(curves) else (),
        learnt=tuple(outcome["learnt"] for outcome in outcomes),
        chance=outcomes[0]["chance"],
        mean=statistics.fmean(accuracies),
        std=statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
        seconds=sum(outcome["seconds"] for outcome in outcomes),
        device=device_class(students.place),
        precision=students.plan.precision,
        labels=None if students.soft is None else students.soft.record(),
    )


def labelling(train: LabelledImages, recipe: Recipe, teacher: nn.Module, device: str) -> tuple[Labelling, DeviceImages]:
    """What the stored labels of a set depend on, and its images on the device, ready to be labelled."""
    students = Students(train, train, recipe, "any", device, teacher)
    assert students.soft is not None
    assert students.soft.labelling is not None
    return students.soft.labelling, students.labelled


@dataclass(frozen=True, eq=False)
class Students:
    """Networks of one kind that learn from one set by a recipe and are tested on another, one for each training seed.

    The sets go to the device when the first unfinished seed asks for them.
    """

    train: LabelledImages
    """The images that they learn from."""
    test: LabelledImages
    """The images that they are tested on."""
    recipe: Recipe
    """How they are trained and tested."""
    network: str
    """Which network they are (`attar list networks`)."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    teacher: nn.Module | None = None
    """Gives soft labels, one logit for each class, for images of the recipe's size, normalised as the recipe says; with
    a fixed scheme, for those of attar.teachers.soft_labels.whole_images."""
    labels: StoredLabels | None = None
    """Soft labels that are stored for this set and recipe; none: a recipe that stores labels makes them first."""
    store: Store | None = None
    """Keeps the outcome of each seed, and the labels that are made; none: nothing is kept."""

    def inputs(self, seeds: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Checks everything; for each seed, what its outcome depends on.

        Raises:
            AttarError: sets that do not fit each other, an unknown network or one that cannot take the images, a
                missing teacher, labels of something else, or a bad field of the recipe.
        """
        if not seeds:
            raise AttarError("no seeds: give at least one")
        check_sets(self.train, self.test)
        check(self.network)
        if self.recipe.compile:
            check_compiler(self.place)
        check_size(self.network, len(self.train.classes), self.augmentation.size)
        about: dict[str, Any] = {"network": self.network, "train": self.train.identity, "test": self.test.identity}
        about |= {"revision": REVISION, "recipe": replace(self.recipe, name="", source=""), "plan": self.plan}
        about |= {"labels": self.soft and self.soft.identity}
        about |= {"device": device_class(self.place), "torch": torch.__version__}
        about |= arithmetic(self.augmentation, self.place)
        about |= {library: version(library) for library in ("torchvision", "timm")}
        return {seed: {**about, "seed": seed} for seed in seeds}

    def trainings(self, seeds: Sequence[int]) -> dict[str, Artefact]:
        """What there is to train, by its key; nothing is trained. Raises as `inputs`."""
        artefacts = (Artefact("evaluation", about) for about in self.inputs(seeds).values())
        return {artefact.key: artefact for artefact in artefacts}

    @cached_property
    def _placed(self) -> tuple[torch.device, Precision]:
        return resolve_precision(self.device, self.recipe.precision)

    @property
    def place(self) -> torch.device:
        """The device that they are trained on."""
        return self._placed[0]

    @cached_property
    def _planned(self) -> tuple[Plan, Augmentation]:
        return training_plan(self.recipe, self.train, self.network, self._placed[1])

    @property
    def plan(self) -> Plan:
        """How they are trained, in numbers."""
        return self._planned[0]

    @property
    def augmentation(self) -> Augmentation:
        """What happens to the images that they learn from."""
        return self._planned[1]

    @cached_property
    def labeller(self) -> nn.Module | None:
        """The teacher on the device, where the recipe asks one."""
        return None if self.recipe.labels == "hard" or self.teacher is None else self.teacher.to(self.place).eval()

    @cached_property
    def views(self) -> Views | None:
        return views_of(self.recipe, self.plan, self.augmentation, len(self.train.labels))

    @cached_property
    def soft(self) -> SoftLabels | None:
        if self.recipe.labels == "hard":
            return None
        images, classes = self.train.whole if self.recipe.fixed else self.train, len(self.train.classes)
        views = whole_views(images, self.labeller, self.labels) if self.recipe.fixed else self.views
        half = not self.recipe.fixed and self.plan.precision in HALF
        precision = self.plan.precision if half else "float32"
        made = self.labeller, self.labels, self.store
        return SoftLabels(self.recipe, views, images.digest, classes, *made, precision)

    @property
    def labelled(self) -> DeviceImages:
        """What a teacher labels ahead, on the device."""
        if not self.recipe.fixed:
            return self.pictures
        assert self.soft is not None
        assert self.soft.views is not None
        return placed(resized(self.train.whole.images, self.soft.views.how.size), self.place)

    @cached_property
    def pictures(self) -> DeviceImages:
        """What is augmented, on the device."""
        pixels, recipe = self.train.images, self.recipe
        if recipe.resize_first or recipe.crop is None:
            pixels = resized(pixels, self.augmentation.size)
        return pixels.to(self.place) if isinstance(pixels, Native) else placed(pixels, self.place)

    @cached_property
    def train_labels(self) -> Tensor:
        return self._labels(self.train)

    @cached_property
    def weights(self) -> Tensor | None:
        """What each image weighs, on the device."""
        weights = self.train.weights
        return None if weights is None else torch.tensor(weights.astype(np.float32), device=self.place)

    @cached_property
    def tests(self) -> tuple[DeviceImages, Tensor]:
        size = self.augmentation.size
        pixels = resized(self.test.images, size, self.recipe.shorter_side(size))
        return placed(pixels, self.place), self._labels(self.test)

    def _labels(self, images: LabelledImages) -> Tensor:
        return torch.tensor(images.labels.astype(np.int64), device=self.place)

    def outcome(self, seed: int, about: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """What the student of one seed comes to; `about` is what that depends on."""
        if self.store is None:
            return self.run(seed, progress)
        make = partial(self._write_outcome, seed, progress)
        path = self.store.once(Artefact("evaluation", about), make) / "outcome.json"
        outcome: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return outcome

    def _write_outcome(self, seed: int, progress: Progress, scratch: Path) -> None:
        write_json(scratch / "outcome.json", self.run(seed, progress))

    def run(self, seed: int, progress: Progress) -> dict[str, Any]:
        """Trains and tests the network of one seed."""
        begun = time.monotonic()
        images = self.pictures
        student = build(self.network, len(self.train.classes), self.augmentation.size, seed_of(seed, "network"))
        student = student.to(self.place).to(memory_format=torch.channels_last)
        if self.recipe.compile:
            compile_network(student)
        every, first = _interval(self.recipe.test_every, self.plan), self.untested
        tests: list[tuple[int, float]] = []
        tally, fit = Tally(progress, "epoch" if self.plan.steps is None else "step"), TrainAccuracy()

        def after(step: Step) -> None:
            tally.add(step)
            fit.add(step)
            due = every is not None and step.epoch % every == 0 and step.epoch > first
            if step.last and (step.epoch == step.epochs or due):
                progress(f"{tally.text}; testing", step.done / step.total)
                tests.append((step.epoch, self._test(student)))
                note(step.done, test_accuracy=tests[-1][1])

        labels, supervision = self._taught(progress)
        tf32 = self.plan.precision == "tf32"
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32):
            train(student, images, labels, self.plan, self.augmentation, seed, supervision=supervision, after=after)
        learnt = {"learnt": fit.share, "chance": fit.chance(self.largest)}
        accuracies = {
            "accuracy": tests[-1][1],
            "best": max(accuracy for _, accuracy in tests),
            "curve": tests[:-1] and tests,
        }
        return {**accuracies, **learnt, "seconds": time.monotonic() - begun}

    def _taught(self, progress: Progress) -> tuple[Tensor, Supervision]:
        """The labels of the images, and what takes their place."""
        plain = Supervision(self.views, weights=self.weights)
        if self.soft is None:
            return self.train_labels, plain
        stored = self.soft.stored(lambda: self.labelled, self.place, progress)
        if stored is not None and self.recipe.fixed:
            return self.soft.of_images(stored).to(self.place), plain
        return self.train_labels, replace(plain, teacher=self.labeller if stored is None else None, labelled=stored)

    @property
    def largest(self) -> float:
        """The share of the class that has most of the training images."""
        return float(np.bincount(self.train.labels).max() / len(self.train.labels))

    @property
    def untested(self) -> float:
        """The epoch, or step, up to which there is no test."""
        first = number_by_ipc(self.recipe.test_from, len(self.train.labels) / len(self.train.classes), "test_from")
        return first * (self.plan.steps or self.plan.epochs or 0) if first < 1 else first

    def _test(self, student: nn.Module) -> float:
        images, labels = self.tests
        return top1(student, images, labels, self.recipe.normalise, precision=self.plan.precision)


def _seed_progress(progress: Progress, title: str, index: int, count: int, text: str, fraction: float) -> None:
    progress(f"{title}: {text}", (index + fraction) / count)


def _interval(every: int | str | None, plan: Plan) -> int | None:
    """How many epochs, or steps, lie between two tests."""
    if every is None:
        return None
    share, is_share, _ = str(every).partition("%")
    return max(1, (plan.steps or plan.epochs or 1) * int(share) // 100) if is_share else int(share)


def training_plan(
    recipe: Recipe, train: LabelledImages, network: str, precision: Precision = "float32"
) -> tuple[Plan, Augmentation]:
    """The recipe's tables and rules as numbers, for this set and network."""
    classes, own_size = len(train.classes), train.side
    ipc = len(train.labels) / classes
    size = recipe.size or own_size
    if size > 4 * own_size:
        small = f"{recipe.name.removesuffix(MODIFIED)}-cifar"
        hint = f"the recipe {small}, or " if small in RECIPES else ""
        raise AttarError(f"recipe {recipe.name} enlarges {own_size}-pixel images to {size}: use {hint}another `size`")
    if (recipe.epochs is None) == (recipe.steps is None):
        raise AttarError(f"recipe {recipe.name}: give one of `epochs` and `steps`, and none for the other")
    epochs = None if recipe.epochs is None else by_ipc(recipe.epochs, ipc, "epochs")
    batch = by_ipc(recipe.batch, ipc, "batch") * (2 if classes in recipe.batch_doubled_at else 1)
    lr, weight_decay = by_network(recipe.lr, network, "lr"), recipe.weight_decay
    if recipe.many_classes == "idc" and classes > 100:
        batch, lr, weight_decay = max(batch, 128), 0.1, 1e-4
    if recipe.many_classes == "idc" and classes == 100 and epochs is not None:
        epochs = max(2 * epochs // 300, 1) * 100
    plan = Plan(
        epochs=epochs,
        steps=recipe.steps,
        batch=batch,
        accumulate=recipe.accumulate,
        optimiser=recipe.optimiser,
        lr=lr,
        momentum=recipe.momentum,
        weight_decay=weight_decay,
        decay_vectors=recipe.decay_vectors,
        schedule=recipe.schedule,
        warmup=min(recipe.warmup, (recipe.steps or epochs or 0) // 4),
        temperature=recipe.temperature if recipe.labels == "soft" and not recipe.fixed else None,
        extra_forward=recipe.extra_forward,
        precision=precision,
    )
    return plan, _augmentation(recipe, size)


def _augmentation(recipe: Recipe, size: int) -> Augmentation:
    """What the recipe does to training images, at `size` pixels."""
    if recipe.shuffle > size:
        raise AttarError(f"recipe {recipe.name}: `shuffle` {recipe.shuffle}: images of {size} pixels have no more rows")
    return Augmentation(
        size=size,
        shuffle=recipe.shuffle,
        crop=recipe.crop,
        flip=recipe.flip,
        jitter=recipe.jitter,
        lighting=recipe.lighting,
        normalise=recipe.normalise,
        dsa=recipe.dsa,
        mix=recipe.mix,
        mix_probability=recipe.mix_probability,
        mix_alpha=recipe.mix_alpha,
    )
