"""The one supervised loop that students and teachers share."""

from __future__ import annotations

import ctypes
import math
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attar.augment import Augmentation, apply, draw, mixed, normalised
from attar.checkpoint import Checkpoint
from attar.finite import bounded, finite
from attar.keys import Part, numpy_generator, seed_of


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
    nesterov: bool = False
    weight_decay: float = 5e-4
    decay_vectors: bool = True
    """False: biases, norms and whatever else is not a weight of two or more dimensions are not decayed."""
    schedule: Literal["multistep", "half-cosine", "cosine", "triangle", "constant"] = "cosine"
    """Of the learning rate, one value for each epoch (or step, where `steps` is given); see `rate`."""
    warmup: int = 0
    """So many first epochs (or steps) over which the learning rate rises linearly."""
    temperature: float | None = None
    """Of the KL divergence from the teacher, without the factor of its square; None: cross-entropy with the labels."""
    label_smoothing: float = 0.0
    """Share of a hard label that is spread evenly over all classes."""
    extra_forward: bool = False
    """A forward pass on the unmixed images before each step, which only moves batch-norm statistics (RDED, D3HR)."""
    bfloat16: bool = False
    """Whether the networks run in mixed precision."""


@dataclass(frozen=True)
class Shown:
    """What a network is shown of a batch of n images."""

    plain: Tensor
    """(n, 3, size, size), normalised: the augmented images, not mixed."""
    view: Tensor
    """The same, mixed."""
    partner: Tensor | None = None
    """(n,): which images of the set they are mixed with; None: with none."""
    own: Tensor | None = None
    """(n, 1) or (1, 1): the weight of each image's own label."""


