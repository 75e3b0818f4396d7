"""What is told of a training as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from attar.training import Step


class Tally:
    """Loss, accuracy and speed since they were last told, told a few times a second."""

    def __init__(self, told: Callable[[str, float], None], unit: str) -> None:
        self.told, self.unit, self.text = told, unit, "starting"
        self.since = time.monotonic()
        self.steps: list[Step] = []

    def add(self, step: Step) -> None:
        self.steps.append(step)
        now = time.monotonic()
        if now - self.since < 0.3 and step.done < step.total:
            return
        images = sum(s.images for s in self.steps)
        loss = float(torch.stack([s.loss for s in self.steps]).mean())
        right = 100 * float(torch.stack([s.correct for s in self.steps]).sum()) / images
        speed = images / max(now - self.since, 1e-9)
        self.text = (
            f"{self.unit} {step.epoch}/{step.epochs}, loss {loss:.3f}, train {right:.1f} %, {speed:,.0f} images/s"
        )
        self.told(self.text, step.done / step.total)
        self.steps, self.since = [], now
