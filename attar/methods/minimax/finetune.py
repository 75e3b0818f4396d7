"""The fit of Minimax Diffusion: an adaptor for each group of classes, tuned on cached latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from attar.core.errors import AttarError
from attar.diffusion.loss import Forward
from attar.job import Job
from attar.methods.base import Group, Tensors
from attar.methods.minimax.criteria import Means, Memory, MinimaxLoss
from attar.methods.minimax.monitor import MEASURES, Look, Looker
from attar.priors.prior import Prior
from attar.priors.shared_embedders import TiedDiT, check_alike, tied, tied_in_place
from attar.priors.training.adaptors import DiffFit, add_lora, check_lora, merge_lora
from attar.priors.training.latent_set import LatentSet, load_latents
from attar.priors.training.optimise import Moment, Optimisation, accelerator, optimise

CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Tune:
    """Fine-tunes the prior on groups of classes with the minimax criteria (Gu et al., CVPR 2024, section 3.2)."""

    representativeness: float = 0.002
    """Weight of the first criterion; 0 leaves it out."""
    diversity: float = 0.008
    """Weight of the second criterion; 0 leaves it out."""
    memory: int = 64
    """Latents of each class that each memory holds."""
    epochs: int = 8
    max_steps: int | None = None
    """Stop after so many steps of the epochs: 3000 can be borne without a GPU."""
    batch: int = 8
    learning_rate: float = 1e-3
    """Of AdamW without weight decay, constant."""
    ema_decay: float = 0.9999
    """Of the averaged weights, which are what is kept."""
    ema_warmup: bool = True
    """Off is the reference's plain average, which leaves short runs nearly untuned."""
    label_dropout: float = 0.1
    group: int = 20
    """At most so many classes share an adaptor; its authors advise against more."""
    balanced: bool = False
    """Draw classes evenly, not as often as they have images: for long tails."""
    flip: bool = True
    """Mirror half of the images; off for images that mirroring changes, such as digits."""
    adapt: Literal["difffit", "bitfit", "lora"] = "difffit"
    """Biases, label table and scales of outputs; biases alone; or low-rank additions and the label table."""
    rank: int = 16
    """Of LoRA."""
    look: Look = Look()
    """How it is watched. It is part of what is stored: with another `look` the same weights are tuned anew."""
    seed: int = 0
    """Sets of several seeds share one tuning; another `fit.seed` is another tuning."""

    learns = True
    tunes = True
    uses_prior = True
    needs = 1

    def __post_init__(self) -> None:
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

    def check(self, prior: Prior) -> None:
        """Raises AttarError unless the prior is a DiT, on a device where it can be tuned."""
        check_alike(_transformer(prior), "minimax tunes one adaptor for all blocks")
        if accelerator(str(prior.device), str(prior.dtype).removeprefix("torch.")).num_processes > 1:
            raise AttarError("minimax tunes in one process; start it without `accelerate launch`")
        if self.adapt == "lora":
            check_lora()

    def for_ipc(self, ipc: int) -> Tune:
        return self

    def groups(self, labels: Sequence[int]) -> list[Group]:
        """As few groups as there can be, of about the same size."""
        count = -(-len(labels) // self.group)
        cuts = [len(labels) * number // count for number in range(count + 1)]
        return [list(labels[begin:end]) for begin, end in pairwise(cuts)]

    def encodings(self, counts: Sequence[int]) -> int:
        return sum(counts) * (2 if self.flip else 1)

    def training_steps(self, counts: Sequence[int]) -> int:
        epoch = sum(counts) // self.batch
        if not epoch:
            raise AttarError(f"fit.batch {self.batch}: more than the {sum(counts)} images of a group of classes")
        return min(self.epochs * epoch, self.max_steps or self.epochs * epoch)

    def passes(self, counts: Sequence[int]) -> int:
        return 3 * self.batch * self.training_steps(counts) + self.look.passes(len(counts))

    def run(self, job: Job, group: Group, scratch: Path) -> Tensors:
        """Tunes one group's adaptor; an interrupted run goes on from its checkpoint to the same weights."""
        prior, data = job.prior, self.data(job, group)
        plan = self.plan(self.training_steps([int(count) for count in data.labels.bincount()]))
        network = tied(_transformer(prior), str(job.spec.prior)).requires_grad_(False).to(prior.device)
        helper = accelerator(str(prior.device), str(prior.dtype).removeprefix("torch."))
        features = data.mean[0, 0].numel()
        real, generated = (Memory.empty(len(group), self.memory, features, prior.device) for _ in range(2))
        means = Means(torch.zeros(3, device=prior.device))
        loss = MinimaxLoss(
            network=network,
            forward=Forward(prior.schedule.betas.to(prior.device), prior.schedule.prediction),
            data=data,
            y=job.conditions(group),
            null=prior.null,
            batch=self.batch,
            balanced=self.balanced,
            label_dropout=self.label_dropout,
            representativeness=self.representativeness,
            diversity=self.diversity,
            real=real,
            generated=generated,
            means=means,
            seed=self.seed,
            helper=helper,
        )
        text = f"tuning {job.classes[group[0]]}" + f" and {len(group) - 1} more" * (len(group) > 1)
        with ExitStack() as stack:
            tuned = self._attached(network, stack)
            values = list(tuned.values())
            watch = Looker(
                look=self.look,
                job=job,
                group=group,
                network=network,
                tuned=values,
                data=data,
                means=means,
                memory=self.memory,
                seed=self.seed,
                total=plan.steps,
                file=scratch / MEASURES,
            )
            watch(Moment(0, [], [value.detach().clone() for value in values], 0.0))
            kept = (real, generated, means)
            optimise(values, loss, plan, scratch, helper, text, job.progress, watch, CHECKPOINT_SECONDS, kept)
            return {name: value.detach().cpu().contiguous() for name, value in tuned.items()}

    @contextmanager
    def adapted(self, prior: Prior, fitted: Tensors) -> Iterator[Prior]:
        """The prior with the group's adaptor attached; or, of LoRA, merged into a copy of it."""
        transformer = _transformer(prior)
        if self.adapt != "lora":
            adaptor = DiffFit({name: nn.Parameter(value.to(prior.device)) for name, value in fitted.items()})
            with tied_in_place(transformer) as network, adaptor.attached(network):
                yield replace(prior, network=network)
            return
        network = tied(transformer, "LoRA")
        add_lora(network, self.rank, self.seed, "lora")
        assert not network.load_state_dict(fitted, strict=False).unexpected_keys
        merge_lora(network)
        yield replace(prior, network=network)

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

    def _attached(self, network: TiedDiT, stack: ExitStack) -> dict[str, nn.Parameter]:
        """What is tuned, by name, put into the network for as long as the stack lasts."""
        if self.adapt == "lora":
            add_lora(network, self.rank, self.seed, "lora")
            return {name: value for name, value in network.named_parameters() if value.requires_grad}
        adaptor = DiffFit.of(network, biases_alone=self.adapt == "bitfit")
        stack.enter_context(adaptor.attached(network))
        return adaptor.values

    def data(self, job: Job, group: Group) -> LatentSet:
        """The group's posteriors, mirrored ones too, their labels counted within the group."""
        images = job.images.restricted([job.classes[label] for label in group])
        return load_latents(images, lambda some: replace(job.latents, images=some), self.flip, job.progress)


def _transformer(prior: Prior) -> Any:
    transformer = getattr(prior.network, "transformer", None)
    if transformer is None:
        raise AttarError(f"minimax tunes DiTs only, and this prior is a {type(prior.network).__name__}")
    return transformer
