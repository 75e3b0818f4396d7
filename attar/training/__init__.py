"""The supervised loop that students and teachers share; batched augmentation."""

from __future__ import annotations

from attar.training.checkpoint import Checkpoint
from attar.training.loop import DeviceImages, Shown, Step, Supervision, ViewMaker, autocast, top1, train
from attar.training.placed import placed
from attar.training.plan import Plan, Precision, batches, rate
from attar.training.process import memory_kept, seeded

__all__ = [
    "Checkpoint",
    "DeviceImages",
    "Plan",
    "Precision",
    "Shown",
    "Step",
    "Supervision",
    "ViewMaker",
    "autocast",
    "batches",
    "memory_kept",
    "placed",
    "rate",
    "seeded",
    "top1",
    "train",
]
