"""What trainings take on this device: a few steps of them are timed, and what they keep in memory is counted."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from attar.core.progress import about, timed_on
from attar.core.wording import counted, size
from attar.evaluation.conditions import Conditions
from attar.evaluation.evaluator import training_plan
from attar.evaluation.labelled_images import LabelledImages
from attar.evaluation.precision import resolve_precision
from attar.evaluation.recipe import Recipe
from attar.evaluation.suited import side_of
from attar.networks import build, check_size
from attar.sets.distilled import DistilledSet, check_undamaged
from attar.sets.source_data import view_tested_on
from attar.training import Precision, autocast, memory_kept
from attar.training.augment import Augmentation, apply, draw
from attar.training.memory import COPIES, ON_THE_WAY, kept_for_gradient

PIXELS = 1 << 16
"""A step is timed on images of about so many pixels on a CPU, which they fill: 64 of 32 pixels."""
FEW = 100
"""Test images below which their choice alone makes accuracies uncertain by 10 % and more."""


@dataclass(frozen=True)
class TrainingCost:
    """What the training of one network takes."""

    seconds: float
    """With one test; a teacher's work is left out."""
    memory: int
    """Bytes on the device, about: the network, a batch on its way through it, the images."""
    tested: int
    """Test images."""


def expected(distilled: DistilledSet, recipe: Recipe, network: str, tested: int, device: str) -> TrainingCost:
    """About what one training on a set takes, with a test on `tested` images.

    Raises:
        AttarError: the recipe or the network does not fit the images, or these are not there.
    """
    own = side_of(distilled)
    if not own:
        check_undamaged(distilled)
    side = recipe.size or own
    classes, ipc = len(distilled.classes), distilled.manifest["ipc"] * distilled.formation**2
    check_size(network, classes, side)
    seconds = training_seconds(recipe, network, classes, ipc, side, tested, device)
    plan, _ = training_plan(recipe, _stand_in(classes, ipc, side), network)
    at_once = min(max(1, plan.batch // plan.accumulate), classes * ipc)
    weights, kept = _bytes(network, classes, side)
    images = (classes * ipc + tested) * 3 * side**2
    return TrainingCost(seconds, COPIES * weights + ON_THE_WAY * at_once * kept + images, tested)


def evaluation_forecast(sets: Sequence[DistilledSet], recipe: Recipe, conditions: Conditions) -> str:
    """How many trainings there are at most to evaluate some sets, and what they take, in words.

    Raises:
        AttarError: no image of a set can be opened, the recipe or a network does not fit them, or the test images are
            not there.
    """
    conditions.check(recipe)
    costs = list[TrainingCost]()
    for distilled in sets:
        tested = len(view_tested_on(distilled, conditions.test))
        costs += [expected(distilled, recipe, network, tested, conditions.device) for network in conditions.networks]
    costs *= len(conditions.seeds) * (2 if conditions.baseline else 1)
    trainings = counted(len(costs), "training")
    return f"{trainings} at most, {cost_in_words(recipe, costs)}; what is in the cache is not done again"


def cost_in_words(recipe: Recipe, costs: Sequence[TrainingCost]) -> str:
    """What some trainings take together, and what of it is not counted."""
    uncounted = ["without tests before the last"] if recipe.test_every is not None else []
    uncounted += ["without the teacher's work"] if recipe.labels == "soft" else []
    memory = f"in about {size(max(cost.memory for cost in costs))} of memory"
    tested = min(cost.tested for cost in costs)
    few = (
        [f"on {tested} test images only: ± {98 / math.sqrt(tested):.0f} points by their choice alone"]
        if tested < FEW
        else []
    )
    return ", ".join([about(sum(cost.seconds for cost in costs)), *uncounted, memory, *few])


def training_seconds(
    recipe: Recipe, network: str, classes: int, ipc: int, side: int, tested: int, device: str
) -> float:
    """Seconds of training a network by a recipe and testing it once on `tested` images; a teacher's are left out.

    Args:
        side: of the set's images, in pixels.

    Raises:
        AttarError: the recipe does not fit the images.
    """
    place, precision = resolve_precision(device, recipe.precision)
    n = ipc * classes
    plan, augmentation = training_plan(recipe, _stand_in(classes, ipc, side), network, precision)
    images = plan.steps * plan.batch if plan.steps is not None else (plan.epochs or 0) * n
    full = plan.batch if plan.steps is not None else min(plan.batch, n)
    batch = min(full, PIXELS // augmentation.size**2 if place.type == "cpu" else full)
    forward, both = _pass_seconds(network, classes, augmentation, max(batch, 2), place, precision)
    return images * (both + forward * plan.extra_forward) + tested * forward


def training_kinds(recipe: Recipe, network: str, ipc: int) -> Sequence[Hashable]:
    """What a training on `ipc` images of each class goes as fast as, beside its forecast: others of the same network,
    of a recipe that differs in its length alone, and of as many images; of any number; of any recipe."""
    as_long = replace(recipe, name="", source="", steps=None, epochs=None)
    return (network, as_long, ipc), (network, as_long), network


def _stand_in(classes: int, ipc: int, side: int) -> LabelledImages:
    """A set's numbers without its images."""
    n = ipc * classes
    pixels = np.broadcast_to(np.uint8(0), (n, side, side, 3))
    return LabelledImages(pixels, np.zeros(n, np.int64), tuple(map(str, range(classes))))


@functools.cache
def _pass_seconds(
    network: str, classes: int, how: Augmentation, batch: int, device: torch.device, precision: Precision
) -> tuple[float, float]:
    """Seconds that an image takes in a pass, and in a pass and back with its augmentation."""
    student = build(network, classes, how.size, 0).to(device).to(memory_format=torch.channels_last)
    pixels = torch.zeros(batch, how.size, how.size, 3, dtype=torch.uint8, device=device)
    images = torch.zeros(batch, 3, how.size, how.size, device=device)

    def step() -> None:
        views = apply(pixels, draw(how, batch, "estimate"), how)
        student.zero_grad()
        with autocast(device, precision):
            loss = student(views).float().sum()
        loss.backward()

    def forward() -> None:
        with torch.no_grad(), autocast(device, precision):
            student(images)

    with memory_kept():
        return timed_on(forward, device) / batch, timed_on(step, device) / batch


@functools.cache
def _bytes(network: str, classes: int, size: int) -> tuple[int, int]:
    """Bytes of the weights, and of what is kept of one image for the gradient, in float32."""
    student = build(network, classes, size, 0)
    kept = kept_for_gradient(lambda: student(torch.zeros(2, 3, size, size)), rows=2)
    return sum(p.numel() * p.element_size() for p in student.parameters()), kept
