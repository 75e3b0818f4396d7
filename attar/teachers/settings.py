"""The settings of the training of a teacher. Loads no torch, for the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from attar.core.config import Range, check_ranges
from attar.core.limits import SIDE, check_most
from attar.networks import check

_RANGES: tuple[Range, ...] = (
    ("a whole number of 1 or more", lambda x: 1 <= x < math.inf and x == int(x), ("size", "epochs", "batch")),
    ("a number above 0", lambda x: 0 < x < math.inf, ("lr",)),
    ("a number of 0 or more", lambda x: 0 <= x < math.inf, ("shift", "weight_decay")),
    ("a number from 0 to below 1", lambda x: 0 <= x < 1, ("momentum", "label_smoothing")),
    ("a share above 0, at most 1", lambda x: 0 < x <= 1, ("crop", "stop_at")),
)


@dataclass(frozen=True)
class TeacherTraining:
    """`attar train-teacher` in words. The defaults suit 32-pixel photographs."""

    data: str
    """Images to train on: digits, parquet:PATH (Hugging Face layout), imagefolder:PATH or just PATH, hf:REPO,
    torchvision:NAME; @SPLIT names a split."""
    network: str | None = None
    """The network (`attar list networks`, or any of timm); none: airbench-w32, or convnet3-bn-w48 for images below 32
    pixels."""
    size: int | None = None
    """Side of the images, in pixels; none: the first image's own."""
    preprocess: Literal["adm", "resize-crop", "squash"] = "resize-crop"
    """How images are brought to that size."""
    normalise: Literal["imagenet", "cifar", "half"] = "cifar"
    """Mean and deviation that the input is normalised by; half: 0.5 and 0.5."""
    flip: bool = True
    """Mirror half of the images; off for images that mirroring changes, such as digits and text."""
    shift: int = 2
    """Most pixels that images are moved by, each way."""
    crop: float | None = None
    """Random resized crops instead or as well: the least share of the area; none: no crops."""
    epochs: int = 16
    """Passes over the images."""
    stop_at: float | None = None
    """End as soon as this share of the images held out is right, looked at four times an epoch; none: after all epochs.
    Teachers of fixed labels do well to know little: 0.56, 0.65, 0.75 for 1, 10, 50 images a class of CIFAR-10 (Qin et
    al., NeurIPS 2024)."""
    batch: int = 256
    """Images in a batch."""
    lr: float | None = None
    """Highest learning rate of SGD with Nesterov's momentum: it rises for a quarter of the steps, then falls; none:
    0.25, of ConvNets 0.05."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-3
    """Weight decay of SGD."""
    label_smoothing: float = 0.1
    """Share of each label that is spread over all classes."""
    seed: int = 0
    """Seed of the weights, the batches and the augmentation."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with images that cannot be read."""
    device: str = "auto"
    """Where to compute: auto, cpu or cuda."""
    test: str | None = None
    """Images to test the finished teacher on, for a final table only; a tenth of the data is always held out."""

    def __post_init__(self) -> None:
        check_ranges(self, _RANGES, "train-teacher")
        check_most("`size`", self.size, SIDE)
        if self.network is not None:
            check(self.network)