class Views(Protocol):
    """Makes what is shown of the images `index` (n,) in an epoch; `images` are the whole set (N, H, W, 3)."""

    def __call__(self, images: Tensor, epoch: int, index: Tensor) -> Shown: ...


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
    views: Views | None = None,
    labelled: Callable[[int, Tensor], Tensor] | None = None,
    after: Callable[[Step], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Trains `network`, where it lies, on images (N, H, W, 3) in uint8 and labels (N,), both on the network's device.

    Order, augmentation and dropout come from `key`; no global generator is left changed. With a temperature in the
    plan, every view has soft labels: from `teacher` (on the same device, in eval mode), or the stored logits that
    `labelled(epoch, index)` gives; `labels` are then only counted. `views` takes the place of views that are drawn for
    each batch. `after` is called after every batch and may put the network into eval mode. With a checkpoint an
    interrupted training goes on where it was, to the same weights.

    Raises:
        NotFinite: the training diverged, which is looked for twenty times.
    """
    device = images.device
    optimiser = _optimiser(network, plan)
    extra = plan.extra_forward and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    total, epochs = _batches_in(len(images), plan), plan.steps or plan.epochs or 0
    with seeded(device, *key, "network"), memory_kept():
        first = 0 if checkpoint is None else checkpoint.restore(network, optimiser)
        for done, (epoch, last, index) in enumerate(batches(len(images), plan, *key, "order")):
            if done < first:
                continue
            for group in optimiser.param_groups:
                group["lr"] = plan.lr * rate(plan, epoch)
            network.train()
            index = index.to(device)
            shown = views(images, epoch, index) if views else _drawn(images, index, augmentation, *key, "augment", done)
            with torch.autocast(device.type, torch.bfloat16, enabled=plan.bfloat16):
                if extra:
                    with torch.no_grad():
                        network(shown.plain)
                logits = network(shown.view).float()
                with torch.no_grad():
                    taught = None if teacher is None else teacher(shown.view).float()
            if labelled is not None:
                taught = labelled(epoch, index).to(device)
            own = labels[index]
            loss = _loss(logits, labels, index, shown, taught, plan)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            _check(loss.detach(), done + 1, total, plan)
            if after is not None:
                correct = (logits.argmax(1) == own).sum()
                after(Step(done + 1, total, epoch + 1, epochs, last, len(index), loss.detach(), correct))
            if checkpoint is not None:
                checkpoint.keep(done + 1, network, optimiser)


def _check(loss: Tensor, done: int, total: int, plan: Plan) -> None:
    """Looks twenty times whether the training has diverged: to look, the device must have caught up."""
    if done % max(1, total // 20) == 0 or done == total:
        bounded(loss, f"the training diverged (lower lr = {plan.lr:g}): its loss after {done:,} of {total:,} batches")


@torch.no_grad()
def top1(
    network: nn.Module, images: Tensor, labels: Tensor, normalise: str, *, batch: int = 256, bfloat16: bool = False
) -> float:
    """Top-1 accuracy in per cent on images (N, H, W, 3) in uint8; leaves the network in eval mode.

    Raises:
        NotFinite: the network does not give numbers.
    """
    network.eval()
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    largest = torch.zeros((), device=images.device)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        for part, own in zip(images.split(batch), labels.split(batch), strict=True):
            logits = network(normalised(part, normalise)).float()
            correct += (logits.argmax(1) == own).sum()
            largest = torch.maximum(largest, logits.abs().amax())
    finite(largest, "the training diverged: the network's outputs on the test images")
    return 100 * int(correct) / len(images)


def rate(plan: Plan, epoch: int) -> float:
    """The learning rate's factor in an epoch, counted from 0 (in a step, where the plan counts steps).

    multistep: a fifth from 2/3 of the epochs and again from 5/6 (IDC). half-cosine: the first half of a cosine's way,
    from 1 to about a half (RDED). cosine: from 1 to about 0. triangle: from 0.2 up to 1 at 0.23 of the way, then down
    to 0.07 (airbench).
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


@contextmanager
def memory_kept() -> Iterator[None]:
    """Within it, the process keeps what tensors free on the CPU for the next ones; afterwards the system gets it back.

    glibc maps every tensor above 32 MB anew, and clearing its pages takes longer than a layer's arithmetic. Does
    nothing where the C library is another.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc, (map_from, trim_from) = ctypes.CDLL(None), (-3, -1)  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
    libc.mallopt(map_from, 1 << 30)
    libc.mallopt(trim_from, (1 << 31) - 1)
    try:
        yield
    finally:
        libc.mallopt(map_from, 32 << 20)
        libc.mallopt(trim_from, 64 << 20)
        libc.malloc_trim(0)


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
        common: dict[str, Any] = {"lr": plan.lr, "weight_decay": plan.weight_decay}
        return torch.optim.SGD(groups, **common, momentum=plan.momentum, nesterov=plan.nesterov)
    return torch.optim.AdamW(groups, lr=plan.lr, weight_decay=plan.weight_decay)


def _drawn(images: Tensor, index: Tensor, how: Augmentation, *key: Part) -> Shown:
    """Views drawn for this batch, mixed within it."""
    drawn = draw(how, len(index), images.shape[1], images.shape[2], *key)
    plain = apply(images[index], drawn, how)
    partner = None if drawn.partner is None else index[drawn.partner.to(index.device)]
    return Shown(plain, mixed(plain, drawn), partner, drawn.own)


def _loss(logits: Tensor, labels: Tensor, index: Tensor, shown: Shown, taught: Tensor | None, plan: Plan) -> Tensor:
    if taught is not None and plan.temperature is not None:
        target = F.softmax(taught / plan.temperature, 1)
        return F.kl_div(F.log_softmax(logits / plan.temperature, 1), target, reduction="batchmean")
    against = partial(F.cross_entropy, logits, label_smoothing=plan.label_smoothing, reduction="none")
    if shown.partner is None or shown.own is None:
        return against(labels[index]).mean()
    own = shown.own[:, 0].to(logits.device)
    return (own * against(labels[index]) + (1 - own) * against(labels[shown.partner])).mean()
