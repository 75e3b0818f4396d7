"""The one supervised loop that students and teachers share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attar.augment import Augmentation, apply, draw, mixed, normalised
from attar.keys import Part, numpy_generator, seed_of

SCHEDULES = ("multistep", "half-cosine", "cosine", "constant")


@dataclass(frozen=True)
class Plan:
    """How a network is trained, in numbers."""

    epochs: int | None = None
    """Passes over the images; None where `steps` is given."""
    steps: int | None = None
    """Batches, all of them full, drawn from one permutation after the other."""
    batch: int = 64
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    """Of SGD; AdamW's betas are 0.9 and 0.999."""
    weight_decay: float = 5e-4
    decay_vectors: bool = True
    """False: biases, norms and whatever else is not a weight of two or more dimensions are not decayed."""
    schedule: Literal["multistep", "half-cosine", "cosine", "constant"] = "cosine"
    """Of the learning rate, one value for each epoch (or step, where `steps` is given); see `rate`."""
    warmup: int = 0
    """So many first epochs (or steps) over which the learning rate rises linearly."""
    temperature: float | None = None
    """Of the KL divergence from the teacher, without the factor of its square; None: cross-entropy with the labels."""
    extra_forward: bool = False
    """A forward pass on the unmixed images before each step, which only moves batch-norm statistics (RDED, D3HR)."""
    bfloat16: bool = False
    """Whether the networks run in mixed precision."""


@dataclass(frozen=True)
class Step:
    """What `train` tells after each batch."""

    done: int
    total: int
    epoch: int
    """1 for the first. Where a plan counts steps, each of them is an epoch of its own."""
    epochs: int
    last: bool
    """Whether this was the epoch's last batch."""
    images: int
    loss: Tensor
    """Mean over the batch, a scalar on the device: reading it waits for the device."""
    correct: Tensor
    """How many of the (mixed) images were given their own label, likewise."""


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    plan: Plan,
    augmentation: Augmentation,
    *key: Part,
    teacher: nn.Module | None = None,
    after: Callable[[Step], None] | None = None,
) -> None:
    """Trains `network`, where it lies, on images (N, H, W, 3) in uint8 and labels (N,), both on the network's device.

    Order, augmentation and dropout come from `key`; no global generator is left changed. With a temperature in the
    plan, `teacher` (on the same device, in eval mode) labels every view; `labels` are then only counted. `after` is
    called after every batch and may put the network into eval mode.
    """
    device = images.device
    optimiser = _optimiser(network, plan)
    extra = plan.extra_forward and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    total, epochs = _batches_in(len(images), plan), plan.steps or plan.epochs or 0
    with seeded(device, *key, "network"):
        for done, (epoch, last, index) in enumerate(batches(len(images), plan, *key, "order")):
            for group in optimiser.param_groups:
                group["lr"] = plan.lr * rate(plan, epoch)
            network.train()
            index = index.to(device)
            drawn = draw(augmentation, len(index), images.shape[1], images.shape[2], *key, "augment", done)
            view = apply(images[index], drawn, augmentation)
            with torch.autocast(device.type, torch.bfloat16, enabled=plan.bfloat16):
                if extra:
                    with torch.no_grad():
                        network(view)
                view = mixed(view, drawn)
                logits = network(view).float()
                with torch.no_grad():
                    taught = None if teacher is None else teacher(view).float()
            own = labels[index]
            loss = _loss(logits, own, drawn.partner, drawn.own, taught, plan.temperature)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if after is not None:
                correct = (logits.argmax(1) == own).sum()
                after(Step(done + 1, total, epoch + 1, epochs, last, len(index), loss.detach(), correct))


@torch.no_grad()
def top1(
    network: nn.Module, images: Tensor, labels: Tensor, normalise: str, *, batch: int = 256, bfloat16: bool = False
) -> float:
    """Top-1 accuracy in per cent on images (N, H, W, 3) in uint8; leaves the network in eval mode."""
    network.eval()
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        for part, own in zip(images.split(batch), labels.split(batch), strict=True):
            correct += (network(normalised(part, normalise)).argmax(1) == own).sum()
    return 100 * int(correct) / len(images)


def rate(plan: Plan, epoch: int) -> float:
    """The learning rate's factor in an epoch, counted from 0 (in a step, where the plan counts steps).

    multistep: a fifth from 2/3 of the epochs and again from 5/6 (IDC). half-cosine: the first half of a cosine's way,
    from 1 to about a half (RDED). cosine: from 1 to about 0.
    """
    epochs = plan.steps or plan.epochs or 1
    warm = min(1.0, (epoch + 1) / plan.warmup) if plan.warmup else 1.0
    if plan.schedule == "multistep":
        return warm * 0.2 ** ((epoch >= 2 * epochs // 3) + (epoch >= 5 * epochs // 6))
    if plan.schedule == "half-cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * epoch / (2 * epochs)))
    if plan.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    return warm


def batches(n: int, plan: Plan, *key: Part) -> Iterator[tuple[int, bool, Tensor]]:
    """(epoch from 0, whether it is the epoch's last batch, indices) for `n` images.

    An epoch's last batch may be smaller; a single image left over joins the batch before it, as batch norm needs two.
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
        order = torch.from_numpy(numpy_generator(*key, epoch).permutation(n))
        count = _batches_of(n, plan.batch)
        for i in range(count):
            last = i == count - 1
            yield epoch, last, order[i * plan.batch : n if last else (i + 1) * plan.batch]


@contextmanager
def seeded(device: torch.device, *key: Part) -> Iterator[None]:
    """Within it the global generators of the CPU and of `device` start from `key`; afterwards they are as before."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed_of(*key))
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed_of(*key))
        yield


def _batches_of(n: int, batch: int) -> int:
    return max(1, n // batch if batch > 1 and n % batch == 1 else math.ceil(n / batch))


def _batches_in(n: int, plan: Plan) -> int:
    return plan.steps if plan.steps is not None else (plan.epochs or 0) * _batches_of(n, plan.batch)


def _optimiser(network: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        decays = plan.decay_vectors or ("weight" in name and parameter.ndim > 1)
        (decayed if decays else free).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if plan.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay)
    return torch.optim.AdamW(groups, lr=plan.lr, weight_decay=plan.weight_decay)


def _loss(
    logits: Tensor, labels: Tensor, partner: Tensor | None, own: float, taught: Tensor | None, temperature: float | None
) -> Tensor:
    if taught is not None and temperature is not None:
        target = F.softmax(taught / temperature, 1)
        return F.kl_div(F.log_softmax(logits / temperature, 1), target, reduction="batchmean")
    if partner is None:
        return F.cross_entropy(logits, labels)
    others = labels[partner.to(labels.device)]
    return own * F.cross_entropy(logits, labels) + (1 - own) * F.cross_entropy(logits, others)
