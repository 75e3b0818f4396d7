"""Trains networks on one set, tests them on another: one resumable item for each seed."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attar.core.batching import device_class
from attar.core.config import by_ipc, by_network, number_by_ipc
from attar.core.errors import AttarError
from attar.core.finite import naming
from attar.core.progress import Progress, silent
from attar.core.rng import seed_of
from attar.core.store import Artefact, Store, write_json
from attar.evaluation.images import Images, check_sets, resized
from attar.evaluation.labels import SoftLabels, views_of
from attar.evaluation.native import Native
from attar.evaluation.precision import resolve_precision
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import MODIFIED, RECIPES
from attar.evaluation.records import Result
from attar.networks import build, check, check_size
from attar.teachers.soft_labels import Labelling, StoredLabels, Views
from attar.training import Pictures, Plan, Precision, Step, top1, train
from attar.training.augment import Augmentation
from attar.training.tally import Fit, Tally

__all__ = ["Images", "evaluate", "training_plan"]

REVISION = 4
"""Part of every item's key: raise it when a change of the code changes what a recipe measures."""


def evaluate(
    train: Images,
    test: Images,
    *,
    recipe: Recipe,
    network: str,
    seeds: Sequence[int],
    device: str = "auto",
    store: Store | None = None,
    progress: Progress | None = None,
    teacher: nn.Module | None = None,
    labels: StoredLabels | None = None,
) -> Result:
    """Trains one network for each seed on `train` by the recipe and tests it on `test`.

    With a store, a finished seed is never trained again. Recipes with soft labels need a teacher, which takes images of
    the recipe's size, normalised as the recipe says, and gives one logit for each class; or `labels`, stored for this
    set and recipe. Where the recipe stores labels and none are given, they are made first.

    Raises:
        AttarError: sets that do not fit each other, an unknown network or one that cannot take the images, a missing
            teacher, labels of something else, or a bad field of the recipe; before any training.
        NotFinite: a training diverged; nothing of it is kept.
    """
    job, items = _checked(train, test, recipe, network, seeds, device, store, teacher, labels)
    outcomes = []
    for i, (seed, about) in enumerate(items.items()):
        title = f"{network}, {recipe.name}, seed {seed}"
        told = partial(_told, progress or silent, title, i, len(items))
        with naming(title):
            outcomes.append(_outcome(job, seed, about, store, told))
    return _result(job, outcomes)


def _result(job: _Job, outcomes: Sequence[dict[str, float]]) -> Result:
    """The outcomes of all seeds as one result."""
    accuracies = tuple(outcome["accuracy"] for outcome in outcomes)
    train, test = job.train, job.test
    return Result(
        recipe=job.recipe.name,
        network=job.network,
        ipc=len(train.labels) / len(train.classes),
        n_train=len(train.labels),
        n_test=len(test.labels),
        accuracies=accuracies,
        best=tuple(outcome["best"] for outcome in outcomes),
        learnt=tuple(outcome["learnt"] for outcome in outcomes),
        chance=outcomes[0]["chance"],
        mean=statistics.fmean(accuracies),
        std=statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
        seconds=sum(outcome["seconds"] for outcome in outcomes),
        device=device_class(job.device),
        precision=job.plan.precision,
        labels=None if job.soft is None else job.soft.record(),
    )


def trainings(
    train: Images,
    test: Images,
    *,
    recipe: Recipe,
    network: str,
    seeds: Sequence[int],
    device: str = "auto",
    store: Store | None = None,
    teacher: nn.Module | None = None,
    labels: StoredLabels | None = None,
) -> dict[str, Artefact]:
    """What `evaluate` would train, one artefact for each seed, by its key; nothing is trained.

    Raises:
        AttarError: as `evaluate` does before any training.
    """
    _, items = _checked(train, test, recipe, network, seeds, device, store, teacher, labels)
    wanted = (Artefact("evaluation", about) for about in items.values())
    return {artefact.key: artefact for artefact in wanted}


def _checked(
    train: Images,
    test: Images,
    recipe: Recipe,
    network: str,
    seeds: Sequence[int],
    device: str,
    store: Store | None,
    teacher: nn.Module | None,
    labels: StoredLabels | None,
) -> tuple[_Job, dict[int, dict[str, Any]]]:
    """What the seeds share, and what the outcome of each depends on."""
    place, precision = resolve_precision(device, recipe.precision)
    if not seeds:
        raise AttarError("no seeds: give at least one")
    check_sets(train, test)
    check(network)
    plan, augmentation = training_plan(recipe, train, network, precision)
    check_size(network, len(train.classes), augmentation.size)
    teacher = None if recipe.labels == "hard" or teacher is None else teacher.to(place).eval()
    job = _Job(train, test, recipe, network, plan, augmentation, place, teacher, labels, store)
    about = {"network": network, "train": train.identity, "test": test.identity, "revision": REVISION}
    about |= {"recipe": replace(recipe, name="", source=""), "plan": plan, "labels": job.soft and job.soft.identity}
    about |= {"device": device_class(place), "torch": torch.__version__}
    about |= {library: version(library) for library in ("torchvision", "timm")}
    return job, {seed: {**about, "seed": seed} for seed in seeds}


