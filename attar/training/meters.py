"""How a training goes, and how well the network fits its training set in the end."""

from __future__ import annotations

import time
from collections import deque

import torch

from attar.core.progress import Progress
from attar.core.tracking import note
from attar.training import Step

SECONDS = 0.3
"""Least time between two reports."""


class Tally:
    """Reports loss, accuracy and speed, each since the last report, a few times a second."""

    def __init__(self, progress: Progress, unit: str) -> None:
        self.progress, self.unit, self.text = progress, unit, "starting"
        self.since = time.monotonic()
        self.steps: list[Step] = []

    def add(self, step: Step) -> None:
        self.steps.append(step)
        now = time.monotonic()
        if now - self.since < SECONDS and step.done < step.total:
            return
        images = sum(s.images for s in self.steps)
        loss = float(torch.stack([s.loss for s in self.steps]).mean())
        right = 100 * float(torch.stack([s.correct for s in self.steps]).sum()) / images
        speed = images / max(now - self.since, 1e-9)
        self.text = (
            f"{self.unit} {step.epoch}/{step.epochs}, loss {loss:.3f}, train {right:.1f} %, {speed:,.0f} images/s"
        )
        self.progress(self.text, step.done / step.total)
        note(step.done, loss=loss, train_accuracy=right)
        self.steps, self.since = [], now


VIEWS = 256
"""How many of the last views are looked at, at least, so that luck decides little."""


class TrainAccuracy:
    """How well a network fits what it is trained on: by the last epoch, and at least the last `VIEWS` views.

    They are counted as they pass, each batch before its step, with whatever augmentation and mixing it has.
    """

    def __init__(self) -> None:
        self.steps: deque[Step] = deque()
        self.views = 0

    def add(self, step: Step) -> None:
        """A batch that has passed."""
        self.steps.append(step)
        self.views += step.images
        while self.steps[0].epoch < step.epoch and self.views - self.steps[0].images >= VIEWS:
            self.views -= self.steps.popleft().images

    @property
    def share(self) -> float:
        """Per cent of the views that were given the label that they were taught most of."""
        return 100 * float(torch.stack([step.correct for step in self.steps]).sum()) / self.views

    def chance(self, largest: float) -> float:
        """The share, in per cent, up to which a network may have learnt nothing.

        Whoever names one class for all views is right in the share of that class, at most the `largest`; two standard
        deviations of as many independent views more may be luck.
        """
        return min(100.0, 100 * (largest + 2 * (largest * (1 - largest) / self.views) ** 0.5))
