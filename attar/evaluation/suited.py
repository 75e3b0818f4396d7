"""The size and the network that suit a set's images, where the user named neither recipe nor network."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain

from PIL import Image

from attar.core.progress import Say, quiet
from attar.evaluation.conditions import Conditions
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import modified
from attar.networks import suited_convnet
from attar.sets.distilled import DistilledSet

LOOKED = 99
"""Images that the size is read off, about."""
SIDE = 64
"""Larger images are seen at this size, in pixels, which a CPU trains on in minutes."""
LONG = 3600
"""Seconds of trainings above which it is said what a smaller size would save."""


def suited(
    sets: Sequence[DistilledSet],
    recipe: Recipe,
    conditions: Conditions,
    *,
    any_size: bool,
    any_network: bool,
    say: Say = quiet,
) -> tuple[Recipe, Conditions]:
    """The recipe and the conditions with what suits the images of the largest set; images of 32 pixels change nothing.

    Args:
        any_size: whether the size that networks see may be chosen.
        any_network: whether the network may be.
    """
    largest = max(map(side_of, sets), default=0)
    reduces = any_size and recipe.size is None and largest > SIDE
    if reduces:
        recipe = modified(recipe, {"size": SIDE, "resize_first": True})
    size = recipe.size or largest
    chooses = any_network and size > 32
    if chooses:
        conditions = replace(conditions, networks=(f"{suited_convnet(size)}-w48",))
    if reduces or chooses:
        sees = f"{', '.join(conditions.networks)} see{'s' * (len(conditions.networks) == 1)} them at {size}"
        others = "others with `network`, and" if chooses else "another size with"
        say(f"the set's images have {largest} pixels: {sees}; choose {others} `size=224` of a `recipe`")
    return recipe, conditions


def if_smaller(side: int, seconds: float) -> str:
    """What long trainings on images of this side, in pixels, would take at `SIDE`, in words; nothing of others."""
    if seconds < LONG or side <= SIDE:
        return ""
    takes = f"at `size={SIDE}` of a `recipe` it takes about {(SIDE / side) ** 2:.0%} of it, by another protocol"
    return f"; networks see images of {side} pixels, and {takes}"


def side_of(distilled: DistilledSet) -> int:
    """The median of the shorter sides, in pixels, of some images from all over the set; 0 where none can be opened."""
    sides, files = [], list(chain.from_iterable(distilled.files()))
    for file in files[:: max(1, len(files) // LOOKED)]:
        with suppress(OSError), Image.open(file) as picture:
            sides.append(min(picture.size))
    return int(statistics.median_low(sides)) if sides else 0
