"""The loop: views, passes, gradients, steps; and the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attar.core.copies import sent
from attar.core.finite import bounded, finite
from attar.core.rng import Part
from attar.training.augment import Augmentation, apply, draw, mixed, normalised
from attar.training.checkpoint import Checkpoint
from attar.training.plan import Plan, Precision, batches, batches_in, cut, rate
from attar.training.process import memory_kept, seeded
from attar.training.processes import (
    joint_statistics,
    mean_of_all,
    own_part,
    processes,
    share_gradients,
    sum_of_all,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


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

    def of(self, part: slice) -> Shown:
        """What is shown of some of the images."""
        partner = None if self.partner is None else self.partner[part]
        own = self.own if self.own is None or len(self.own) == 1 else self.own[part]
        return Shown(self.plain[part], self.view[part], partner, own)


class DeviceImages(Protocol):
    """A set of images in uint8, on a device: a tensor (N, H, W, 3), or images of differing sizes."""

    @property
    def device(self) -> torch.device: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor, /) -> Tensor | Sequence[Tensor]: ...


class ViewMaker(Protocol):
    """Makes what is shown of the images `index` (n,) in an epoch; `images` are the whole set."""

    def __call__(self, images: DeviceImages, epoch: int, index: Tensor) -> Shown: ...

    def order(self, epoch: int) -> Tensor | None:
        """The order (N,) in which the images of an epoch are shown; None: any."""


@dataclass(frozen=True)
class Step:
    """What `train` tells after each batch."""

    done: int
    """Batches trained on so far."""
    total: int
    """Batches of the whole training."""
    epoch: int
    """1 for the first. Where a plan counts steps, each of them is an epoch of its own."""
    epochs: int
    """Epochs of the whole training."""
    last: bool
    """Whether this was the epoch's last batch."""
    images: int
    """Images of this batch."""
    loss: Tensor
    """Mean over the batch, a scalar on the device: reading it waits for the device."""
    correct: Tensor
    """How many of the views were given the label that they were taught most of, likewise (see `_taught_most`)."""


@dataclass(frozen=True, eq=False)
class Supervision:
    """Where the views of a training and their labels come from.

    By default views are drawn for each batch, and have the labels of their images.
    """

    views: ViewMaker | None = None
    """Makes the views, where they are not drawn for each batch."""
    teacher: nn.Module | None = None
    """Labels every view; on the network's device, in eval mode. The plan has a temperature then."""
    labelled: Callable[[int, Tensor], Tensor] | None = None
    """A teacher's stored logits (n, classes) for the views of the images `index` (n,) in an epoch."""
    weights: Tensor | None = None
    """(N,): what the loss of each image's label is multiplied by, on the network's device; None: all the same.

    A teacher's label of a mixed view is multiplied by the mean of both images' weights, weighted as they are mixed.
    """


