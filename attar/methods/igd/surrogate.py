"""IGD's surrogate: a network trained on the classes, and its weights at a few epochs on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parameters_to_vector

from attar.core.arguments import check_fields
from attar.core.batching import resolve
from attar.core.errors import AttarError
from attar.core.files import replacing
from attar.core.progress import Meter, timed_on
from attar.core.rng import numpy_generator, seed_of
from attar.data.decoded import decoded
from attar.job import Job
from attar.methods.base import Fit, Group, Tensors
from attar.networks import build, check
from attar.training import Plan, Step, placed, train
from attar.training.augment import Augmentation
from attar.training.checkpoint import Checkpoint
from attar.training.plan import batches_in


@dataclass(frozen=True)
class Surrogate(Fit):
    """A network that tells the classes apart, trained on all of them together; the prior is not asked.

    The summaries say: ConvNet-6 for 256 pixels, 50 epochs. What else its training is like is our choice.
    """

    network: str | None = None
    """None: a ConvNet of instance norm and width 128, as deep as the images ask for: 6 at 256 pixels, 3 at 32."""
    epochs: int = 50
    """Passes over the images. It ends after the last of those whose weights are kept."""
    kept: tuple[int, ...] = (1, 6, 17, 41)
    """The epochs whose weights are kept: those that the authors' code takes for ImageWoof, counted from 1."""
    per_class: int | None = 1000
    """Most images of a class that it is trained on, drawn by the seed; None: all."""
    batch: int = 64
    """Images in a batch."""
    lr: float = 0.01
    """Learning rate of SGD with momentum 0.9, a fifth of it from two thirds of the way and again from five sixths."""
    flip: bool = True
    """Whether half of the images are mirrored."""
    shift: int = 4
    """The most pixels that images are moved by."""
    seed: int = 0
    """Seed of the first weights, the order and the views."""

    def groups(self, labels: Sequence[int]) -> list[Group]:
        return [list(labels)]

    def built(self, job: Job, classes: int) -> nn.Module:
        """The network before its training."""
        side = job.codec.size
        depth = min(max(round(math.log2(side)) - 2, 3), 6)
        return build(self.network or f"convnet{depth}-w128", classes, side, seed_of(self.seed, "surrogate"))

    def seconds(self, job: Job, counts: Sequence[int]) -> float:
        """Seconds that the training takes: one step is timed."""
        network, (device, _) = self.built(job, len(counts)), resolve(job.spec.device, job.spec.dtype)
        network, images = network.to(device), torch.zeros(self.batch, 3, job.codec.size, job.codec.size, device=device)
        steps = self._steps(sum(count if self.per_class is None else min(count, self.per_class) for count in counts))
        return steps * timed_on(lambda: network(images).sum().backward(), device)

    def _steps(self, images: int) -> int:
        """To the last of the epochs whose weights are kept."""
        return batches_in(images, self._plan) * max(self.kept) // self.epochs

    @property
    def _plan(self) -> Plan:
        return Plan(epochs=self.epochs, batch=self.batch, lr=self.lr, schedule="multistep")

    def run(self, job: Job, group: Group, scratch: Path) -> Tensors:
        """The weights (E, P), those of one epoch after another; an interrupted training goes on to the same."""
        if len(group) < 2:
            raise AttarError("igd: its surrogate tells classes apart; give it two or more")
        network, (device, _) = self.built(job, len(group)), resolve(job.spec.device, job.spec.dtype)
        if any(True for _ in network.buffers()):
            raise AttarError(f"fit.network {self.network}: keeps statistics of batches; choose one of instance norm")
        numbers = [self._drawn(job, label) for label in group]
        chosen = job.images.chosen([number for own in numbers for number in own])
        pixels = decoded(chosen, job.codec.size, job.spec.preprocess, job.store, job.progress)
        labels = torch.tensor([place for place, own in enumerate(numbers) for _ in own], device=device)
        how = Augmentation(job.codec.size, shift=self.shift, flip=self.flip, normalise="half")
        meter = Meter(job.progress, "training the surrogate", self._steps(len(pixels)), "steps")
        network, plan = network.to(device), self._plan

        def keep(step: Step) -> bool:
            meter.add()
            if step.last and step.epoch in self.kept:
                with replacing(scratch / f".epoch-{step.epoch}") as temporary:
                    save_file({"weights": parameters_to_vector(network.parameters()).detach().cpu()}, temporary)
            return step.last and step.epoch == max(self.kept)

        key = (self.seed, "surrogate")
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            train(network, placed(pixels, device), labels, plan, how, *key, after=keep, checkpoint=Checkpoint(scratch))
        return {"weights": torch.stack([load_file(scratch / f".epoch-{epoch}")["weights"] for epoch in self.kept])}

    def _drawn(self, job: Job, label: int) -> list[int]:
        """The numbers of a class's images that it is trained on."""
        draw = numpy_generator(self.seed, "surrogate", job.classes[label])
        numbers: list[int] = draw.permutation(job.images.of_class(label))[: self.per_class].tolist()
        return numbers

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self, "fit")
        for name in ("epochs", "per_class", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise AttarError(f"fit.{name} {value}: at least 1")
        kept = self.kept
        if not kept or list(kept) != sorted(set(kept)) or not 1 <= kept[0] <= kept[-1] <= self.epochs:
            named = ",".join(map(str, kept))
            raise AttarError(f"fit.kept {named}: rising epochs, from 1 to the {self.epochs} of fit.epochs")
        if not 0 < self.lr < math.inf:
            raise AttarError(f"fit.lr {self.lr}: a number above 0")
        if self.network is not None:
            check(self.network)
