"""Minimax Diffusion, section 3.2: the prior is fine-tuned with the minimax criteria, an adaptor for each group."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.diffusion.loss import Forward
from attar.job import Job
from attar.methods.base import Fit, Group, Tensors
from attar.methods.minimax.adaptor import adapted, attach, transformer_of
from attar.methods.minimax.criteria import Memory
from attar.methods.minimax.loss import MinimaxLoss
from attar.methods.minimax.monitor import MEASURES, CriterionMeans, Monitor, MonitorConfig
from attar.priors.prior import Prior
from attar.priors.shared_embedders import SharedDiT, check_alike, share_embedders
from attar.priors.training.adaptors import check_lora
from attar.priors.training.latent_set import LatentSet, load_latents
from attar.priors.training.optimise import Moment, Session, accelerator, optimise
from attar.priors.training.settings import Optimisation

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Tune(Fit):
    """Fine-tunes the prior on groups of classes with the representativeness and diversity criteria."""

    representativeness: float = 0.002
    """Weight of the first criterion; 0 leaves it out."""
    diversity: float = 0.008
    """Weight of the second criterion; 0 leaves it out."""
    memory: int = 64
    """Latents of each class that each memory holds."""
    epochs: int = 8
    """Times that every image is taken."""
    max_steps: int | None = None
    """The most steps of all epochs together: 3000 can be borne without a GPU."""
    batch: int = 8
    """Latents in a step."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW without weight decay, constant."""
    ema_decay: float = 0.9999
    """Decay of the averaged weights, which are what is kept."""
    ema_warmup: bool = True
    """Warm the average up; off is the authors' plain average, which leaves short runs nearly untuned."""
    label_dropout: float = 0.1
    """Share of the labels that are replaced by the null label."""
    group: int = 20
    """The most classes that share an adaptor; its authors advise against more."""
    balanced: bool = False
    """Draw classes evenly, not as often as they have images: for long tails."""
    flip: bool = True
    """Mirror half of the images; off for images that mirroring changes, such as digits."""
    adapt: Literal["difffit", "bitfit", "lora"] = "difffit"
    """Biases, label table and scales of outputs; biases alone; or low-rank additions and the label table."""
    rank: int = 16
    """Rank of LoRA."""
    monitor: MonitorConfig = MonitorConfig()
    """How it is measured. Another `monitor` tunes nothing anew, and what is tuned keeps its own measures."""
    seed: int = 0
    """Sets of several seeds share one tuning; another `fit.seed` is another tuning."""

    tunes = True
    uses_prior = True

    def check(self, prior: Prior) -> None:
        """Raises AttarError unless the prior is a DiT, on a device where it can be tuned."""
        check_alike(transformer_of(prior), "minimax tunes one adaptor for all blocks")
        if _accelerator(prior).num_processes > 1:
            raise AttarError("minimax tunes in one process; start it without `accelerate launch`")
        if self.adapt == "lora":
            check_lora()

    @property
    def keyed(self) -> Tune:
        return replace(self, monitor=MonitorConfig())

    def groups(self, labels: Sequence[int]) -> list[Group]:
        """As few groups as there can be, of about the same size."""
        count = -(-len(labels) // self.group)
        cuts = [len(labels) * number // count for number in range(count + 1)]
        return [list(labels[begin:end]) for begin, end in pairwise(cuts)]

    def run(self, job: Job, group: Group, scratch: Path) -> Tensors:
        """Tunes one group's adaptor; an interrupted run goes on from its checkpoint to the same weights."""
        prior, data = job.prior, self.data(job, group)
        plan = self.plan(self.training_steps([int(count) for count in data.labels.bincount()]))
        network = share_embedders(transformer_of(prior), str(job.spec.prior)).requires_grad_(False).to(prior.device)
        text = f"tuning {job.classes[group[0]]}" + f" and {len(group) - 1} more" * (len(group) > 1)
        session = Session(scratch, _accelerator(prior), text, job.progress)
        loss = self._loss(job, group, network, data, session.helper)
        with ExitStack() as stack:
            tuned = attach(self, network, stack)
            values = list(tuned.values())
            monitor = self._monitor(job, group, values, loss, plan.steps, scratch / MEASURES)
            monitor(Moment(0, [], [value.detach().clone() for value in values], 0.0))
            optimise(values, loss, plan, session, monitor, (loss.real, loss.generated, loss.means))
            return {name: value.detach().cpu().contiguous() for name, value in tuned.items()}

    def _loss(self, job: Job, group: Group, network: SharedDiT, data: LatentSet, helper: Accelerator) -> MinimaxLoss:
        prior, features = job.prior, data.mean[0, 0].numel()
        real, generated = (Memory.empty(len(group), self.memory, features, prior.device) for _ in range(2))
        return MinimaxLoss(
            network=network,
            forward=Forward(prior.schedule.betas.to(prior.device), prior.schedule.prediction),
            data=data,
            y=job.conditions(group),
            null=prior.null,
            fit=self,
            real=real,
            generated=generated,
            means=CriterionMeans(torch.zeros(3, device=prior.device)),
            helper=helper,
        )

    def _monitor(
        self, job: Job, group: Group, tuned: Sequence[nn.Parameter], loss: MinimaxLoss, steps: int, file: Path
    ) -> Monitor:
        return Monitor(
            fit=self,
            job=job,
            group=group,
            network=loss.network,
            tuned=tuned,
            data=loss.data,
            means=loss.means,
            total=steps,
            file=file,
        )

    def plan(self, steps: int) -> Optimisation:
        """The optimiser's settings."""
        return Optimisation(
            steps=steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            schedule="constant",
            warmup=0,
            ema_decay=self.ema_decay,
            ema_warmup=self.ema_warmup,
            clip=None,
            seed=self.seed,
        )

    def data(self, job: Job, group: Group) -> LatentSet:
        """The group's posteriors, mirrored ones too, their labels counted within the group."""
        images = job.images.restricted([job.classes[label] for label in group])
        return load_latents(replace(job.latents, images=images), self.flip, job.progress)

    def adapted(self, prior: Prior, fitted: Tensors) -> AbstractContextManager[Prior]:
        return adapted(self, prior, fitted)

    def encodings(self, counts: Sequence[int]) -> int:
        return sum(counts) * (2 if self.flip else 1)

    def training_steps(self, counts: Sequence[int]) -> int:
        epoch = sum(counts) // self.batch
        if not epoch:
            raise AttarError(f"fit.batch {self.batch}: more than the {sum(counts)} images of a group of classes")
        return min(self.epochs * epoch, self.max_steps or self.epochs * epoch)

    def passes(self, counts: Sequence[int]) -> int:
        return 3 * self.batch * self.training_steps(counts) + self.monitor.passes(len(counts))

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("memory", "epochs", "batch", "learning_rate", "group", "rank"):
            if not 0 < getattr(self, name) < float("inf"):
                raise AttarError(f"fit.{name} {getattr(self, name)}: must be more than 0")
        for name in ("ema_decay", "label_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise AttarError(f"fit.{name} {getattr(self, name)}: must be 0 or more, and less than 1")
        for name in ("representativeness", "diversity"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise AttarError(f"fit.{name} {getattr(self, name)}: must be 0 or more")
        if self.max_steps is not None and self.max_steps < 1:
            raise AttarError(f"fit.max_steps {self.max_steps}: must be 1 or more")


def _accelerator(prior: Prior) -> Accelerator:
    return accelerator(str(prior.device), str(prior.dtype).removeprefix("torch."))
