"""Evaluation protocols as frozen objects: every choice is a field, every fact has its source. Loads no torch.

Fields that published codes set by IPC or by network are tables in words: "9:15, 49:50, 100" is 15 to 9 images per
class, 50 to 49 and 100 above; "vit: 1e-4, 1e-3" is 1e-4 for networks with "vit" in their name and 1e-3 for others. A
plain number takes the place of a table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from attar.errors import AttarError
from attar.evaluation.tables import entries
from attar.fields import changed

MODIFIED = " (modified)"
"""The end of the names of recipes that `modified` made."""

_RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    ("a whole number of 1 or more", lambda x: 1 <= x < math.inf and x == int(x), ("steps", "size", "shuffle")),
    ("a number of 0 or more", lambda x: 0 <= x < math.inf, ("weight_decay", "warmup", "lighting")),
    ("a number from 0 to 1", lambda x: 0 <= x <= 1, ("momentum", "jitter", "mix_probability", "test_from")),
    ("a share above 0, at most 1", lambda x: 0 < x <= 1, ("crop",)),
    ("a number above 0", lambda x: 0 < x < math.inf, ("temperature",)),
)
"""What numbers may be, and the fields that it holds for where they are not None."""

_TABLES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    ("whole numbers above 0", lambda x: 1 <= x < math.inf and x == int(x), ("epochs", "batch")),
    ("numbers of 0 or more", lambda x: 0 <= x < math.inf, ("lr",)),
)
"""The same for each number of a table."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on a set and tested. `dataclasses.replace` or `modified` makes another one of it.

    Raises:
        AttarError: a number lies outside of what its field can be.
    """

    name: str
    source: str
    """Paper, and the code that the values were read from."""

    labels: Literal["hard", "soft"] = "hard"
    """soft: a teacher's logits on every augmented view."""
    temperature: float = 20.0
    """Of the KL divergence from soft labels; unused with hard ones."""
    extra_forward: bool = False
    """A pass of the student on the unmixed images at every step, which moves its batch-norm statistics."""

    epochs: int | str | None = None
    """By IPC; None where `steps` is given."""
    steps: int | None = None
    """Batches instead of epochs, so that the cost does not depend on the IPC."""
    batch: int | str = 64
    """By IPC."""
    batch_doubled_at: tuple[int, ...] = ()
    """Numbers of classes at which the batch is twice as large."""
    many_classes: Literal["as is", "idc"] = "as is"
    """idc: at 100 classes two thirds of the epochs, in whole hundreds; above, lr 0.1, decay 1e-4, batch 128 or more."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float | str = 0.01
    """By network."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_vectors: bool = True
    """Whether biases and norms are decayed too."""
    schedule: Literal["multistep", "half-cosine", "cosine", "constant"] = "cosine"
    warmup: int = 0
    """Epochs, or steps where `steps` is given."""

    size: int | None = None
    """Side of the images that the network sees, in pixels; None: the training images' own."""
    resize_first: bool = False
    """Whether training images are resized and centre-cropped to `size` before they are augmented."""
    shuffle: int = 1
    """Training images are cut into so many rows and columns, and these shuffled."""
    crop: float | None = None
    """Random resized crop: the least share of the area."""
    flip: bool = True
    """Off for images that a flip changes, such as digits."""
    jitter: float = 0.0
    lighting: float = 0.0
    dsa: bool = False
    """DSA's colours and geometry without cutout, as in IDC."""
    mix: Literal["none", "cutmix", "mixup"] = "none"
    mix_probability: float = 1.0
    normalise: Literal["imagenet", "cifar", "half"] = "imagenet"

    test_resize: Literal["size", "eighth"] = "size"
    """The shorter side of test images before their centre crop to `size`: `size`, or (eighth) size // 7 * 8."""
    test_every: int | str | None = None
    """Tests before the last one, for `best` only: every so many epochs (or steps), or "N%" of them; None: no others."""
    test_from: float = 0.0
    """No such test in this first part of the epochs."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 mixed precision on a GPU, float32 elsewhere."""

    def __post_init__(self) -> None:
        for words, holds, names in _RANGES:
            for name in names:
                value = getattr(self, name)
                if value is not None and not holds(value):
                    raise AttarError(f"recipe {self.name}: {name} = {value!r}: give {words}")
        for words, holds, names in _TABLES:
            for name in names:
                table = getattr(self, name)
                if table is not None and not all(holds(value) for _, value in entries(table, name)):
                    raise AttarError(f"recipe {self.name}: {name} = {table!r}: give {words}")
        if self.test_every is not None and not re.fullmatch(r"0*[1-9][0-9]*\s*%?", str(self.test_every)):
            raise AttarError(
                f"recipe {self.name}: test_every = {self.test_every!r}: "
                'give a number of epochs, a share of them such as "5%", or none'
            )

    def shorter_side(self, size: int) -> int:
        """The shorter side of test images, in pixels, before they are cropped to `size`."""
        return size if self.test_resize == "size" else max(size // 7 * 8, size)


_IDC = "Kim et al., IDC, ICML 2022 (arXiv 2205.14959); Gu et al., Minimax, CVPR 2024 (arXiv 2311.15529); train.py"
_RDED = "Sun et al., RDED, CVPR 2024 (arXiv 2312.03526); validation/main.py"
_D3HR = "Zhao et al., D3HR, ICML 2025 (arXiv 2505.18399); validation/validate.py"
_RDED_RATES = "mobilenet_v2: 2.5e-3, mobilenetv2: 2.5e-3, efficientnet_b0: 2e-3, vit: 1e-4, swin: 1e-4, 1e-3"

_MINIMAX = Recipe(
    "minimax-hard",
    _IDC,
    epochs="1:3000, 10:2000, 50:1500, 200:1000, 500:500, 300",
    batch=64,
    many_classes="idc",
    schedule="multistep",
    size=224,
    resize_first=True,
    crop=0.5,
    jitter=0.4,
    lighting=0.1,
    mix="cutmix",
    test_every="1%",
)
_RDED_SOFT = Recipe(
    "rded-soft",
    _RDED,
    labels="soft",
    extra_forward=True,
    epochs=300,
    batch="9:10, 49:50, 100",
    batch_doubled_at=(100, 1000),
    optimiser="adamw",
    lr=_RDED_RATES,
    weight_decay=0.01,
    decay_vectors=False,
    schedule="half-cosine",
    size=224,
    shuffle=2,
    crop=0.5,
    mix="cutmix",
    test_resize="eighth",
    test_every=10,
    test_from=0.8,
)
_D3HR_SOFT = replace(
    _RDED_SOFT,
    name="d3hr-soft",
    source=_D3HR,
    batch="9:15, 49:50, 100",
    batch_doubled_at=(100,),
    shuffle=1,
    crop=0.08,
)
_D3HR_HARD = replace(
    _D3HR_SOFT,
    name="d3hr-hard",
    source=_D3HR.replace("validate.py", "validate_hardlabel.py"),
    labels="hard",
    extra_forward=False,
    epochs="9:1000, 10:2000, 49:1000, 50:1500, 1000",
    batch="49:50, 100",
    batch_doubled_at=(),
    lr=1e-3,
    mix="mixup",
    test_every=1,
    test_from=0.95,
)
_QUICK = Recipe(
    "quick",
    "Attar's own, for demonstrations and CPUs",
    steps=600,
    batch=64,
    optimiser="adamw",
    lr=2e-3,
    weight_decay=0.01,
    decay_vectors=False,
    warmup=50,
    crop=0.5,
    mix="cutmix",
    mix_probability=0.5,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _QUICK,
        _MINIMAX,
        replace(
            _MINIMAX,
            name="minimax-hard-cifar",
            epochs=1000,
            many_classes="as is",
            size=None,
            resize_first=False,
            crop=None,
            flip=True,
            jitter=0.0,
            lighting=0.0,
            dsa=True,
            mix_probability=0.5,
            normalise="cifar",
            test_every=None,
        ),
        _RDED_SOFT,
        replace(_RDED_SOFT, name="rded-soft-cifar", size=None, shuffle=1, crop=1.0),
        _D3HR_SOFT,
        replace(_D3HR_SOFT, name="d3hr-soft-cifar", size=None, epochs=400),
        _D3HR_HARD,
    )
}
"""By name. Recipes ending in -cifar are the published codes' settings for 32-pixel sets."""


