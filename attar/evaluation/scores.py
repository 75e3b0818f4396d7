"""DD-Ranking's scores of a distilled set (Li et al., 2025, arXiv 2505.13300), by its documented formulas.

They are read from the project's documentation (github.com/NUS-HPC-AI-Lab/DD-Ranking, doc/introduction.md). Accuracies
are fractions, from 0 to 1, so that scores lie between 0 and 1. The project's package hands percentages to the same
exponentials (ddranking/metrics: alpha is made of accuracies such as 52.3), which gives a number below 0 or an
astronomic one; its scores and these are not to be compared.
"""

from __future__ import annotations

import math
from dataclasses import replace

from attar.core.errors import AttarError
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import MODIFIED, modified

_NO_AUGMENTATION = {"shuffle": 1, "crop": None, "flip": False, "jitter": 0.0, "lighting": 0.0, "dsa": False}
_HARD = {"labels": "hard", "views": "batch", "box": "image", "scheme": "online", "label_epochs": None}


def recovery(full: float, hard: float) -> float:
    """HLR, hard-label recovery: how far a set falls short of all the data, both with hard labels (lower is better)."""
    return _share(full, "full") - _share(hard, "hard")


def improvement(own: float, random: float) -> float:
    """IOR, improvement over random: a set against as many random real images, both under the set's own protocol."""
    return _share(own, "own") - _share(random, "random")


def label_robust(hlr: float, ior: float, weight: float = 0.5) -> float:
    """LRS, the label-robust score: `normalised_score` of weight * IOR - (1 - weight) * HLR; 0.5: the leaderboard's."""
    return normalised_score(_share(weight, "weight") * ior - (1 - weight) * hlr)


def augmentation_robust(with_augmentation: float, without: float, weight: float = 0.5) -> float:
    """ARS, the augmentation-robust score, of the improvements over random with and without augmentation.

    `normalised_score` of weight * with_augmentation + (1 - weight) * without. 0.5 is the package's default (0.2.0).
    """
    return normalised_score(_share(weight, "weight") * with_augmentation + (1 - weight) * without)


def normalised_score(value: float) -> float:
    """(e^value - e^-1) / (e - e^-1): 0 for -1, 1 for 1; 0.2689 for 0, a set as good as random and as all data."""
    return (math.exp(value) - math.exp(-1)) / (math.e - math.exp(-1))


def hard_label(recipe: Recipe) -> Recipe:
    """The recipe with hard labels and all else as it is."""
    return modified(recipe, _HARD) if recipe.labels == "soft" else recipe


def unaugmented(recipe: Recipe) -> Recipe:
    """The recipe without shuffling, crops, flips, colours, DSA and mixing."""
    return modified(recipe, {**_NO_AUGMENTATION, "mix": "none"})


def on_all_data(recipe: Recipe, epochs: int) -> Recipe:
    """The hard-label recipe for the whole training set: `epochs` in batches of 128, tested at the end.

    A set's own number of steps or epochs would be far too few, or far too many, for all of the data.
    """
    length = {"steps": None, "epochs": epochs, "warmup": 0, "batch": 128, "batch_doubled_at": (), "test_every": None}
    changed = modified(hard_label(recipe), {**length, "many_classes": "as is"})
    return replace(changed, name=changed.name.removesuffix(MODIFIED) + MODIFIED)


def _share(value: float, name: str) -> float:
    if not 0 <= value <= 1:
        raise AttarError(f"{name} = {value}: the scores take fractions, from 0 to 1")
    return value
