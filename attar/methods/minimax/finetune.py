"""Minimax Diffusion, section 3.2: the prior is fine-tuned with the minimax criteria, an adaptor for each group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from attar.core.errors import AttarError
from attar.diffusion.loss import Forward
from attar.job import Job
from attar.methods.base import Group, Tensors
from attar.methods.minimax.adaptor import adapted, attach, transformer_of
from attar.methods.minimax.criteria import CriterionMeans, Memory
from attar.methods.minimax.loss import MinimaxLoss
from attar.methods.minimax.monitor import MEASURES, TuningMonitor
from attar.methods.minimax.settings import MonitorConfig, TuneSettings
from attar.priors.prior import Prior
from attar.priors.shared_embedders import SharedDiT, check_alike, share_embedders
from attar.priors.training.adaptors import check_lora
from attar.priors.training.latent_set import LatentSet, load_latents
from attar.priors.training.optimise import Session, TrainingState, optimise
from attar.training.processes import accelerator

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Tune(TuneSettings):
    """Fine-tunes the prior on groups of classes with the representativeness and diversity criteria."""

    def check(self, prior: Prior) -> None:
        """Raises AttarError unless the prior is a DiT, on a device where it can be tuned."""
        check_alike(transformer_of(prior), "fit tunes one adaptor for all blocks")
        if _accelerator(prior).num_processes > 1:
            raise AttarError("fit tunes in one process; start it without `accelerate launch`")
        if self.adapt == "lora":
            check_lora()

    @property
    def keyed(self) -> Tune:
        return replace(self, monitor=MonitorConfig())

    def run(self, job: Job, group: Group, scratch: Path) -> Tensors:
        """Tunes one group's adaptor; an interrupted run goes on from its checkpoint to the same weights."""
        prior, data = job.prior, self.data(job, group)
        plan = self.plan(self.training_steps([int(count) for count in data.labels.bincount()]))
        network = (
            share_embedders(transformer_of(job.master()), str(job.spec.prior)).requires_grad_(False).to(prior.device)
        )
        text = f"tuning {job.classes[group[0]]}" + f" and {len(group) - 1} more" * (len(group) > 1)
        helper = _accelerator(prior)
        loss = self._loss(job, group, network, data, helper)
        session = Session(scratch, helper, text, job.progress, (loss.real, loss.generated, loss.means))
        with ExitStack() as stack:
            tuned = attach(self, network, stack)
            values = list(tuned.values())
            monitor = self._monitor(job, group, values, loss, plan.steps, scratch / MEASURES)
            monitor(TrainingState(0, [], [value.detach().clone() for value in values], 0.0))
            optimise(values, loss, plan, session, monitor)
            return {name: value.detach().cpu().contiguous() for name, value in tuned.items()}

    def _loss(self, job: Job, group: Group, network: SharedDiT, data: LatentSet, helper: Accelerator) -> MinimaxLoss:
        prior, schedule, features = job.prior, job.prior.schedule, math.prod(data.shape)
        real, generated = (Memory.empty(len(group), self.memory, features, prior.device) for _ in range(2))
        return MinimaxLoss(
            network=network,
            forward=Forward(schedule.betas.to(prior.device), schedule.prediction, schedule.straight),
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
    ) -> TuningMonitor:
        return TuningMonitor(
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

    def data(self, job: Job, group: Group) -> LatentSet:
        """The group's posteriors, mirrored ones too, their labels counted within the group."""
        images = job.images.restricted([job.classes[label] for label in group])
        return load_latents(replace(job.latents, images=images), self.flip, job.progress)

    def adapted(self, prior: Prior, fitted: Tensors) -> AbstractContextManager[Prior]:
        return adapted(self, prior, fitted)


def _accelerator(prior: Prior) -> Accelerator:
    return accelerator(str(prior.device), str(prior.dtype).removeprefix("torch."))
