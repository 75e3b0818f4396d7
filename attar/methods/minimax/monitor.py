"""A fine-tuning, monitored: samples of each class, measured against real latents, and the means of the criteria."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.core.files import read_lines, resumed, write_lines
from attar.core.limits import check_guidance
from attar.core.rng import noise
from attar.diffusion import Sampler, check_grid, grid, network_passes, sample
from attar.job import Job
from attar.methods.base import Group
from attar.priors.training.latent_set import LatentSet
from attar.priors.training.monitor import NetworkDenoiser, holding
from attar.priors.training.optimise import Moment

if TYPE_CHECKING:
    from attar.methods.minimax.finetune import Tune

MEASURES = "measures.jsonl"
NEIGHBOURS = 5


@dataclass(frozen=True)
class MonitorConfig:
    """How closely a fine-tuning is monitored (attar.methods.minimax.monitor says what is measured).

    Classes with too few images for neighbourhoods are left out of the means.
    """

    times: int = 3
    """How many times it is measured, the start and the end among them; 0 not at all."""
    samples: int = 20
    """Samples of each class, drawn with DDIM, from the same noise each time."""
    real: int = 200
    """Real latents of each class that they are compared with."""
    steps: int = 20
    """Steps of DDIM."""
    guidance: float = 4.0
    """Guidance of the samples."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.times < 0 or self.times == 1:
            raise AttarError(f"fit.monitor.times {self.times}: 0, 2 or more")
        check_grid("fit.monitor", self.steps, "leading")
        check_guidance("`fit.monitor.guidance`", self.guidance)
        for name in ("samples", "real"):
            if getattr(self, name) <= NEIGHBOURS:
                raise AttarError(f"fit.monitor.{name} {getattr(self, name)}: must be more than {NEIGHBOURS}")

    def due(self, step: int, total: int) -> bool:
        """Whether it is measured after this step of `total`."""
        return self.times > 0 and step in {round(i * total / (self.times - 1)) for i in range(self.times)}

    def passes(self, classes: int) -> int:
        """Network passes, in images, that all measurements take."""
        return self.times * self.samples * classes * self.steps * network_passes(self.guidance)


@dataclass(eq=False)
class CriterionMeans:
    """The means of the two criteria, unweighted, over the steps since they were last taken."""

    sums: Tensor
    """(3,): the sum of each, and the number of steps."""

    def add(self, first: Tensor, second: Tensor) -> None:
        """Counts a step."""
        self.sums += torch.stack([first.detach(), second.detach(), torch.ones_like(first)])

    def take(self) -> dict[str, float]:
        """The means, which begin anew; empty before the first step."""
        first, second, steps = self.sums.tolist()
        self.sums.zero_()
        return {"representativeness": first / steps, "diversity": second / steps} if steps else {}

    def state_dict(self) -> dict[str, Tensor]:
        return {"sums": self.sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.sums.copy_(state["sums"])


@dataclass(frozen=True, eq=False)
class Monitor:
    """Measures one group's fine-tuning as it goes."""

    fit: Tune
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

    def __call__(self, moment: Moment) -> None:
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
        return self.data.mean[0, self.data.labels == number][: self.fit.monitor.real].float()

    def _sampled(self, label: int) -> Tensor:
        """Samples (N, C, H, W) of a class, from the network as it is."""
        prior, config, name = self.job.prior, self.fit.monitor, self.job.classes[label]
        self.job.progress(f"sampling {name}, to measure how well the class is covered", label / len(self.job.classes))
        z = noise((config.samples, *prior.codec.shape), self.fit.seed, "look", name).to(prior.device)
        y = self.job.conditions([label]).expand(config.samples)
        start = grid(config.steps, "leading", len(prior.schedule))[-1]
        denoiser = NetworkDenoiser(prior.schedule, prior.null, self.network, prior.device, prior.dtype)
        return sample(denoiser, z, start, y, Sampler(steps=config.steps, guidance=config.guidance)).cpu()


def measures(real: Sequence[Tensor], generated: Sequence[Tensor], memory: int) -> dict[str, float]:
    """Means over the classes of the measures of each class's latents, (N, C, H, W) real and (M, C, H, W) generated.

    precision, recall (Kynkaanniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020) with 5
    neighbours in latent space; `farthest`, 1 minus the smallest cosine of a generated latent to `memory` real ones, and
    `nearest`, its largest cosine to another generated one: what representativeness and diversity make small.
    """
    by_class = []
    for of_real, of_generated in zip(real, generated, strict=True):
        farthest = (1 - (_unit(of_generated) @ _unit(of_real[:memory]).T).amin(1)).mean()
        cosines = {"farthest": float(farthest), "nearest": _nearest(of_generated)}
        by_class.append({**neighbourhoods(of_real.flatten(1), of_generated.flatten(1)), **cosines})
    return {name: sum(values[name] for values in by_class) / len(by_class) for name in by_class[0]}


def neighbourhoods(real: Tensor, generated: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density and coverage of features (M, D) for real ones (N, D); each needs more than k rows."""
    between = torch.cdist(generated.double(), real.double())
    real_radius, generated_radius = (_radius(features.double(), k) for features in (real, generated))
    near_real = between < real_radius
    return {
        "precision": float(near_real.any(1).double().mean()),
        "recall": float((between < generated_radius[:, None]).any(0).double().mean()),
        "density": float(near_real.double().sum(1).mean() / k),
        "coverage": float((between.amin(0) < real_radius).double().mean()),
    }


def _radius(features: Tensor, k: int) -> Tensor:
    """(N,): the distance of each row to its k-th nearest other row."""
    return torch.cdist(features, features).kthvalue(min(k + 1, len(features)), 1).values


def _nearest(z: Tensor) -> float:
    cosines = _unit(z) @ _unit(z).T
    return float(cosines.fill_diagonal_(-1).amax(1).mean())


def _unit(z: Tensor) -> Tensor:
    return F.normalize(z.flatten(1).float(), dim=1)
