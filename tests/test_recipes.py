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
from attar.evaluation.evaluator import training_plan
from attar.evaluation.labelled_images import LabelledImages
from attar.evaluation.recipes import PUBLISHED_NETWORKS, modified
from attar.evaluation.side_by_side import side_by_side
from attar.networks import build, check
from attar.training import Plan, batches, rate
from attar.training.augment import STATISTICS

ADAMW = {
    "optimiser": "adamw", "weight_decay": 0.01, "decay_vectors": False, "labels": "soft", "temperature": 20.0,
    "mix": "cutmix", "mix_probability": 1.0, "mix_alpha": 1.0, "flip": True, "normalise": "imagenet", "warmup": 0,
    "test_resize": "eighth", "resize_first": False, "precision": "tf32",
}  # fmt: skip
RDED = {
    **ADAMW, "scheme": "online", "views": "batch", "extra_forward": True, "accumulate": 1, "schedule": "half-cosine",
    "epochs": 300, "batch": "9:10, 49:50, 100", "batch_doubled_at": (100, 1000), "size": 224, "shuffle": 2,
    "crop": 1 / 2, "test_every": 10, "test_from": 0.8,
}  # fmt: skip
D3HR = {**RDED, "batch": "9:15, 49:50, 100", "batch_doubled_at": (100,), "shuffle": 1, "crop": 0.08, "test_every": 1}
IDC = {
    "labels": "hard", "optimiser": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "decay_vectors": True,
    "batch": 64, "schedule": "multistep", "flip": True, "mix": "cutmix", "mix_alpha": 1.0, "views": "batch",
    "test_resize": "size", "extra_forward": False, "precision": "tf32",
}  # fmt: skip
FACTS: dict[str, dict[str, Any]] = {
    "minimax-hard": {
        **IDC, "crop": 0.5, "jitter": 0.4, "lighting": 0.1, "mix_probability": 1.0, "size": 224, "resize_first": True,
        "many_classes": "idc", "test_every": "1%",
    },
    "minimax-hard-cifar": {
        **IDC, "dsa": True, "mix_probability": 0.5, "epochs": 1000, "test_every": None, "size": 32, "crop": None,
        "jitter": 0.0, "lighting": 0.0, "resize_first": False, "normalise": "cifar",
    },
    "rded-soft": RDED,
    "rded-soft-128": {**RDED, "size": 128},
    "rded-soft-tiny": {**RDED, "size": 64, "shuffle": 1, "crop": 1 / 1, "batch": 100, "batch_doubled_at": ()},
    "rded-soft-cifar": {**RDED, "size": 32, "shuffle": 1, "crop": 1 / 1},
    "rded-soft-cifar100-convnet": {
        **RDED, "size": 32, "shuffle": 1, "crop": 1 / 1, "batch": 25, "batch_doubled_at": (), "lr": 0.002,
    },
    "rded-soft-mixup": {**RDED, "mix": "mixup", "mix_alpha": 0.8, "temperature": 4.0},
    "d3hr-soft": {**D3HR, "test_from": 291},
    "d3hr-soft-woof": {**D3HR, "epochs": "9:1000, 10:2000, 49:1000, 50:1500, 1000", "test_from": 391},
    "d3hr-soft-tiny": {**D3HR, "size": 64, "test_from": 291},
    "d3hr-soft-cifar": {**D3HR, "size": 32, "epochs": 400, "test_from": 391},
    "d3hr-hard": {
        **D3HR, "labels": "hard", "mix": "mixup", "extra_forward": False,
        "epochs": "9:1000, 10:2000, 49:1000, 50:1500, 1000", "test_from": "9:901, 10:1901, 49:901, 50:1401, 901",
    },
    "fkd-soft": {
        **ADAMW, "scheme": "fp16", "views": "image", "box": "batch", "batch": 1024, "accumulate": 2, "lr": 1e-3,
        "schedule": "cosine", "epochs": 300, "extra_forward": False, "size": 224, "shuffle": 1, "crop": 0.08,
        "test_every": 50, "test_from": 0.0,
    },
}  # fmt: skip
"""As the codes that each recipe names as its source have it."""


@pytest.mark.parametrize("name", FACTS)
def test_the_facts_of_the_published_codes(name: str) -> None:
    recipe = RECIPES.open(name)
    assert {field: getattr(recipe, field) for field in FACTS[name]} == FACTS[name]


