"""The evaluation protocols of published codes, and our own; every fact has its source. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from attar.core.arguments import checked
from attar.core.config import changed
from attar.core.errors import AttarError
from attar.core.registry import Registry
from attar.evaluation.recipe import Recipe
from attar.teachers.label_schemes import is_fixed

MODIFIED = " (modified)"
"""The end of the names of recipes that `modified` made."""
BROUGHT = {"labels": "soft", "temperature": 2.0}
"""What a fixed scheme brings along, where it is not changed too."""

_IDC = "Kim et al., IDC, ICML 2022 (arXiv 2205.14959); Gu et al., Minimax, CVPR 2024 (arXiv 2311.15529); train.py"
_RDED = "Sun et al., RDED, CVPR 2024 (arXiv 2312.03526); argument.py, validation/main.py"
_D3HR = "Zhao et al., D3HR, ICML 2025 (arXiv 2505.18399); validation/argument.py, validate.py"
_FKD = "Yin et al., SRe2L, NeurIPS 2023 (arXiv 2306.13092); Su et al., D4M, CVPR 2024 (arXiv 2407.15138); train_FKD.py"
_RATES = (
    "vgg: 5e-4, alexnet: 1e-4, mobilenet_v2: 2.5e-3, mobilenetv2: 2.5e-3, efficientnet_b0: 2e-3, vit: 1e-4, swin: 1e-4,"
    " 1e-3"
)

RecipeRow = tuple[str, str, str, dict[str, Any]]

_TABLE: tuple[RecipeRow, ...] = (
    (
        "quick",
        "",
        "Attar's own, for demonstrations and CPUs",
        {
            "steps": 600,
            "batch": 64,
            "optimiser": "adamw",
            "lr": 2e-3,
            "weight_decay": 0.01,
            "decay_vectors": False,
            "warmup": 50,
            "crop": 0.5,
            "mix": "cutmix",
            "mix_probability": 0.5,
        },
    ),
    (
        "minimax-hard",
        "",
        f"{_IDC}: ImageNet and its subsets",
        {
            "epochs": "1:3000, 10:2000, 50:1500, 200:1000, 500:500, 300",
            "batch": 64,
            "many_classes": "idc",
            "schedule": "multistep",
            "size": 224,
            "resize_first": True,
            "crop": 0.5,
            "jitter": 0.4,
            "lighting": 0.1,
            "mix": "cutmix",
            "test_every": "1%",
            "precision": "tf32",
        },
    ),
    (
        "minimax-hard-cifar",
        "",
        f"{_IDC}: CIFAR, by IDC's code",
        {
            "epochs": 1000,
            "batch": 64,
            "schedule": "multistep",
            "size": 32,
            "dsa": True,
            "mix": "cutmix",
            "mix_probability": 0.5,
            "normalise": "cifar",
            "precision": "tf32",
        },
    ),
    (
        "rded-soft",
        "",
        f"{_RDED}: ImageNet-1k and its subsets",
        {
            "labels": "soft",
            "extra_forward": True,
            "epochs": 300,
            "batch": "9:10, 49:50, 100",
            "batch_doubled_at": (100, 1000),
            "optimiser": "adamw",
            "lr": _RATES,
            "weight_decay": 0.01,
            "decay_vectors": False,
            "schedule": "half-cosine",
            "size": 224,
            "shuffle": 2,
            "crop": 0.5,
            "mix": "cutmix",
            "test_resize": "eighth",
            "test_every": 10,
            "test_from": 0.8,
            "precision": "tf32",
        },
    ),
    ("rded-soft-128", "rded-soft", f"{_RDED}: ConvNets on ImageNette, ImageWoof, ImageNet-100", {"size": 128}),
    (
        "rded-soft-tiny",
        "rded-soft",
        f"{_RDED}: Tiny-ImageNet",
        {"size": 64, "shuffle": 1, "crop": 1.0, "batch": 100, "batch_doubled_at": ()},
    ),
    ("rded-soft-cifar", "rded-soft", f"{_RDED}: CIFAR-10, CIFAR-100", {"size": 32, "shuffle": 1, "crop": 1.0}),
    (
        "rded-soft-cifar100-convnet",
        "rded-soft-cifar",
        f"{_RDED}: CIFAR-100, ConvNet-3 taught by ConvNet-3",
        {"batch": 25, "batch_doubled_at": (), "lr": 2e-3},
    ),
    (
        "rded-soft-mixup",
        "rded-soft",
        f"{_RDED}: its option --mix-type mixup",
        {"mix": "mixup", "mix_alpha": 0.8, "temperature": 4.0},
    ),
    (
        "d3hr-soft",
        "rded-soft",
        f"{_D3HR}: ImageNet-1k; with five teachers (validate_fiveteacher.py) --set test_from=281",
        {
            "batch": "9:15, 49:50, 100",
            "batch_doubled_at": (100,),
            "shuffle": 1,
            "crop": 0.08,
            "test_every": 1,
            "test_from": 291,
        },
    ),
    (
        "d3hr-soft-woof",
        "d3hr-soft",
        f"{_D3HR}: ImageWoof",
        {"epochs": "9:1000, 10:2000, 49:1000, 50:1500, 1000", "test_from": 391},
    ),
    ("d3hr-soft-tiny", "d3hr-soft", f"{_D3HR}: Tiny-ImageNet", {"size": 64}),
    ("d3hr-soft-cifar", "d3hr-soft", f"{_D3HR}: CIFAR-10, CIFAR-100", {"size": 32, "epochs": 400, "test_from": 391}),
    (
        "d3hr-hard",
        "d3hr-soft-woof",
        f"{_D3HR.replace('validate.py', 'validate_hardlabel.py')}: ImageWoof",
        {
            "labels": "hard",
            "extra_forward": False,
            "mix": "mixup",
            "test_from": "9:901, 10:1901, 49:901, 50:1401, 901",
        },
    ),
    (
        "fkd-soft",
        "",
        f"{_FKD}: ImageNet-1k",
        {
            "labels": "soft",
            "views": "image",
            "box": "batch",
            "scheme": "fp16",
            "epochs": 300,
            "batch": 1024,
            "accumulate": 2,
            "optimiser": "adamw",
            "lr": 1e-3,
            "weight_decay": 0.01,
            "decay_vectors": False,
            "schedule": "cosine",
            "size": 224,
            "crop": 0.08,
            "mix": "cutmix",
            "test_resize": "eighth",
            "test_every": 50,
            "precision": "tf32",
        },
    ),
    (
        "fkd-soft-cifar",
        "fkd-soft",
        f"{_FKD}: for small images and few of them, which it has no settings for; RDED's batches, CIFAR's statistics",
        {
            "size": None,
            "batch": "9:10, 49:50, 100",
            "accumulate": 1,
            "box": "image",
            "normalise": "cifar",
            "test_every": None,
        },
    ),
)
"""Name; the recipe that it is a variant of, or none; source; the fields that differ from that, or from the defaults."""


def _read(table: tuple[RecipeRow, ...]) -> dict[str, Recipe]:
    recipes: dict[str, Recipe] = {}
    for name, of, source, own in table:
        base = recipes[of] if of else Recipe(name, source)
        recipes[name] = replace(base, name=name, source=source, **own)
    return recipes


RECIPES = Registry[Recipe]("recipe", {name: (recipe, recipe.source) for name, recipe in _read(_TABLE).items()})
"""docs/reproduction.md tells where they depart from the codes that they were read from."""

_RESNETS = ("torchvision/resnet18", "torchvision/resnet50", "torchvision/resnet101")
_OTHERS = ("torchvision/mobilenet_v2", "torchvision/swin_v2_t", "torchvision/vit_b_16")
_SMALL = ("convnet3-bn", "resnet18-modified")

PUBLISHED_NETWORKS: dict[str, tuple[str, ...]] = {
    "quick": ("convnet3", "convnet3-w48"),
    "minimax-hard": ("convnet6", "resnetap10", "resnet18-in"),
    "minimax-hard-cifar": ("convnet3", "resnet18-idc", "densenet-cifar"),
    "rded-soft": (*_RESNETS, *_OTHERS, "torchvision/efficientnet_b0", "torchvision/vgg11", "torchvision/alexnet"),
    "rded-soft-128": ("convnet5-bn", "convnet6-bn"),
    "rded-soft-tiny": ("convnet4-bn", "resnet18-modified", "resnet101-modified"),
    "rded-soft-cifar": (*_SMALL, "resnet101-modified"),
    "rded-soft-cifar100-convnet": ("convnet3-bn",),
    "rded-soft-mixup": ("torchvision/resnet18",),
    "d3hr-soft": (*_RESNETS, *_OTHERS, "timm/efficientnet_b0"),
    "d3hr-soft-woof": ("torchvision/resnet18",),
    "d3hr-soft-tiny": ("resnet18-modified", "resnet101-modified"),
    "d3hr-soft-cifar": (*_SMALL, "resnet50-modified", "resnet101-modified"),
    "d3hr-hard": ("torchvision/resnet18",),
    "fkd-soft": _RESNETS,
    "fkd-soft-cifar": _SMALL,
}
"""By recipe, the networks that its code has settings for; IDC's and Minimax's have instance norm, but for DenseNet. Of
fkd-soft-cifar none are published: it shares RDED's. Any recipe trains any network."""


