"""RDED (Sun et al., "On the Diversity and Realism of Distilled Dataset", CVPR 2024, arXiv 2312.03526); no prior.

Random crops of each image are scored by a teacher, and the most realistic one is kept (`prepare`); the best of these
are stitched together (`images`). The third part, soft labels by the same teacher, is the recipe rded-soft.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
import PIL
import torch
from torch import Tensor

from attar.core.errors import AttarError
from attar.core.progress import duration
from attar.core.wording import counted
from attar.evaluation.labelled_images import resized
from attar.job import Job
from attar.methods.base import Tensors
from attar.methods.rded.crops import cropped, random_squares
from attar.methods.rded.settings import RDEDSettings
from attar.selection import random_order
from attar.selection.features import teacher_for
from attar.teachers.features import features_and_losses
from attar.teachers.teacher import SingleTeacher

BATCH = 64
"""Images that are cropped and scored at a time."""


@dataclass(frozen=True)
class RDED(RDEDSettings):
    """Stitches the crops of real images that a teacher finds most realistic; with the settings of the authors' code.

    Each distilled image is made of crops from all ranks. Evaluate the sets with the recipe rded-soft and the same
    teacher. Where the code does otherwise: docs/departures.toml.
    """

    def prepare(self, job: Job, label: int) -> Tensors:
        """Key patches: the best crop of each image, the best first.

        They are the image (m,) of the class, its box (m, 3) and loss (m,): of an image's crops the one with the lowest
        loss, -log p(class | crop), by the teacher.
        """
        pool = self._pool(job, label)
        scored = [self._scored(job, label, part) for part in pool.split(BATCH)]
        boxes, losses = (torch.cat(parts) for parts in zip(*scored, strict=True))
        loss, best = losses.min(1)
        order = loss.argsort(stable=True)
        return {"image": pool[order], "box": boxes[order, best[order]], "loss": loss[order]}

    def _pool(self, job: Job, label: int) -> Tensor:
        """The images (m,) of a class that are cropped, by their places in it: those that `random` would take first."""
        return random_order(job.spec.seed, job.classes[label], len(job.images.of_class(label)))[: self.pool]

    def _scored(self, job: Job, label: int, places: Tensor) -> tuple[Tensor, Tensor]:
        """Random boxes (n, crops, 3) in the class's images at these places, and the teacher's losses (n, crops).

        It sees each crop in the middle of an image of its mean colour, as large there as in the distilled image.
        """
        teacher, side, part = self._teacher(job), self.side(job), self.side(job) // self.grid(job)
        shown = np.empty((len(places), self.crops, side, side, 3), np.uint8)
        shown[:] = np.rint(255 * np.array(teacher.pretrained.mean))
        middle = slice((side - part) // 2, (side - part) // 2 + part)
        boxes, numbers = [], job.images.of_class(label)
        for row, place in enumerate(places.tolist()):
            image = job.images.open(int(numbers[place]))
            key = (job.spec.seed, "rded", job.classes[label], place)
            boxes.append(random_squares(image.width, image.height, self.crops, *key))
            for column, box in enumerate(boxes[-1]):
                shown[row, column, middle, middle] = cropped(image, box, part, part)
        _, losses = features_and_losses(teacher, resized(shown.reshape(-1, side, side, 3), teacher.side), label)
        return torch.stack(boxes), losses.view(len(places), self.crops)

    def images(self, job: Job, label: int, prepared: Tensors, ipc: int) -> Iterator[np.ndarray]:
        """Reconstruction: the images are crops (see `_ranks`), row by row."""
        side, grid, numbers = self.side(job), self.grid(job), job.images.of_class(label)
        edges = [round(k * side / grid) for k in range(grid + 1)]
        for ranks in self._ranks(job, ipc):
            image = np.empty((side, side, 3), np.uint8)
            for place, rank in enumerate(ranks):
                top, bottom = edges[place // grid : place // grid + 2]
                left, right = edges[place % grid : place % grid + 2]
                real = job.images.open(int(numbers[prepared["image"][rank]]))
                image[top:bottom, left:right] = cropped(real, prepared["box"][rank], right - left, bottom - top)
            yield image

    def real_places(self, job: Job, prepared: Tensors, ipc: int) -> Sequence[Sequence[int]]:
        return [prepared["image"][ranks].tolist() for ranks in self._ranks(job, ipc)]

    def _ranks(self, job: Job, ipc: int) -> list[list[int]]:
        """Image i has the crops i, IPC + i, 2 IPC + i ... of the order."""
        return [list(range(first, ipc * self.grid(job) ** 2, ipc)) for first in range(ipc)]

    def _teacher(self, job: Job) -> SingleTeacher:
        if self.reference is None:
            raise AttarError(
                "rded: name the teacher that scores with `teacher=FOLDER` (`attar train-teacher` makes one)"
            )
        return teacher_for(job, self.reference, self.side(job))

    def inputs(self, job: Job) -> dict[str, Any]:
        settings = {"pool": self.pool, "crops": self.crops, "factor": self.grid(job), "size": self.side(job)}
        return {"teacher": self._teacher(job).key, **settings, **job.machine, "pillow": PIL.__version__}

    def estimate(self, job: Job, labels: Sequence[int]) -> tuple[str, float]:
        if not labels:
            return "all crops are scored; the images have only to be composed", 0.0
        images = sum(len(self._pool(job, label)) for label in labels)
        timed = self._pool(job, labels[0])[:BATCH]
        begun = monotonic()
        self._scored(job, labels[0], timed)
        seconds = (monotonic() - begun) / len(timed) * images
        return f"{self.crops * images:,} crops of {images:,} images to score, about {duration(seconds)}", seconds

    def check(self, job: Job, ipcs: Sequence[int]) -> None:
        if self.grid(job) > self.side(job):
            raise AttarError(f"rded: factor = {self.grid(job)} crops do not fit into {self.side(job)} pixels")
        if self.needs(job, max(ipcs)) > self.pool:
            needed = self.needs(job, max(ipcs))
            asked = f"{counted(max(ipcs), 'image')} of a class take {needed} crops of as many images"
            raise AttarError(f"rded: {asked}, but pool = {self.pool}; set `pool={needed}`")
        self._teacher(job)
