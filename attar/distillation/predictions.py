"""What a teacher makes of a set's images and of those that were made again: how far apart its predictions are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from attar.core.batching import in_batches
from attar.data import preprocess
from attar.job import Job
from attar.priors.codec import to_float
from attar.sets.distilled import DistilledSet
from attar.teachers.features import BATCH
from attar.teachers.teacher import SingleTeacher


@dataclass(frozen=True)
class Predictions:
    """What a teacher makes of images before and now; of the parts of those that are mosaics."""

    images: int
    """How many it was shown of each set."""
    alike: int
    """How many it gives the same class in both."""
    apart: float
    """Mean distance of its probabilities, half the sum of their differences: 0 to 1."""

    def __str__(self) -> str:
        return (
            f"the teacher gives {self.alike} of {self.images:,} of these the same class, its probabilities "
            f"{self.apart:.2g} apart on average"
        )


def predictions_apart(
    job: Job, teacher: SingleTeacher, before: DistilledSet, now: DistilledSet, names: Collection[str]
) -> Predictions:
    """A teacher's predictions for the images of these names in two sets, compared."""
    first, second = (_probabilities(job, teacher, distilled, names) for distilled in (before, now))
    same = (first.argmax(1) == second.argmax(1)).sum()
    return Predictions(len(first), int(same), float(0.5 * (first - second).abs().sum(1).mean()))


@torch.inference_mode()
def _probabilities(job: Job, teacher: SingleTeacher, distilled: DistilledSet, names: Collection[str]) -> Tensor:
    """(n, classes), on the CPU."""
    files = {distilled.folder / name for name in names}
    pictures = [picture for picture in chain.from_iterable(distilled.pictures()) if picture.file in files]
    pixels = np.stack([preprocess(picture.read(), teacher.side, job.spec.preprocess) for picture in pictures])
    views = to_float(pixels).to(teacher.columns.device)
    return in_batches(teacher, BATCH, views).float().softmax(1).cpu()