def labelling(train: Images, recipe: Recipe, teacher: nn.Module, device: str) -> tuple[Labelling, Pictures]:
    """What the stored labels of a set depend on, and its images on the device, ready to be labelled."""
    place, _ = resolve_precision(device, recipe.precision)
    plan, augmentation = training_plan(recipe, train, "any")
    job = _Job(train, train, recipe, "any", plan, augmentation, place, teacher.to(place).eval(), None, None)
    assert job.soft is not None
    assert job.soft.labelling is not None
    return job.soft.labelling, job.pictures


def training_plan(
    recipe: Recipe, train: Images, network: str, precision: Precision = "float32"
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
        temperature=recipe.temperature if recipe.labels == "soft" else None,
        extra_forward=recipe.extra_forward,
        precision=precision,
    )
    return plan, _augmentation(recipe, size)


def _augmentation(recipe: Recipe, size: int) -> Augmentation:
    """What the recipe does to training images, at `size` pixels."""
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


@dataclass(frozen=True, eq=False)
class _Job:
    """What the seeds share; the sets go to the device when the first unfinished seed asks for them."""

    train: Images
    test: Images
    recipe: Recipe
    network: str
    plan: Plan
    augmentation: Augmentation
    device: torch.device
    teacher: nn.Module | None
    labels: StoredLabels | None
    store: Store | None

    @cached_property
    def views(self) -> Views | None:
        return views_of(self.recipe, self.plan, self.augmentation, len(self.train.labels))

    @cached_property
    def soft(self) -> SoftLabels | None:
        if self.recipe.labels == "hard":
            return None
        digest, classes = self.train.digest, len(self.train.classes)
        return SoftLabels(self.recipe, self.views, digest, classes, self.teacher, self.labels, self.store)

    @cached_property
    def pictures(self) -> Pictures:
        """What is augmented, on the device."""
        pixels, recipe = self.train.pictures, self.recipe
        if recipe.resize_first or recipe.crop is None:
            pixels = resized(pixels, self.augmentation.size)
        return pixels.to(self.device) if isinstance(pixels, Native) else self._tensor(pixels)

    @cached_property
    def train_labels(self) -> Tensor:
        return self._tensor(self.train.labels.astype(np.int64))

    @cached_property
    def test_tensors(self) -> tuple[Tensor, Tensor]:
        size = self.augmentation.size
        pixels = resized(self.test.pictures, size, self.recipe.shorter_side(size))
        return self._tensor(pixels), self._tensor(self.test.labels.astype(np.int64))

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.tensor(np.ascontiguousarray(values), device=self.device)

    def run(self, seed: int, told: Callable[[str, float], None]) -> dict[str, float]:
        """Trains and tests the network of one seed."""
        begun = time.monotonic()
        images, labels = self.pictures, self.train_labels
        student = build(self.network, len(self.train.classes), self.augmentation.size, seed_of(seed, "network"))
        student = student.to(self.device).to(memory_format=torch.channels_last)
        every, first = _interval(self.recipe.test_every, self.plan), self.untested
        tests: list[float] = []
        tally, fit = Tally(told, "epoch" if self.plan.steps is None else "step"), Fit()

        def after(step: Step) -> None:
            tally.add(step)
            fit.add(step)
            due = every is not None and step.epoch % every == 0 and step.epoch > first
            if step.last and (step.epoch == step.epochs or due):
                told(f"{tally.text}; testing", step.done / step.total)
                tests.append(self._test(student))

        how = (self.plan, self.augmentation)
        stored = None if self.soft is None else self.soft.stored(images, told)
        taught: dict[str, Any] = {"teacher": self.teacher} if stored is None else {"labelled": stored}
        tf32 = self.plan.precision == "tf32"
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32):
            train(student, images, labels, *how, seed, views=self.views, **taught, after=after)
        learnt = {"learnt": fit.share, "chance": fit.chance(self.largest)}
        return {"accuracy": tests[-1], "best": max(tests), **learnt, "seconds": time.monotonic() - begun}

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
        images, labels = self.test_tensors
        return top1(student, images, labels, self.recipe.normalise, precision=self.plan.precision)


def _outcome(
    job: _Job, seed: int, about: dict[str, Any], store: Store | None, told: Callable[[str, float], None]
) -> dict[str, float]:
    if store is None:
        return job.run(seed, told)
    make = partial(_write_outcome, job, seed, told)
    path = store.once(Artefact("evaluation", about), make) / "outcome.json"
    outcome: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return outcome


def _write_outcome(job: _Job, seed: int, told: Callable[[str, float], None], scratch: Path) -> None:
    write_json(scratch / "outcome.json", job.run(seed, told))


def _told(progress: Progress, title: str, index: int, count: int, text: str, fraction: float) -> None:
    progress(f"{title}: {text}", (index + fraction) / count)


def _interval(every: int | str | None, plan: Plan) -> int | None:
    """How many epochs lie between two tests."""
    if every is None:
        return None
    share, is_share, _ = str(every).partition("%")
    return max(1, (plan.steps or plan.epochs or 1) * int(share) // 100) if is_share else int(share)
