"""Minimax Diffusion, section 3.2: the settings of the fine-tuning and of its monitor, what they cost, their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.core.limits import check_guidance
from attar.diffusion import check_grid, network_passes
from attar.methods.base import Fit, Group
from attar.methods.minimax.measures import NEIGHBOURS
from attar.priors.training.settings import Optimisation


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
        check_fields(self, "fit.monitor")
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


@dataclass(frozen=True)
class TuneSettings(Fit):
    """Which groups of classes are tuned, and how."""

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

    sparsity = 0.0
    """Weight of mean |x0|: a field of `attar.methods.rsm`."""
    tunes = True
    uses_prior = True

    def groups(self, labels: Sequence[int]) -> list[Group]:
        """As few groups as there can be, of about the same size."""
        count = -(-len(labels) // self.group)
        cuts = [len(labels) * number // count for number in range(count + 1)]
        return [list(labels[begin:end]) for begin, end in pairwise(cuts)]

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
        check_fields(self, "fit")
        for name in ("memory", "epochs", "batch", "learning_rate", "group", "rank"):
            if not 0 < getattr(self, name) < float("inf"):
                raise AttarError(f"fit.{name} {getattr(self, name)}: must be more than 0")
        for name in ("ema_decay", "label_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise AttarError(f"fit.{name} {getattr(self, name)}: must be 0 or more, and less than 1")
        for name in ("representativeness", "diversity", "sparsity"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise AttarError(f"fit.{name} {getattr(self, name)}: must be 0 or more")
        if self.max_steps is not None and self.max_steps < 1:
            raise AttarError(f"fit.max_steps {self.max_steps}: must be 1 or more")
