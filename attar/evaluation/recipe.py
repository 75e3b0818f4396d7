"""An evaluation protocol as a frozen object: every choice is a field. Loads no torch.

Fields that published codes set by IPC or by network are tables in words: "9:15, 49:50, 100" is 15 to 9 images per
class, 50 to 49 and 100 above; "vit: 1e-4, 1e-3" is 1e-4 for networks with "vit" in their name and 1e-3 for others. A
plain number takes the place of a table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from attar.core.config import Range, check_ranges, entries
from attar.core.errors import AttarError
from attar.core.limits import SIDE, check_most
from attar.teachers.label_schemes import Scheme, is_fixed

_RANGES: tuple[Range, ...] = (
    (
        "a whole number of 1 or more",
        lambda x: 1 <= x < math.inf and x == int(x),
        ("steps", "size", "shuffle", "label_epochs", "accumulate"),
    ),
    ("a number of 0 or more", lambda x: 0 <= x < math.inf, ("weight_decay", "warmup", "lighting")),
    ("a number from 0 to 1", lambda x: 0 <= x <= 1, ("momentum", "jitter", "mix_probability")),
    ("a share above 0, at most 1", lambda x: 0 < x <= 1, ("crop",)),
    ("a number above 0", lambda x: 0 < x < math.inf, ("temperature", "mix_alpha")),
)
_TABLES: tuple[Range, ...] = (
    ("whole numbers above 0", lambda x: 1 <= x < math.inf and x == int(x), ("epochs", "batch")),
    ("numbers above 0", lambda x: 0 < x < math.inf, ("lr",)),
    ("numbers of 0 or more", lambda x: 0 <= x < math.inf, ("test_from",)),
)
"""What each number of a table may be."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on a set and tested. `dataclasses.replace` or `modified` makes another one of it.

    Raises:
        AttarError: a number lies outside of what its field can be.
    """

    name: str
    """As `recipe` names it; "(modified)" ends the name of a changed one."""
    source: str
    """Paper, and the code that the values were read from."""

    labels: Literal["hard", "soft"] = "hard"
    """soft: a teacher's logits on every augmented view, or, with a fixed `scheme`, on the whole image."""
    temperature: float = 20.0
    """Temperature of the KL divergence from soft labels. With fixed ones it is the teacher's alone: the loss is the
    cross-entropy with its probabilities, as in Qin et al.'s code (softlabel/nodistill.py, utils.py). Unused with hard
    labels."""
    views: Literal["batch", "image"] = "batch"
    """batch: drawn anew for every batch. image: by image and epoch, whatever the batches, as labels for them need."""
    box: Literal["image", "batch"] = "image"
    """How views by image are mixed: a ratio and box for each image, or one for a batch of an epoch (FKD's code)."""
    scheme: str = "online"
    """How soft labels are stored: online (not at all), fp16, int8, int4, or of the k largest logits, as top5-int8.
    fixed, or fixed-int8 ...: one label an image for all of its views, mixed as hard labels are (Qin et al., NeurIPS
    2024, "A Label is Worth a Thousand Images"); it brings labels = soft and temperature = 2 along."""
    label_epochs: int | None = None
    """How many epochs have views and labels of their own, shown again and again; None: all."""
    extra_forward: bool = False
    """One pass more of the student at every step, without gradients, which moves its batch-norm statistics. It sees the
    batch as RDED's code holds it by then: mixed by CutMix, which writes in place; unmixed beside mixup."""

    epochs: int | str | None = None
    """Passes over the images, by IPC; None where `steps` is given."""
    steps: int | None = None
    """Batches instead of epochs, so that the cost does not depend on the IPC."""
    batch: int | str = 64
    """Images in a batch, by IPC."""
    batch_doubled_at: tuple[int, ...] = ()
    """Numbers of classes at which the batch is twice as large."""
    accumulate: int = 1
    """Parts in which a batch passes through the student: their gradients add up, and batch norm sees one at a time. As
    in FKD's code each counts one share, so that the smaller last batch of an epoch moves the weights less."""
    many_classes: Literal["as is", "idc"] = "as is"
    """idc: at 100 classes two thirds of the epochs, in whole hundreds; above, lr 0.1, decay 1e-4, batch 128 or more."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """sgd: with momentum; adamw: betas 0.9 and 0.999."""
    lr: float | str = 0.01
    """Learning rate, by network."""
    momentum: float = 0.9
    """Momentum of SGD, from 0 to 1."""
    weight_decay: float = 5e-4
    """Decay of the weights, of AdamW decoupled from the loss."""
    decay_vectors: bool = True
    """Whether biases and norms are decayed too."""
    schedule: Literal["multistep", "half-cosine", "cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls (`attar.training.plan.rate`)."""
    warmup: int = 0
    """Epochs, or steps where `steps` is given; at most a quarter of them is used, so that short ones end it too."""

    size: int | None = None
    """Side of the images that the network sees, in pixels; None: the training images' own."""
    resize_first: bool = False
    """Whether training images are resized and centre-cropped to `size` before they are augmented."""
    shuffle: int = 1
    """Rows and columns that training images are cut into, and which are shuffled; 1: they are not."""
    crop: float | None = None
    """Random resized crop: the least share of the area."""
    flip: bool = True
    """Off for images that a flip changes, such as digits."""
    jitter: float = 0.0
    """Range of brightness, contrast and saturation: factors 1 - jitter ... 1 + jitter; 0: none."""
    lighting: float = 0.0
    """Deviation of the noise along the principal colours of ImageNet; 0: none."""
    dsa: bool = False
    """DSA's colours and geometry without cutout, as in IDC."""
    mix: Literal["none", "cutmix", "mixup"] = "none"
    """How two training images become one."""
    mix_probability: float = 1.0
    """Share of the batches that are mixed, from 0 to 1."""
    mix_alpha: float = 1.0
    """Both parameters of the mixing weight's beta distribution; 1: uniform."""
    normalise: Literal["imagenet", "cifar", "half"] = "imagenet"
    """Mean and deviation of the input: of ImageNet, of CIFAR-10, or 0.5 and 0.5."""

    test_resize: Literal["size", "eighth"] = "size"
    """The shorter side of test images before their centre crop to `size`: `size`, or (eighth) size // 7 * 8."""
    test_every: int | str | None = None
    """Tests before the last one, for `best` only: epochs (or steps) between two, or "N%" of all; None: no others."""
    test_from: float | str = 0.0
    """No such test up to this epoch, by IPC; below 1, in this share of the epochs."""
    precision: Literal["auto", "float32", "tf32", "float16", "bfloat16"] = "auto"
    """tf32: float32, but TF32 in convolutions, torch's default. float16, bfloat16: mixed precision. auto: bfloat16
    where the device multiplies it. What it lacks is float32 there; the record says what was used."""
    compile: bool = False
    """Compile the network (torch.compile): half a minute at most at first, then faster, ConvNets on a CPU most of all;
    other last bits."""

    LATER: ClassVar[Mapping[str, Any]] = {"compile": False}

    def __post_init__(self) -> None:
        check_ranges(self, _RANGES, f"recipe {self.name}")
        check_most(f"recipe {self.name}: `size`", self.size, SIDE)
        for words, holds, names in _TABLES:
            for name in names:
                table = getattr(self, name)
                if table is not None and not all(holds(value) for _, value in entries(table, name)):
                    raise AttarError(f"recipe {self.name}: {name} = {table!r}: give {words}")
        if self.scheme != "online" or self.label_epochs is not None:
            self._check_labels()
        if self.test_every is not None and not re.fullmatch(
            r"0*([1-9][0-9]*|[1-9][0-9]?\s*%|100\s*%)", str(self.test_every)
        ):
            raise AttarError(
                f"recipe {self.name}: test_every = {self.test_every!r}: "
                'give a number of epochs, a share of them such as "5%", or none'
            )

    @property
    def fixed(self) -> bool:
        """Whether it learns from one soft label an image."""
        return is_fixed(self.scheme)

    def _check_labels(self) -> None:
        if self.scheme != "online":
            Scheme.named(self.scheme)
        if self.fixed:
            if self.labels == "hard" or self.label_epochs is not None:
                raise AttarError(
                    f"recipe {self.name}: scheme = {self.scheme}, label_epochs = {self.label_epochs}: fixed labels "
                    "need labels = soft, and are the same in every epoch: leave out label_epochs"
                )
            return
        if self.labels == "hard" or self.views == "batch":
            raise AttarError(
                f"recipe {self.name}: scheme = {self.scheme}, label_epochs = {self.label_epochs}: stored and reused "
                "labels need labels = soft and views = image"
            )

    def shorter_side(self, size: int) -> int:
        """The shorter side of test images, in pixels, before they are cropped to `size`."""
        return size if self.test_resize == "size" else max(size // 7 * 8, size)