def named_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        AttarError: there is none; lists those there are.
    """
    if name not in RECIPES:
        raise AttarError(f"no recipe {name!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[name]


def modified(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with fields changed; its name then ends in "(modified)". Values may be text, as on the command line.

    Raises:
        AttarError: an unknown field (with those there are), or a value that does not fit its type.
    """
    for name in ("name", "source"):
        if name in changes:
            raise AttarError(f"recipe {recipe.name}: {name} says what the recipe is and cannot be changed")
    other = changed(recipe, changes, f"recipe {recipe.name}")
    if other == recipe or recipe.name.endswith(MODIFIED):
        return other
    return replace(other, name=recipe.name + MODIFIED)


def changes(recipe: Recipe) -> dict[str, Any]:
    """Field -> value, JSON-ready, of all that differs from the recipe that its name, less "(modified)", names.

    A recipe that is none of `RECIPES` is compared with the fields' defaults.
    """
    name = recipe.name.removesuffix(MODIFIED)
    own, original = vars(recipe), vars(RECIPES.get(name, Recipe(name, "")))
    names = [field.name for field in fields(recipe) if field.name not in ("name", "source")]
    different = {field: own[field] for field in names if own[field] != original[field]}
    return {field: list(value) if isinstance(value, tuple) else value for field, value in different.items()}
