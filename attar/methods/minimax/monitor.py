"""A fine-tuning, monitored: samples of each class are measured against real latents, and the criteria are noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from attar.core.files import read_lines, resumed, write_lines
from attar.core.rng import noise
from attar.diffusion import Sampler, grid, sample
from attar.job import Job
from attar.methods.base import Group
from attar.methods.minimax.criteria import CriterionMeans
from attar.methods.minimax.measures import NEIGHBOURS, measures
from attar.methods.minimax.settings import TuneSettings
from attar.priors.training.latent_set import LatentSet
from attar.priors.training.monitor import NetworkDenoiser, holding
from attar.priors.training.optimise import TrainingState

MEASURES = "measures.jsonl"


@dataclass(frozen=True, eq=False)
class TuningMonitor:
    """Measures one group's fine-tuning as it goes."""

    fit: TuneSettings
    """The settings, among them how closely it is monitored."""
    job: Job
    group: Group
    network: nn.Module
    """Called with latents, times and prior labels."""
    tuned: Sequence[nn.Parameter]
    """The parameters that are tuned."""
    data: LatentSet
    """The group's, its labels counted within the group."""
    means: CriterionMeans
    total: int
    """Steps of the fine-tuning."""
    file: Path
    """Where the measures are written, a line each time."""

    def __call__(self, moment: TrainingState) -> None:
        """Writes a line of measures, if it is time to and there is none of this step yet."""
        if not self.fit.monitor.due(moment.step, self.total):
            return
        criteria, lines = self.means.take(), resumed(self.file, read_lines) or []
        real = {label: self._real(number) for number, label in enumerate(self.group)}
        large = {label: z for label, z in real.items() if len(z) > NEIGHBOURS}
        if not large or any(line["step"] == moment.step for line in lines):
            return
        with holding(self.tuned, moment.average):
            generated = [self._sampled(label) for label in large]
        record = {"step": moment.step, **measures(list(large.values()), generated, self.fit.memory), **criteria}
        write_lines(self.file, [*lines, record])

    def _real(self, number: int) -> Tensor:
        """Real latents (N, C, H, W) of the group's class of this number."""
        return self.data.mean[torch.where(self.data.labels == number)[0][: self.fit.monitor.real]].float()

    def _sampled(self, label: int) -> Tensor:
        """Samples (N, C, H, W) of a class, from the network as it is."""
        prior, config, name = self.job.prior, self.fit.monitor, self.job.classes[label]
        self.job.progress(f"sampling {name}, to measure how well the class is covered", label / len(self.job.classes))
        z = noise((config.samples, *prior.codec.shape), self.fit.seed, "look", name).to(prior.device)
        y = self.job.conditions([label]).expand(config.samples)
        start = grid(config.steps, "leading", len(prior.schedule))[-1]
        denoiser = NetworkDenoiser(prior.schedule, prior.null, self.network, prior.device, prior.dtype)
        return sample(denoiser, z, start, y, Sampler(steps=config.steps, guidance=config.guidance)).cpu()
