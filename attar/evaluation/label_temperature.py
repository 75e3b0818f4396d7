"""At which temperature a set's fixed labels are best learnt from, or whether they are best left out: a short trial.

A narrow ConvNet learns from the set a few times, from its classes alone and from its labels at a few temperatures, and
is tested on the held-out tenth of the data, which the teacher has not seen either. No test image is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from attar.core.progress import Progress
from attar.core.rng import numpy_generator
from attar.core.store import Store
from attar.core.wording import counted
from attar.data import load_held_out
from attar.data.degenerate import ACCIDENT
from attar.evaluation.evaluator import Students, evaluate
from attar.evaluation.labelled_images import LabelledImages
from attar.evaluation.load_images import all_images, images_of_set
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import modified, named_recipe
from attar.evaluation.suited import SIDE, side_of
from attar.networks import suited_convnet
from attar.sets.distilled import DistilledSet
from attar.sets.source_data import without_unreadable
from attar.teachers.label_schemes import LEFT_OUT
from attar.teachers.soft_labels import StoredLabels

Temperature = float | Literal["none"]
"""A number, or `none`: the labels are best left out, and the classes learnt alone."""
TEMPERATURES: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
"""What is tried beside the classes alone."""
STEPS = 200
"""Of each training, in batches of 64."""
SEEDS = (0, 1)
"""Of the trainings."""
TESTED = 1000
"""Images of the held-out tenth that are looked at, at most."""

FORETOLD = "; then short trainings choose their temperature"
"""What a forecast of labels says of the trial."""


@dataclass(frozen=True)
class TemperatureChoice:
    """What was chosen, and what it was chosen by."""

    temperature: Temperature
    """The best of what was tried; of equals, the first, and the classes alone before all."""
    tried: dict[str, dict[str, float]]
    """Of each, by its name: mean and deviation ("mean", "std") of the images that are right, in per cent."""
    how: str
    """Which trainings these were, in words."""

    @property
    def words(self) -> str:
        """What was chosen and why, in a line."""
        each = ", ".join(f"{name} {of['mean']:.1f} ± {of['std']:.1f}" for name, of in self.tried.items())
        chosen = "left out" if self.temperature == LEFT_OUT else f"at temperature {self.temperature:g}"
        return f"labels are best {chosen}: {each} % right ({self.how})"


def chosen_temperature(
    distilled: DistilledSet, labels: Path, device: str, store: Store, progress: Progress
) -> TemperatureChoice:
    """Tries the fixed labels in a folder, which are of this set, on the held-out tenth of the set's data.

    Each training is kept in the store. Images are not flipped, since a flip changes what some of them show; those
    larger than 64 pixels are seen at that size.

    Raises:
        AttarError: the data is not at hand, or lacks classes of the set.
    """
    stored, side = StoredLabels(labels), side_of(distilled)
    sized = {"size": SIDE, "resize_first": True} if side > SIDE else {}
    recipe = named_recipe("quick", {"steps": STEPS, "flip": False, **sized})
    train = images_of_set(distilled, recipe)
    tests, source = _held_out(distilled, recipe.size or train.side, store)
    network = f"{suited_convnet(recipe.size or train.side)}-w32"
    tried, recipes = dict[str, dict[str, float]](), dict(_recipes(recipe, stored))
    for number, (name, own) in enumerate(recipes.items()):
        given = stored if own.fixed else None
        students = Students(train, tests, own, network, device, labels=given, store=store)
        shown = partial(_shown, progress, number, len(recipes))
        result = evaluate(students, SEEDS, shown)
        tried[name] = {"mean": result.mean, "std": result.std}
    best = max(tried, key=lambda name: tried[name]["mean"])
    seeds = counted(len(SEEDS), "seed")
    how = f"{network}, {STEPS} steps of quick without flips, {seeds}, {counted(len(tests.labels), 'image')} of {source}"
    temperature: Temperature = LEFT_OUT if best == LEFT_OUT else float(best)
    return TemperatureChoice(temperature, tried, how)


def _recipes(recipe: Recipe, stored: StoredLabels) -> Iterator[tuple[str, Recipe]]:
    """How each is learnt from, by its name."""
    yield LEFT_OUT, recipe
    for temperature in TEMPERATURES:
        fixed: dict[str, Any] = {"scheme": stored.scheme.fixed_name, "temperature": temperature}
        yield f"{temperature:g}", modified(recipe, fixed)


def _held_out(distilled: DistilledSet, side: int, store: Store) -> tuple[LabelledImages, str]:
    """Some images of the held-out tenth, and what they are in words."""
    data = distilled.manifest["data"]
    picked = load_held_out(data["spec"]).restricted(distilled.classes)
    images = without_unreadable(picked, distilled, store, accident=ACCIDENT)
    every = all_images(images, side, "resize-crop", store)
    rows = numpy_generator("label temperature").permutation(len(every.labels))[:TESTED]
    among = "" if data.get("hold_out") else ", which images of the set may be among"
    chosen = replace(every, images=every.pixels[rows], labels=every.labels[rows])
    return chosen, f"the held-out tenth of {data['spec']}{among}"


def _shown(progress: Progress, number: int, count: int, text: str, fraction: float) -> None:
    progress(f"labelling: trying temperatures: {text}", (number + fraction) / count)
