"""The settings of a prior's training: the data, the network, the optimiser. Loads no torch, for the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

from attar.core.arguments import check_fields
from attar.core.config import Range, check_ranges
from attar.core.errors import AttarError
from attar.core.limits import SIDE, check_guidance, check_most

Preprocess = Literal["adm", "resize-crop", "squash"]

_OPTIMISATION: tuple[Range, ...] = (
    ("a whole number of 1 or more", lambda x: x >= 1, ("steps", "batch")),
    ("a number above 0", lambda x: 0 < x < math.inf, ("learning_rate", "clip")),
    ("a number of 0 or more", lambda x: 0 <= x < math.inf, ("warmup", "weight_decay")),
    ("a number from 0 to below 1", lambda x: 0 <= x < 1, ("ema_decay",)),
)
_DENOISING: tuple[Range, ...] = (
    ("a number from 0 to below 1", lambda x: 0 <= x < 1, ("label_dropout",)),
    ("a number above 0, or none", lambda x: 0 < x < math.inf, ("min_snr",)),
)
_AUTOENCODING: tuple[Range, ...] = (
    ("a whole number of 1 or more", lambda x: x >= 1, ("width", "channels")),
    ("a number of 0 or more", lambda x: 0 <= x < math.inf, ("kl_weight",)),
)


@dataclass(frozen=True)
class Optimisation:
    """How weights are optimised: AdamW, a learning rate that warms up, gradients of norm 1 at most, and an average."""

    steps: int = 10_000
    """Number of batches that are trained on."""
    batch: int = 128
    """Images in a batch, over all processes."""
    learning_rate: float = 5e-4
    """Learning rate of AdamW after its warm-up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate falls after its warm-up; cosine: to a twentieth."""
    warmup: int = 100
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    ema_decay: float = 0.999
    """Decay of the weights' moving average, which is what is kept."""
    ema_warmup: bool = True
    """Warm the average up: its decay is min(decay, (1 + n) / (10 + n)) after n steps. Off: it begins at the untrained
    weights."""
    clip: float | None = 1.0
    """Largest norm of a step's gradients; none: they are not clipped."""
    seed: int = 0
    """Seed of the weights, the batches and the noise."""

    part: ClassVar[str] = "training"
    """The field that holds it."""

    def __post_init__(self) -> None:
        check_ranges(self, _OPTIMISATION, self.part, part=True)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        import numpy as np

        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        fall = 0.5 * (1 + np.cos(np.pi * step / self.steps)) if self.schedule == "cosine" else 1.0
        return float(self.learning_rate * warm * (0.05 + 0.95 * fall))


@dataclass(frozen=True)
class Denoising(Optimisation):
    """How a DiT is trained on latents, whatever its size: epsilon prediction unless it came with another."""

    label_dropout: float = 0.1
    """Share of labels that are replaced by the null label, once per sample, outside the network."""
    min_snr: float | None = 5.0
    """Gamma of the loss's Min-SNR weights (Hang et al., ICCV 2023, equation 6); none: all weights are 1, as those of
    a rectified flow are anyway."""
    compile: bool = False
    """Compile the blocks (torch.compile): minutes at the start, then about a tenth faster; other last bits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, _DENOISING, self.part, part=True)


@dataclass(frozen=True)
class Training(Denoising):
    """A DiT's size and how it is trained: linear betas, or a rectified flow's straight path; 1000 times."""

    hidden: int = field(default=256, kw_only=True)
    """Width of the network: numbers in a token."""
    layers: int = field(default=8, kw_only=True)
    """Number of transformer blocks."""
    heads: int = field(default=4, kw_only=True)
    """Attention heads in a block."""
    patch: int = field(default=2, kw_only=True)
    """Side of a token, in latent pixels."""
    learned_sigma: bool = field(default=False, kw_only=True)
    """Let the network predict a range of the variance, too (improved DDPM's hybrid loss)."""
    prediction: Literal["epsilon", "v_prediction", "flow"] = field(default="epsilon", kw_only=True)
    """What the network predicts: the noise; the velocity sqrt(abar) noise - sqrt(1 - abar) z (Salimans and Ho, ICLR
    2022, appendix D); or, of a rectified flow, noise - z on the straight path from one to the other (Liu et al., ICLR
    2023), at logit-normal times (Esser et al., ICML 2024). Every method takes each."""

    align_weight: float = field(default=0.5, kw_only=True)
    """Weight of the alignment with a teacher, in the loss, if there is one."""

    LATER: ClassVar[Mapping[str, Any]] = {"prediction": "epsilon", "align_weight": 0.5}
    """Fields that older priors lack: one that does not use them keeps its key."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("hidden", "layers", "heads", "patch"):
            if getattr(self, name) < 1:
                raise AttarError(f"`{name}` {getattr(self, name)}: must be 1 or more")
        if self.hidden % self.heads or self.hidden % 4:
            raise AttarError(f"`hidden` {self.hidden}: must be divisible by `heads`, {self.heads}, and by 4")
        if not 0 < self.align_weight < math.inf:
            raise AttarError(f"`align_weight` {self.align_weight}: must be a number above 0")
        if self.prediction == "flow" and self.learned_sigma:
            raise AttarError("`prediction` flow: it has no variance to learn; leave `learned_sigma` off")


@dataclass(frozen=True)
class Autoencoding(Optimisation):
    """A small AutoencoderKL and how it is trained: mean squared error of the pixels and a little of the KL term."""

    steps: int = 5000
    """Steps of the training."""
    batch: int = 64
    """Images in a batch."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW."""
    width: int = 32
    """Channels of the first level; all others have twice as many."""
    shrink: int = 4
    """How many times smaller than the image the latents are, a power of two."""
    channels: int = 8
    """Channels of the latents."""
    kl_weight: float = 1e-4
    """Weight of the KL term's mean over the latent values, against the mean squared error over pixels in [-1, 1]."""

    part = "vae"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, _AUTOENCODING, self.part, part=True)
        if self.shrink < 1 or self.shrink & (self.shrink - 1):
            raise AttarError(f"`vae.shrink` {self.shrink}: must be a power of two, such as 4")


