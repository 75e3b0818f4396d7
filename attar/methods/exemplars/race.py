"""Whether exemplars are chosen among the typical images of a class or among all: a short race on the data itself.

Some images of each class are left out, both choices are made among the others, and a linear classifier on random
features learns from either: the images left out say which teaches more. No test image is seen. Without a teacher that
says which images are typical, another such classifier does, and the images that it learnt from are not those it judges.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attar.core.progress import Meter
from attar.core.rng import numpy_generator, seed_of
from attar.core.store import Artefact, Store, write_json
from attar.data import load_pixels
from attar.data.pixels import Pixels
from attar.job import Job
from attar.networks.random_features import BATCH, DEPTHS, RIDGE, WIDTH, RandomFeatures, scores, sureness
from attar.selection import Select
from attar.selection.rules import Indices, herding, surest

ROUNDS = 3
"""Networks of random weights."""
SIDE = 64
"""Side of the images, in pixels, at most."""
CLASSES = 20
"""Classes that race, at most."""
LEFT_OUT = 100
"""Images of a class that are left out, at most; of small classes, a third."""
CHOSEN = 100
"""Images of a class that are learnt from, at most."""
POOL = 500
"""Images of a class that are chosen among, at most, where there is no teacher."""
HOW = (ROUNDS, WIDTH, DEPTHS, RIDGE, SIDE, CLASSES, LEFT_OUT, CHOSEN, BATCH)


@dataclass(frozen=True)
class Outcome:
    """What came of a race, in per cent of the images left out."""

    typical: float
    """Right after learning from typical images."""
    all: float
    """Right after learning from images chosen among all."""
    error: float
    """Standard error of the difference."""
    tested: int
    """Images left out; 0 where there are too few images or classes to race."""

    @classmethod
    def of(cls, typical: Tensor, every: Tensor) -> Outcome:
        """That of images of which either learner was right of some, 100, and wrong of others, 0."""
        error = (typical - every).std(correction=0) / len(typical) ** 0.5
        values = [round(float(value), 4) for value in (typical.mean(), every.mean(), error)]
        return cls(values[0], values[1], values[2], len(typical))

    @property
    def words(self) -> str:
        """It in words, and what follows."""
        if self.tested == 0:
            return "too few images or classes for a race: typical ones are chosen"
        told = f"{self.typical:.1f} % of the images left out are right after typical ones, {self.all:.1f} % after any"
        return f"{told}: the choice is among {'the typical ones' if self.typical_wins else 'all'}"

    @property
    def typical_wins(self) -> bool:
        """Whether typical images teach more, beyond the noise: otherwise the wider choice stands."""
        return self.tested == 0 or self.typical - self.all > self.error


def stored_outcome(store: Store, artefact: Artefact, run: Callable[[], Outcome]) -> Outcome:
    """The outcome of a race, run where the store does not have it."""

    def make(scratch: Path) -> None:
        write_json(scratch / "race.json", vars(run()))

    path = store.once(artefact, make) / "race.json"
    return Outcome(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class TypicalRace:
    """Typical images against all, in rounds: each leaves out other images, and has a network of its own."""

    job: Job
    select: Select
    """The choice among the typical ones, whose share it holds. Without a teacher the share alone counts: herding in
    random features stands for any rule."""
    count: int
    """Images of a class that are to be chosen."""

    @property
    def labels(self) -> list[int]:
        """The classes that race."""
        return drawn(self.job.classes)

    @property
    def artefact(self) -> Artefact:
        """Its outcome, as the store has it."""
        return _artefact(self)

    def outcome(self) -> Outcome:
        """What came of it; it is run where the store does not have it."""
        return stored_outcome(self.job.store, self.artefact, self._run)

    def seconds(self) -> float:
        """Seconds that it takes, about: one call of a network, timed, for all images that it is shown."""
        test = LinearTest(np.zeros((BATCH, self.side, self.side, 3), np.uint8), torch.zeros(BATCH), 0)
        among = 0 if self.taught else min(POOL, max(len(self.job.images.of_class(label)) for label in self.labels))
        begun = time.monotonic()
        test.right(np.zeros((BATCH, self.side, self.side, 3), np.uint8), torch.zeros(BATCH, dtype=torch.long))
        shown = ROUNDS * len(self.labels) * (LEFT_OUT + among + 2 * min(self.count, CHOSEN))
        return (time.monotonic() - begun) * shown / BATCH

    @property
    def taught(self) -> bool:
        """Whether a teacher says which images are typical."""
        return self.select.teacher is not None

    @property
    def side(self) -> int:
        """Side of the images, in pixels."""
        return min(self.job.side, SIDE)

    @property
    def _can_be_run(self) -> bool:
        """Whether there are several classes, and images left out whose features have a deviation."""
        return len(self.labels) > 1 and sum(len(self._left_out(label, 0)) for label in self.labels) > 1

    def _run(self) -> Outcome:
        meter = Meter(self.job.progress, "typical images against all", ROUNDS, "rounds")
        typical, every = list[Tensor](), list[Tensor]()
        if not self._can_be_run:
            return Outcome(0.0, 0.0, 0.0, 0)
        for number in range(ROUNDS):
            left_out = {label: self._left_out(label, number) for label in self.labels}
            test = LinearTest(*self._images(left_out), number)
            choices = self._by_teacher(left_out) if self.taught else self._by_sureness(left_out, number)
            for right, chosen in zip((typical, every), choices, strict=True):
                right.append(test.right(*self._images(chosen)))
            meter.add()
        return Outcome.of(torch.cat(typical), torch.cat(every))

    def _left_out(self, label: int, number: int) -> Indices:
        """The places of the class's images that nothing is chosen from in a round."""
        places = order(self.job, label, number)
        return places[: min(LEFT_OUT, len(places) // 3)]

    def _by_teacher(self, left_out: dict[int, Indices]) -> Iterator[dict[int, Indices]]:
        """The places of the images of each class that are chosen among the typical of the others, then among all."""
        for share in (self.select.share, 1.0):
            chosen, select = {}, replace(self.select, share=share)
            for label, places in left_out.items():
                pool = torch.from_numpy(self.job.images.of_class(label))
                count = min(self.count, CHOSEN, len(pool) - len(places))
                chosen[label] = select.of_others(self.job, label, pool, count, places).numpy()
            yield chosen

    def _by_sureness(self, left_out: dict[int, Indices], number: int) -> Iterator[dict[int, Indices]]:
        """The same, those being typical that a linear classifier is surest of."""
        pools = {label: order(self.job, label, number)[len(places) :][:POOL] for label, places in left_out.items()}
        images, labels = self._images(pools)
        rows = RandomFeatures(images, seed_of("race", "sureness", number)).rows
        doubts = -sureness(rows, labels)
        for share in (self.select.share, 1.0):
            chosen = {}
            for place, (label, pool) in enumerate(pools.items()):
                own, count = labels == place, min(self.count, CHOSEN, len(pool))
                among = surest(doubts[own].numpy(), max(count, math.ceil(share * len(pool))))
                chosen[label] = pool[among[herding(rows[own].float().numpy()[among], count)]]
            yield chosen

    def _images(self, places: dict[int, Indices]) -> tuple[Pixels, Tensor]:
        """Images (N, S, S, 3) of the classes that race, and the numbers of the classes among these (N,)."""
        job = self.job
        numbers = [job.images.of_class(label)[chosen] for label, chosen in places.items()]
        labels = np.repeat(np.arange(len(places)), [len(own) for own in numbers])
        pixels = load_pixels(job.images, np.concatenate(numbers), self.side, job.spec.preprocess)
        return pixels, torch.from_numpy(labels)


@lru_cache(maxsize=2)
def _artefact(race: TypicalRace) -> Artefact:
    job, select = race.job, race.select
    pools = {label: torch.from_numpy(job.images.of_class(label)) for label in race.labels}
    needed = select.needed_features(job) if race.taught else []
    known = [of.artefact(job, label, pool) for of in needed for label, pool in pools.items()]
    inputs = {
        "select": select.identity(job) if race.taught else {"share": select.share, "among": POOL},
        "count": race.count,
        "classes": [job.classes[label] for label in race.labels],
        "images": [job.images.identity(label) for label in race.labels],
        "features": known,
        "preprocess": job.spec.preprocess,
        "side": race.side,
        "how": HOW if race._can_be_run else None,
        "machine": job.machine,
    }
    return Artefact("race", inputs)


def drawn(classes: Sequence[str]) -> list[int]:
    """The labels of the classes that race: all, or of many some, drawn by name."""
    by_name = sorted(range(len(classes)), key=lambda label: seed_of("race", classes[label]))
    return sorted(by_name[:CLASSES])


def order(job: Job, label: int, number: int) -> Indices:
    """The places of all of a class's images, in an order of the round's own."""
    size = len(job.images.of_class(label))
    return numpy_generator("race", job.classes[label], number).permutation(size)


class LinearTest:
    """Images left out, and what a linear classifier makes of them."""

    def __init__(self, images: Pixels, labels: Tensor, number: int) -> None:
        self.features, self.labels = RandomFeatures(images, seed_of("race", number)), labels

    def right(self, images: Pixels, labels: Tensor) -> Tensor:
        """100 for each image left out whose class is named after learning from these images, else 0."""
        classes = int(labels.max() + 1)
        named = scores(self.features.of(images), labels, self.features.rows, classes).argmax(1)
        return 100 * (named == self.labels).double()