def named_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of that name, with fields changed (see `modified`).

    Raises:
        AttarError: there is none, or a change does not fit.
    """
    return modified(RECIPES.open(name), changes or {})


@checked
def modified(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with fields changed; its name then ends in "(modified)". Values may be text, as on the command line.

    Raises:
        AttarError: an unknown field (with those there are), or a value that does not fit its type.
    """
    fixed = ("name", "source")
    for name in fixed:
        if name in changes:
            raise AttarError(f"recipe {recipe.name}: {name} says what the recipe is and cannot be changed")
    if is_fixed(str(changes.get("scheme"))) and not recipe.fixed:
        changes = {**BROUGHT, **changes}
    other = changed(recipe, changes, f"recipe {recipe.name}", fixed)
    if other == recipe or recipe.name.endswith(MODIFIED):
        return other
    return replace(other, name=recipe.name + MODIFIED)


def counted_in(original: str, changes: Mapping[str, Any]) -> str:
    """What the length of a recipe with these changes is counted in: "steps" or "epochs"; epochs of an unknown one."""
    steps = RECIPES.open(original).steps if original in RECIPES else None
    return "epochs" if changes.get("steps", steps) is None else "steps"


def changes(recipe: Recipe) -> dict[str, Any]:
    """Field -> value, JSON-ready, of all that differs from the recipe that its name, less "(modified)", names.

    A recipe that is none of `RECIPES` is compared with the fields' defaults.
    """
    name = recipe.name.removesuffix(MODIFIED)
    own, original = vars(recipe), vars(RECIPES.open(name) if name in RECIPES else Recipe(name, ""))
    names = [field.name for field in fields(recipe) if field.name not in ("name", "source")]
    different = {field: own[field] for field in names if own[field] != original[field]}
    return {field: list(value) if isinstance(value, tuple) else value for field, value in different.items()}