@pytest.mark.parametrize(
    ("name", "field", "by"),
    [("minimax-hard", "epochs", {1: 3000, 10: 2000, 50: 1500, 200: 1000, 500: 500, 501: 300}),
     ("rded-soft", "batch", {1: 10, 10: 50, 50: 100}), ("rded-soft-cifar", "batch", {1: 10, 10: 50, 50: 100}),
     ("d3hr-soft", "batch", {1: 15, 9: 15, 10: 50, 49: 50, 50: 100, 100: 100}),
     ("d3hr-hard", "epochs", {10: 2000, 50: 1500, 1: 1000, 20: 1000, 100: 1000}),
     ("d3hr-hard", "batch", {1: 15, 10: 50, 50: 100}), ("rded-soft-tiny", "batch", {1: 100, 10: 100, 50: 100}),
     ("d3hr-hard", "test_from", {10: 1901, 50: 1401, 100: 901}), ("d3hr-soft", "test_from", {1: 291, 50: 291})],
)  # fmt: skip
def test_tables_by_ipc(name: str, field: str, by: dict[int, int]) -> None:
    assert {ipc: by_ipc(getattr(RECIPES.open(name), field), ipc, field) for ipc in by} == by


@pytest.mark.parametrize("name", ["rded-soft", "rded-soft-cifar", "d3hr-soft", "d3hr-soft-cifar", "d3hr-hard"])
def test_learning_rates_by_network(name: str) -> None:
    rates = {
        "torchvision/resnet18": 1e-3, "resnet18-modified": 1e-3, "convnet3-bn": 1e-3, "torchvision/resnet101": 1e-3,
        "torchvision/mobilenet_v2": 2.5e-3, "torchvision/efficientnet_b0": 2e-3,
        "torchvision/vit_b_16": 1e-4, "torchvision/swin_v2_t": 1e-4, "torchvision/vgg11": 5e-4,
        "torchvision/alexnet": 1e-4, "resnet101-modified": 1e-3, "timm/efficientnet_b0": 2e-3,
    }  # fmt: skip
    assert {network: by_network(RECIPES.open(name).lr, network, "lr") for network in rates} == rates


def test_half_cosine_is_one_value_an_epoch_and_ends_at_half_the_rate() -> None:
    factors = [rate(Plan(epochs=300, schedule="half-cosine"), epoch) for epoch in (0, 150, 300)]
    assert factors == pytest.approx([1.0, (1 + 0.5**0.5) / 2, 0.5])


def test_linear_decay_ends_at_nothing() -> None:
    factors = [rate(Plan(epochs=300, schedule="linear"), epoch) for epoch in (0, 75, 299)]
    assert factors == pytest.approx([1.0, 0.75, 1 / 300])


def test_a_warm_up_ends_in_the_first_quarter() -> None:
    images = LabelledImages(np.zeros((2, 8, 8, 3), np.uint8), np.arange(2), ("a", "b"))
    quick = RECIPES.open("quick")
    plans = [training_plan(modified(quick, {"steps": steps}), images, "convnet3")[0] for steps in (600, 200, 30, 3)]
    assert [plan.warmup for plan in plans] == [50, 50, 7, 0]
    assert all(max(rate(plan, step) for step in range(plan.steps or 0)) > 0.85 for plan in plans)
    epochs = modified(quick, {"steps": None, "epochs": 40})
    assert training_plan(epochs, images, "convnet3")[0].warmup == 10


def test_milestones_are_two_thirds_and_five_sixths() -> None:
    factors = [rate(Plan(epochs=1200, schedule="multistep"), epoch) for epoch in (0, 799, 800, 999, 1000, 1199)]
    assert factors == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])


def test_a_batch_is_never_more_than_there_are_images() -> None:
    assert [len(index) for _, _, index in batches(10, Plan(epochs=2, batch=15), 0)] == [10, 10]


def test_sizes_of_test_images() -> None:
    rded, minimax = RECIPES.open("rded-soft"), RECIPES.open("minimax-hard")
    assert [rded.shorter_side(size) for size in (32, 64, 128, 224)] == [32, 72, 144, 256]
    assert minimax.shorter_side(224) == 224


def test_statistics() -> None:
    assert STATISTICS["imagenet"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("name", RECIPES)
def test_networks_that_it_is_published_with(name: str) -> None:
    for network in PUBLISHED_NETWORKS[name]:
        check(network)
        if name.startswith("minimax") and network != "densenet-cifar":
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


def test_shares_and_parts_that_cannot_be() -> None:
    for every in ("101%", "500 %", "0%"):
        with pytest.raises(AttarError, match="test_every"):
            modified(RECIPES.open("quick"), {"test_every": every})
    for every in ("100%", "5 %", "07", "700"):
        assert modified(RECIPES.open("quick"), {"test_every": every}).test_every is not None
    train = LabelledImages(np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 0, 1, 1]), ("ant", "bee"))
    training_plan(modified(RECIPES.open("quick"), {"shuffle": 8}), train, "convnet3")
    with pytest.raises(AttarError, match="`shuffle` 9: images of 8 pixels have no more rows"):
        training_plan(modified(RECIPES.open("quick"), {"shuffle": 9}), train, "convnet3")
