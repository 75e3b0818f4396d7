"""The recipes against the facts read from the published codes, line by line; and how they are listed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from attar.core.config import by_ipc, by_network
from attar.core.errors import AttarError
from attar.evaluation import RECIPES, Recipe
from attar.evaluation.evaluator import settle
from attar.evaluation.images import Images
from attar.evaluation.recipes import NETWORKS, modified
from attar.evaluation.side_by_side import side_by_side
from attar.networks import build, check
from attar.training.augment import STATISTICS
from attar.training.loop import Plan, batches, rate

FACTS: dict[str, dict[str, Any]] = {
    "minimax-hard": {
        "labels": "hard", "optimiser": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "batch": 64,
        "schedule": "multistep", "crop": 0.5, "flip": True, "jitter": 0.4, "lighting": 0.1, "mix": "cutmix",
        "mix_probability": 1.0, "views": "batch", "size": 224, "resize_first": True, "test_resize": "size",
        "many_classes": "idc", "extra_forward": False,
    },
    "minimax-hard-cifar": {
        "dsa": True, "mix": "cutmix", "mix_probability": 0.5, "epochs": 1000, "test_every": None, "size": None,
        "optimiser": "sgd", "lr": 0.01, "weight_decay": 5e-4, "schedule": "multistep", "batch": 64, "crop": None,
    },
    "rded-soft": {
        "labels": "soft", "scheme": "online", "temperature": 20.0, "mix": "cutmix", "mix_probability": 1.0,
        "optimiser": "adamw", "weight_decay": 0.01, "decay_vectors": False, "schedule": "half-cosine", "epochs": 300,
        "shuffle": 2, "crop": 1 / 2, "batch_doubled_at": (100, 1000), "normalise": "imagenet", "extra_forward": True,
        "test_resize": "eighth", "warmup": 0,
    },
    "rded-soft-cifar": {
        "shuffle": 1, "crop": 1 / 1, "epochs": 300, "normalise": "imagenet", "extra_forward": True, "size": None,
        "labels": "soft", "schedule": "half-cosine", "batch_doubled_at": (100, 1000),
    },
    "d3hr-soft": {
        "crop": 0.08, "shuffle": 1, "epochs": 300, "batch_doubled_at": (100,), "extra_forward": True, "labels": "soft",
        "temperature": 20.0, "schedule": "half-cosine", "test_resize": "eighth", "normalise": "imagenet",
    },
    "d3hr-soft-cifar": {"crop": 0.08, "shuffle": 1, "epochs": 400, "normalise": "imagenet", "extra_forward": True},
    "d3hr-hard": {
        "labels": "hard", "optimiser": "adamw", "lr": 1e-3, "schedule": "half-cosine", "mix": "mixup",
        "mix_probability": 1.0, "crop": 0.08, "flip": True, "extra_forward": False, "batch_doubled_at": (),
    },
    "fkd-soft": {
        "labels": "soft", "scheme": "fp16", "views": "image", "batch": 1024, "temperature": 20.0, "mix": "cutmix",
        "crop": 0.08, "optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.01, "schedule": "cosine", "epochs": 300,
        "extra_forward": False,
    },
}  # fmt: skip
"""As issue 8 lists them."""


@pytest.mark.parametrize("name", FACTS)
def test_the_facts_of_the_published_codes(name: str) -> None:
    recipe = RECIPES[name]
    assert {field: getattr(recipe, field) for field in FACTS[name]} == FACTS[name]


@pytest.mark.parametrize(
    ("name", "field", "by"),
    [("minimax-hard", "epochs", {1: 3000, 10: 2000, 50: 1500, 200: 1000, 500: 500, 501: 300}),
     ("rded-soft", "batch", {1: 10, 10: 50, 50: 100}), ("rded-soft-cifar", "batch", {1: 10, 10: 50, 50: 100}),
     ("d3hr-soft", "batch", {1: 15, 9: 15, 10: 50, 49: 50, 50: 100, 100: 100}),
     ("d3hr-hard", "epochs", {10: 2000, 50: 1500, 1: 1000, 20: 1000, 100: 1000}),
     ("d3hr-hard", "batch", {10: 50, 50: 100})],
)  # fmt: skip
def test_tables_by_ipc(name: str, field: str, by: dict[int, int]) -> None:
    assert {ipc: by_ipc(getattr(RECIPES[name], field), ipc, field) for ipc in by} == by


@pytest.mark.parametrize("name", ["rded-soft", "rded-soft-cifar", "d3hr-soft", "d3hr-soft-cifar"])
def test_learning_rates_by_network(name: str) -> None:
    rates = {
        "torchvision/resnet18": 1e-3, "resnet18-modified": 1e-3, "convnet3-bn": 1e-3, "torchvision/resnet101": 1e-3,
        "torchvision/mobilenet_v2": 2.5e-3, "torchvision/efficientnet_b0": 2e-3,
        "torchvision/vit_b_16": 1e-4, "torchvision/swin_v2_t": 1e-4,
    }  # fmt: skip
    assert {network: by_network(RECIPES[name].lr, network, "lr") for network in rates} == rates


def test_half_cosine_is_one_value_an_epoch_and_ends_at_half_the_rate() -> None:
    factors = [rate(Plan(epochs=300, schedule="half-cosine"), epoch) for epoch in (0, 150, 300)]
    assert factors == pytest.approx([1.0, (1 + 0.5**0.5) / 2, 0.5])


def test_a_warm_up_ends_in_the_first_quarter() -> None:
    images = Images(np.zeros((2, 8, 8, 3), np.uint8), np.arange(2), ("a", "b"))
    quick = RECIPES["quick"]
    plans = [settle(modified(quick, {"steps": steps}), images, "convnet3")[0] for steps in (600, 200, 30, 3)]
    assert [plan.warmup for plan in plans] == [50, 50, 7, 0]
    assert all(max(rate(plan, step) for step in range(plan.steps or 0)) > 0.85 for plan in plans)
    epochs = modified(quick, {"steps": None, "epochs": 40})
    assert settle(epochs, images, "convnet3")[0].warmup == 10


def test_milestones_are_two_thirds_and_five_sixths() -> None:
    factors = [rate(Plan(epochs=1200, schedule="multistep"), epoch) for epoch in (0, 799, 800, 999, 1000, 1199)]
    assert factors == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])


def test_a_batch_is_never_more_than_there_are_images() -> None:
    assert [len(index) for _, _, index in batches(10, Plan(epochs=2, batch=15), 0)] == [10, 10]


def test_sizes_of_test_images() -> None:
    rded, minimax = RECIPES["rded-soft"], RECIPES["minimax-hard"]
    assert [rded.shorter_side(size) for size in (32, 64, 128, 224)] == [32, 72, 144, 256]
    assert minimax.shorter_side(224) == 224


def test_statistics() -> None:
    assert STATISTICS["imagenet"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("name", RECIPES)
def test_networks_that_it_is_published_with(name: str) -> None:
    for network in NETWORKS[name]:
        check(network)
        if name.startswith("minimax"):
            size = 32 if name.endswith("cifar") else 224
            with torch.device("meta"):
                modules = list(build(network, 10, size, seed=0).modules())
            norms = [module for module in modules if isinstance(module, nn.GroupNorm)]
            assert norms
            assert all(norm.num_groups == norm.num_channels for norm in norms)
            assert not any(isinstance(module, nn.BatchNorm2d) for module in modules)


@pytest.mark.parametrize("width", [60, 120, 400])
def test_side_by_side_shows_every_field_of_every_recipe(width: int) -> None:
    text = side_by_side(width=width)
    assert all(len(line) <= width for line in text.split("\n\n[a]")[0].splitlines())
    for name in RECIPES:
        assert f"\n{name}: " in text
    for field in fields(Recipe):
        assert field.name in ("name", "source") or f"\n{field.name} " in text
    one = side_by_side(["d3hr-soft"], width)
    assert "[a] 9:15, 49:50, 100\n" in one
    assert "\nbatch             [a]\n" in one
    assert "fkd" not in one


def test_an_unknown_recipe_cannot_be_shown() -> None:
    with pytest.raises(AttarError, match="no recipe 'rded'"):
        side_by_side(["rded"])