def train(
    network: nn.Module,
    images: DeviceImages,
    labels: Tensor,
    plan: Plan,
    augmentation: Augmentation,
    *key: Part,
    supervision: Supervision = Supervision(),
    after: Callable[[Step], bool | None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Trains `network` in place on images and labels, all on one device.

    Args:
        labels: the classes (N,), or the probabilities of each image (N, classes).
        key: what order, augmentation and dropout are drawn from; no global generator is left changed.
        supervision: where views and soft labels come from.
        after: called after every batch; it may put the network into eval mode, and ends the training if it says True.
        checkpoint: where the state is kept, so that an interrupted training goes on to the same weights; and which
            processes share the training: each passes its part of every batch, whose views are not mixed then.

    Raises:
        NotFinite: the training diverged, which is looked for twenty times.
    """
    trainer = _Trainer(network, images, labels, plan, augmentation, key, supervision, checkpoint and checkpoint.helper)
    total, epochs = batches_in(len(images), plan), plan.steps or plan.epochs or 0
    order = None if supervision.views is None else supervision.views.order
    with seeded(images.device, *key, "network"), memory_kept(), joint_statistics(network, trainer.helper):
        first = 0 if checkpoint is None else checkpoint.restore(*trainer.state)
        for done, (epoch, last, index) in enumerate(batches(len(images), plan, *key, "order", order=order)):
            if done < first:
                continue
            loss, correct = trainer.step(done, epoch, sent(index, images.device))
            _check(loss, done + 1, total, plan)
            if after is not None and after(Step(done + 1, total, epoch + 1, epochs, last, len(index), loss, correct)):
                return
            if checkpoint is not None:
                checkpoint.keep(done + 1, *trainer.state)


@dataclass(eq=False)
class _Trainer:
    """A network and all that its steps are made with."""

    network: nn.Module
    images: DeviceImages
    labels: Tensor
    plan: Plan
    augmentation: Augmentation
    key: tuple[Part, ...]
    supervision: Supervision
    helper: Accelerator | None = None

    def __post_init__(self) -> None:
        self.device, plan = self.images.device, self.plan
        self.optimiser = _optimiser(self.network, plan)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=plan.precision == "float16")
        normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.network.modules())
        self.extra_forward = plan.extra_forward and normed

    @property
    def state(self) -> tuple[nn.Module, torch.optim.Optimizer, torch.amp.GradScaler]:
        """What a checkpoint holds."""
        return self.network, self.optimiser, self.scaler

    def step(self, done: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor]:
        """Trains on a batch; its loss, and how many views were named as they were taught most."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.lr * rate(self.plan, epoch)
        self.network.train()
        index, shown = index[own_part(self.helper)], self._shown(done, epoch, index)
        if self.extra_forward:
            with torch.no_grad(), autocast(self.device, self.plan.precision):
                self.network(shown.plain if self.augmentation.mix == "mixup" else shown.view)
        taught = self._taught(shown, epoch, index)
        self.optimiser.zero_grad(set_to_none=True)
        loss, correct = self._passed(index, shown, taught)
        share_gradients(self.network.parameters(), self.helper)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return mean_of_all(loss, self.helper), sum_of_all(correct, self.helper)

    def _shown(self, done: int, epoch: int, index: Tensor) -> Shown:
        """The own part of the batch's views: those of the supervision, or drawn for this batch and mixed within it."""
        if self.supervision.views is not None:
            return self.supervision.views(self.images, epoch, index)
        drawn = draw(self.augmentation, len(index), *self.key, "augment", done)
        if processes(self.helper) > 1:
            part = own_part(self.helper)
            drawn, index = drawn.of(part), index[part]
        plain = apply(self.images[index], drawn, self.augmentation)
        partner = None if drawn.partner is None else index[sent(drawn.partner, index.device)]
        return Shown(plain, mixed(plain, drawn), partner, drawn.own)

    def _taught(self, shown: Shown, epoch: int, index: Tensor) -> Tensor | None:
        """The views' soft labels, as logits; None where they have the images' labels alone."""
        if self.supervision.labelled is not None:
            return self.supervision.labelled(epoch, index).to(self.device)
        if self.supervision.teacher is None:
            return None
        with torch.no_grad(), autocast(self.device, self.plan.precision):
            logits: Tensor = self.supervision.teacher(shown.view).float()
        return logits

    def _passed(self, index: Tensor, shown: Shown, taught: Tensor | None) -> tuple[Tensor, Tensor]:
        """One batch's gradients, in its parts; its loss, and how many views were named as they were taught most."""
        plan, labels, losses, correct = self.plan, self.labels, [], []
        for part in cut(len(index), max(1, plan.batch // (plan.accumulate * processes(self.helper)))):
            with autocast(index.device, plan.precision):
                logits = self.network(shown.view[part]).float()
            aims = None if taught is None else taught[part]
            weights = self.supervision.weights
            loss = _loss(logits, labels, index[part], shown.of(part), aims, plan, weights) / plan.accumulate
            self.scaler.scale(loss).backward()
            losses.append(loss.detach())
            correct.append((logits.argmax(1) == _taught_most(labels, index[part], shown.of(part), aims)).sum())
        return torch.stack(losses).sum(), torch.stack(correct).sum()


def _check(loss: Tensor, done: int, total: int, plan: Plan) -> None:
    """Looks twenty times whether the training has diverged: to look, the device must have caught up."""
    if done % max(1, total // 20) == 0 or done == total:
        bounded(loss, f"the training diverged (lower lr = {plan.lr:g}): its loss after batch {done:,} of {total:,}")


@torch.no_grad()
def top1(
    network: nn.Module,
    images: DeviceImages,
    labels: Tensor,
    normalise: str,
    *,
    precision: Precision = "float32",
) -> float:
    """Top-1 accuracy in per cent on images in uint8, all of one size; leaves the network in eval mode.

    At most 256 images are looked at at a time, fewer of large ones.

    Raises:
        NotFinite: the network does not give numbers.
    """
    network.eval()
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    largest = torch.zeros((), device=images.device)
    with autocast(images.device, precision):
        for part in torch.arange(len(images), device=images.device).split(_at_once(images)):
            logits = network(normalised(cast(Tensor, images[part]), normalise)).float()
            correct += (logits.argmax(1) == labels[part]).sum()
            largest = torch.maximum(largest, logits.abs().amax())
    finite(largest, "the training diverged: the network's outputs on the test images")
    return 100 * int(correct) / len(images)


def _at_once(images: DeviceImages) -> int:
    """How many images are tested at a time: as many as give so many pixels."""
    side = cast(Tensor, images[torch.zeros(1, dtype=torch.int64, device=images.device)]).shape[1]
    pixels = 1 << (20 if images.device.type == "cpu" else 22)
    return max(1, min(256, pixels // side**2))


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Mixed precision where that is one of the 16-bit formats."""
    return torch.autocast(device.type, HALF.get(precision, torch.bfloat16), enabled=precision in HALF)


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


def _taught_most(labels: Tensor, index: Tensor, shown: Shown, taught: Tensor | None) -> Tensor:
    """(n,): the teacher's first label of each view; with hard labels its own, or its partner's if that weighs more."""
    if taught is not None:
        return taught.argmax(1)
    if labels.ndim == 2:
        own = 1.0 if shown.own is None else sent(shown.own, labels.device)
        others = labels[index if shown.partner is None else shown.partner]
        return (own * labels[index] + (1 - own) * others).argmax(1)
    if shown.partner is None or shown.own is None:
        return labels[index]
    return torch.where(sent(shown.own[:, 0], labels.device) < 0.5, labels[shown.partner], labels[index])


def _loss(
    logits: Tensor,
    labels: Tensor,
    index: Tensor,
    shown: Shown,
    taught: Tensor | None,
    plan: Plan,
    weights: Tensor | None = None,
) -> Tensor:
    """The mean over a batch of the losses of its labels, each multiplied by the weight of its image."""
    own = None if shown.own is None else sent(shown.own[:, 0], logits.device)

    def mixed_of(of_images: Callable[[Tensor], Tensor]) -> Tensor:
        """What holds for images, mixed as they are."""
        if shown.partner is None or own is None:
            return of_images(index)
        return own * of_images(index) + (1 - own) * of_images(shown.partner)

    if taught is not None and plan.temperature is not None:
        target = F.softmax(taught / plan.temperature, 1)
        against_teacher = partial(F.kl_div, F.log_softmax(logits / plan.temperature, 1), target)
        if weights is None:
            return against_teacher(reduction="batchmean")
        return (mixed_of(weights.__getitem__) * against_teacher(reduction="none").sum(1)).mean()

    def against(images: Tensor) -> Tensor:
        losses = F.cross_entropy(logits, labels[images], label_smoothing=plan.label_smoothing, reduction="none")
        return losses if weights is None else weights[images] * losses

    return mixed_of(against).mean()
