"""How a network is trained, in numbers: its plan, the learning rate of each epoch, the batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attar.core.rng import Part, numpy_generator

Precision = Literal["float32", "tf32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Plan:
    """How a network is trained, in numbers."""

    epochs: int | None = None
    """Passes over the images; None where `steps` is given."""
    steps: int | None = None
    """Batches, all of them full, drawn from one permutation after the other."""
    batch: int = 64
    """Images in a batch."""
    accumulate: int = 1
    """Parts in which a batch passes through the network; each has this share of the loss, whatever its size."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """sgd: with momentum; adamw: betas 0.9 and 0.999."""
    lr: float = 0.01
    """Learning rate, at its highest."""
    momentum: float = 0.9
    """Momentum of SGD; AdamW's betas are 0.9 and 0.999."""
    nesterov: bool = False
    """Whether SGD's momentum is Nesterov's."""
    weight_decay: float = 5e-4
    """Decay of the weights, of AdamW decoupled from the loss."""
    decay_vectors: bool = True
    """False: biases, norms and whatever else is not a weight of two or more dimensions are not decayed."""
    schedule: Literal["multistep", "half-cosine", "cosine", "linear", "triangle", "constant"] = "cosine"
    """How the learning rate goes, one value for each epoch (or step, where `steps` is given); see `rate`."""
    warmup: int = 0
    """The first epochs (or steps), over which the learning rate rises linearly."""
    temperature: float | None = None
    """Temperature of the KL divergence from the teacher, not multiplied by its square; None: cross-entropy."""
    label_smoothing: float = 0.0
    """Share of a hard label that is spread evenly over all classes."""
    extra_forward: bool = False
    """One forward pass more before each step, which only moves batch-norm statistics; see `Recipe.extra_forward`."""
    precision: Precision = "float32"
    """What the networks run in; the 16-bit formats are mixed precision."""


def rate(plan: Plan, epoch: int) -> float:
    """The learning rate's factor in an epoch, counted from 0 (in a step, where the plan counts steps).

    multistep: a fifth from 2/3 of the epochs and again from 5/6 (IDC). half-cosine: the first half of a cosine's way,
    from 1 to about a half (RDED). cosine and linear: from 1 to about 0. triangle: from 0.2 up to 1 at 0.23 of the way,
    then down to 0.07 (airbench).
    """
    epochs = plan.steps or plan.epochs or 1
    warm = min(1.0, (epoch + 1) / plan.warmup) if plan.warmup else 1.0
    if plan.schedule == "multistep":
        return warm * 0.2 ** ((epoch >= 2 * epochs // 3) + (epoch >= 5 * epochs // 6))
    if plan.schedule == "half-cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * epoch / (2 * epochs)))
    if plan.schedule == "triangle":
        return warm * float(np.interp(epoch / epochs, (0, 0.23, 1), (0.2, 1, 0.07)))
    if plan.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    if plan.schedule == "linear":
        return warm * (1 - epoch / epochs)
    return warm


def batches(
    n: int, plan: Plan, *key: Part, order: Callable[[int], Tensor | None] | None = None
) -> Iterator[tuple[int, bool, Tensor]]:
    """(epoch from 0, whether it is the epoch's last batch, indices) for `n` images.

    `order` may give the order of an epoch's images, which is otherwise drawn. An epoch's last batch may be smaller; a
    single image left over joins the batch before it, as batch norm needs two.
    """
    if plan.steps is not None:
        stream = np.empty(0, np.int64)
        rounds = 0
        for step in range(plan.steps):
            while len(stream) < plan.batch:
                stream = np.concatenate([stream, numpy_generator(*key, rounds).permutation(n)])
                rounds += 1
            yield step, True, torch.from_numpy(stream[: plan.batch])
            stream = stream[plan.batch :]
        return
    for epoch in range(plan.epochs or 0):
        ordered = None if order is None else order(epoch)
        drawn = torch.from_numpy(numpy_generator(*key, epoch).permutation(n)) if ordered is None else ordered
        parts = cut(n, plan.batch)
        for part in parts:
            yield epoch, part is parts[-1], drawn[part]


def batches_in(n: int, plan: Plan) -> int:
    """How many batches `n` images make in all epochs."""
    return plan.steps if plan.steps is not None else (plan.epochs or 0) * len(cut(n, plan.batch))


def cut(n: int, size: int) -> list[slice]:
    """`n` things in parts of `size`; the last may be smaller, but a single one joins the part before it."""
    count = max(1, n // size if size > 1 and n % size == 1 else math.ceil(n / size))
    return [slice(i * size, n if i == count - 1 else (i + 1) * size) for i in range(count)]
