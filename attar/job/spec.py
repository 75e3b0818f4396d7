"""A job in words: what is to be distilled, with which prior, where. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.core.limits import SIDE, TILE, check_most, check_seed
from attar.teachers.label_schemes import Scheme, check_temperature, is_fixed


@dataclass(frozen=True)
class Spec:
    """A job in words: everything that decides its result but the method and the IPC."""

    data: str
    """Images to distill: digits, parquet:PATH (Hugging Face layout), imagefolder:PATH or just PATH, hf:REPO,
    torchvision:NAME; @SPLIT names a split."""
    prior: str | None = None
    """The diffusion model: digits, a folder or hub id of a DiTPipeline or StableDiffusionPipeline, or an original
    DiT.pt; train: `attar distill` alone trains one of the images first, in hours of a CPU, as OUT.prior; none:
    methods of real images need none."""
    codec: str | None = None
    """The autoencoder instead of the prior's own: pixel, or a folder or hub id of an AutoencoderKL or
    AutoencoderTiny."""
    classes: tuple[str, ...] | None = None
    """Only these classes, by name: cat,dog; or an ImageNet subset: imagewoof; none: all classes of the data."""
    class_map: str | None = None
    """A TOML or JSON file, data class = class name or label of the prior; classes that it does not hold match by
    name."""
    prompt: str = "{name}"
    """The prompt of a class for a text-conditioned prior (Stable Diffusion), {name} being its name."""
    prompts: str | None = None
    """A TOML or JSON file with a prompt for each class, class name = prompt, instead of `prompt`."""
    negative_prompt: str | None = None
    """What no image of a text-conditioned prior shall be; none: "cartoon, anime, painting", as in D4M."""
    imbalance_factor: float | None = None
    """Take a long-tailed view of the data: images of the largest class over those of the smallest (exponential
    profile)."""
    hold_out: bool = False
    """Leave out a fixed tenth of the data, to choose settings on (`attar evaluate` tests on it where its test images
    are held-out)."""
    seed: int = 0
    """Seed of all randomness."""
    keep_statistics: bool = False
    """Keep the mean and deviation of each class with the set (d3hr), which `attar regenerate` makes sets of any IPC
    from."""
    labels: str | None = None
    """Keep a soft label for each image in the set: fixed (in fp16), fixed-int8, fixed-int4; none: its class alone."""
    label_teacher: str | None = None
    """Who gives these labels, as `attar relabel --teacher`; none: the teacher that the method names."""
    label_temperature: float | Literal["auto"] | None = None
    """Temperature that they are to be learnt from at, kept with them: a number; auto: the best of some in short
    trainings on the held-out tenth, if they are not best left out; none: that of the recipe, 2."""
    preprocess: str = "adm"
    """How images are brought to the prior's size: adm, resize-crop or squash."""
    formation: int = 1
    """Save mosaics of K x K images, each at 1/K of its size (IDC): the method makes K^2 times as many, and its settings
    that depend on the IPC go by how many it makes."""
    output_size: int | None = None
    """Side of the saved images, in pixels; none: the prior's own (of real images in a formation, the data's)."""
    output_filter: Literal["lanczos", "bicubic"] = "lanczos"
    """How images are brought to `output_size`, and to the size that they have in a formation."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with images that cannot be read."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    dtype: str = "auto"
    """Number format of the networks: auto, float32, bfloat16 or float16."""
    tile: int | None = None
    """Images in one call of the prior's network; none: found by probing, as the codec's (attar.core.batching)."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_seed("`seed`", self.seed)
        for name in ("prior", "codec", "class_map", "prompts", "labels", "label_teacher"):
            if getattr(self, name) == "":
                raise AttarError(f"`{name}` is empty: name one, or leave it out")
        for name, value in (("tile", self.tile), ("output_size", self.output_size), ("formation", self.formation)):
            if value is not None and value < 1:
                raise AttarError(f"`{name}` {value}: at least 1")
        if self.output_filter != "lanczos" and self.output_size is None and self.formation == 1:
            raise AttarError(f"`output_filter` {self.output_filter}: needs an `output_size`, which it brings images to")
        if self.imbalance_factor is not None and not 1 <= self.imbalance_factor < math.inf:
            raise AttarError(f"`imbalance_factor` {self.imbalance_factor}: a number of 1 or more")
        if self.labels is not None and not is_fixed(self.labels):
            raise AttarError(
                f"`labels` {self.labels}: a set holds one an image: choose fixed, fixed-int8 or fixed-int4"
            )
        if self.labels is not None:
            Scheme.named(self.labels)
        if self.label_teacher is not None and self.labels is None:
            raise AttarError(f"`label_teacher` {self.label_teacher}: gives labels: ask for them with `labels` fixed")
        check_temperature(self.label_temperature, self.labels)
        check_most("`tile`", self.tile, TILE)
        check_most("`output_size`", self.output_size, SIDE)

    def made(self, ipc: int) -> int:
        """Images of a class that are made for a set of this IPC: as many as its mosaics have parts."""
        return ipc * self.formation**2


FOR_PRIOR = ("codec", "class_map", "prompt", "prompts", "negative_prompt", "tile")
"""Fields of a Spec that are of a prior, and have no effect without one."""


def named_classes(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """The data's classes that these names stand for: a class by its name, or the members of an ImageNet subset.

    Raises:
        AttarError: the data lacks some of a subset's classes.
    """
    from attar.data.imagenet import SUBSETS, members

    return [
        own for name in names for own in (members(name, known) if name in SUBSETS and name not in known else (name,))
    ]