@dataclass(frozen=True)
class Report:
    """How often and how closely a training is monitored.

    No part of what a prior is, unless the best of its reports is kept: changed, a training goes on as it was.
    """

    every: int | None = None
    """Steps between two sample grids with their measures; none: five times in all."""
    samples: int = 500
    """Images that are measured each time, spread evenly over the classes."""
    guidance: float = 2.0
    """Guidance of the samples that are shown and measured; 1 guides not at all."""
    steps: int = 25
    """Steps of DDIM that the samples take."""
    judge_steps: int = 800
    """Batches of 64 that the classifier is trained on, once for each data set."""

    def __post_init__(self) -> None:
        check_fields(self, "report")
        if (
            (self.every is not None and self.every < 1)
            or min(self.samples, self.judge_steps) < 2
            or not 1 <= self.steps <= 1000
        ):
            raise AttarError("report: every must be 1 or more, samples and judge_steps 2 or more, steps 1 to 1000")
        check_guidance("`report.guidance`", self.guidance)

    def interval(self, total: int) -> int:
        """Steps between two grids in a training of `total` steps."""
        return self.every or max(1, total // 5)

    def times(self, total: int) -> int:
        """How often samples are drawn in such a training: the last time at its end."""
        return -(-total // self.interval(total))


@dataclass(frozen=True)
class Material:
    """The data of a training, and where it runs."""

    data: str
    """Images to train on: digits, parquet:PATH (Hugging Face layout), imagefolder:PATH or just PATH, hf:REPO,
    torchvision:NAME; @SPLIT names a split."""
    preprocess: Preprocess = "adm"
    """How images are brought to the codec's size."""
    flip: bool = True
    """Mirror half of the images; off for images that mirroring changes, such as digits and text."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with images that cannot be read."""
    device: str = "auto"
    """Where to compute: auto, cpu or cuda."""
    dtype: str = "auto"
    """Number format of the networks: auto, float32 or bfloat16 (mixed precision)."""
    report: Report = Report()
    """How the training is monitored."""
    keep: Literal["last", "best"] = field(default="last", kw_only=True)
    """Which average of the weights is written: the last; or, of those reported, the one whose samples are best by the
    classifier's share (then by the Frechet distance). With best, another report is another prior."""

    LATER: ClassVar[Mapping[str, Any]] = {"keep": "last"}
    """A field that older priors lack: one that does not use it keeps its key."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def keyed(self) -> Self:
        """What a prior is made by: not where the data are and where it runs, nor a report that decides nothing."""
        report = self.report if self.keep == "best" else Report()
        return replace(self, data="", device="", dtype="", report=report)


def _check_size(size: int | None) -> None:
    if size is not None and size < 1:
        raise AttarError(f"`size` {size}: at least 1")
    check_most("`size`", size, SIDE)


@dataclass(frozen=True)
class NewPrior(Material):
    """`attar train-prior` in words: a class-conditional DiT from nothing."""

    codec: str = "pixel"
    """What the prior works on: pixel, grey, an autoencoder (the folder or hub id of an AutoencoderKL, or of a
    DiTPipeline with one), or train, to train one first."""
    size: int | None = None
    """Side of the images, in pixels; none: what the codec was trained on, or the one size that all images have."""
    training: Training = Training()
    """The network and how it is trained."""
    vae: Autoencoding = Autoencoding()
    """The autoencoder of `codec = "train"`."""
    align: str | None = None
    """A teacher of the same kind of images that helps (REPA, Yu et al., ICLR 2025): a folder of `attar train-teacher`,
    timm/NAME or torchvision/NAME. The tokens in the network's middle learn to hold what its last map holds."""

    LATER: ClassVar[Mapping[str, Any]] = {**Material.LATER, "align": None}
    """Fields that older priors lack: one that does not use them keeps its key."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_size(self.size)

    @property
    def keyed(self) -> Self:
        return replace(super().keyed, align=None)


@dataclass(frozen=True)
class AdaptedPrior(Material):
    """`attar finetune-prior` in words."""

    prior: str = field(kw_only=True)
    """The diffusion model that is adapted: digits, a folder or hub id of a DiTPipeline, or an original DiT.pt."""
    size: int | None = field(default=None, kw_only=True)
    """Side of the images, in pixels; none: the prior's own. A prior that learnt small images cheaply goes on with
    larger ones: its patches keep their size in pixels and grow in number, and positions are no weights."""
    adapt: Literal["all", "difffit", "bitfit", "lora"] = "all"
    """What is trained: all weights; difffit: biases, label table and scales; bitfit: biases and label table; lora:
    low-rank additions and the label table (needs attar[lora])."""
    rank: int = 16
    """Rank of LoRA's additions."""
    training: Denoising = Denoising(steps=2000, batch=64, learning_rate=1e-4, min_snr=None)
    """How it is trained."""

    LATER: ClassVar[Mapping[str, Any]] = {**Material.LATER, "size": None}
    """Fields that older priors lack: one that does not use them keeps its key."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise AttarError(f"`rank` {self.rank}: must be 1 or more")
        _check_size(self.size)
