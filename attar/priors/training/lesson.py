"""What a prior's samples teach, beside random real images: a linear classifier learns from either, in seconds.

It sees images as networks of random weights do (attar/networks/random_features.py), and held-out images say what it has
learnt. Samples that teach it less than random images taught networks less, too (docs/results.md); it may like samples
that networks do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attar.core.progress import timed
from attar.core.rng import numpy_generator, seed_of
from attar.data import ImageSet, at_side, load_pixels
from attar.networks.random_features import BATCH, RandomFeatures, scores

LEAST, SIDE = 8, 64
"""Side of the images, in pixels: smaller ones are enlarged, larger ones reduced."""
MOST = 1000
"""Images that are learnt from, and images that are tested, at most."""
ROUNDS = 2
"""Networks of random weights."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """Held-out real images, as the networks of random weights see them."""

    seen: tuple[RandomFeatures, ...]
    labels: Tensor
    """Their classes (M,)."""
    classes: int

    def __call__(self, pixels: Tensor, labels: Tensor) -> float:
        """Per cent of them that are right after learning from images (N, S, S, 3), uint8, with labels (N,)."""
        images, known = at_side(pixels[:MOST].numpy(), _side(pixels.shape[1])), labels[:MOST]
        right = [scores(seen.of(images), known, seen.rows, self.classes).argmax(1) == self.labels for seen in self.seen]
        return round(100 * float(torch.stack(right).double().mean()), 2)


def open_lesson(held: ImageSet, size: int, preprocess: str) -> Lesson | None:
    """The lesson of a data set's held-out images, for a prior of `size` pixels; None where there is nothing to tell."""
    if len(held.classes) < 2 or len(held) < 2:
        return None
    chosen = numpy_generator("lesson", "tested").permutation(len(held))[:MOST]
    images = at_side(load_pixels(held, chosen, size, preprocess), _side(size))
    seen = tuple(RandomFeatures(images, seed_of("lesson", number)) for number in range(ROUNDS))
    return Lesson(seen, torch.from_numpy(held.labels[chosen].copy()), len(held.classes))


def lesson_seconds(held: ImageSet, size: int, samples: int, times: int) -> float:
    """Seconds to open the lesson and to learn `times` from samples and once from real images: one call is timed."""
    if len(held.classes) < 2 or len(held) < 2:
        return 0.0
    some = np.zeros((BATCH, _side(size), _side(size), 3), np.uint8)
    seen = RandomFeatures(some, seed_of("lesson", 0))
    shown = min(len(held), MOST) + (1 + times) * min(samples, MOST)
    return ROUNDS * shown / BATCH * timed(lambda: seen.of(some))


def random_real(images: ImageSet, count: int, size: int, preprocess: str) -> tuple[Tensor, Tensor]:
    """`count` random images (N, S, S, 3), uint8, and their labels (N,), spread evenly over the classes."""
    count, classes = min(count, MOST), len(images.classes)
    chosen = []
    for label in range(classes):
        order = numpy_generator("lesson", "real", images.classes[label]).permutation(images.of_class(label))
        chosen.append(order[: len(range(label, count, classes))])
    places = np.concatenate(chosen)
    pixels = torch.from_numpy(load_pixels(images, places, size, preprocess))
    return pixels, torch.from_numpy(images.labels[places].copy())


def _side(size: int) -> int:
    return max(LEAST, min(size, SIDE))
