"""The registries: six tables with the same three verbs, listed without torch, and what they say of mistyped names."""

from __future__ import annotations

import subprocess
import sys
import typing
from typing import Any

import pytest

from attar.cli.lists import LISTED, list_
from attar.core.errors import AttarError
from attar.core.registry import Registry
from attar.data.sources import SOURCES
from attar.evaluation import RECIPES
from attar.methods import METHODS
from attar.networks import NETWORKS
from attar.priors import PRIORS
from attar.selection.rules import COMPARING, RULES
from attar.selection.select import Select

REGISTRIES: tuple[Registry[Any], ...] = (METHODS, NETWORKS, RECIPES, SOURCES, PRIORS, RULES)
HEADINGS = ("torchvision/NAME", "timm/NAME")
"""Rows that stand for all networks of a library."""


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.noun)
def test_three_verbs(registry: Registry[Any]) -> None:
    assert len(registry.names()) > 4
    for name in registry.names():
        assert registry.describe(name)
        assert "\n" not in registry.describe(name)
        if name not in HEADINGS:
            assert registry.open(name) is not None
            assert name in registry
    first = registry.names()[0]
    wrong = f"{first}x"
    for verb in (registry.describe, registry.open, registry.check):
        with pytest.raises(AttarError, match=rf"'{wrong}'.*(did you mean|there are).*{first}"):
            verb(wrong)
    assert wrong not in registry


def test_all_are_listed_and_nothing_else(capsys: Any) -> None:
    for what in LISTED:
        list_(what)
    text = capsys.readouterr().out
    assert all(name.partition("-")[0] in text for registry in REGISTRIES for name in registry)
    assert len(LISTED) == len(REGISTRIES)
    with pytest.raises(AttarError, match=r"list rule \(did you mean 'rules'"):
        list_("rule")


def test_listing_loads_no_torch() -> None:
    code = (
        "import sys; from attar.cli.lists import LISTED, list_; [list_(what) for what in LISTED];"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("convnet4-bn-w64", "convnet3-w48"),
        ("convnet6", "convnet6"),
        ("resnet18-w8", "resnet10-bn-w16"),
        ("airbench-w32", "airbench"),
        ("vgg11-bn-w64", "vgg11-bn-w16"),
        ("vit12-w192", "vit6-w96"),
        ("torchvision/resnet18", "torchvision/NAME"),
        ("timm/resnet18", "timm/NAME"),
        ("resnet18", "timm/NAME"),
    ],
)
def test_names_with_parameters_belong_to_a_row(name: str, row: str) -> None:
    assert NETWORKS.row(name) == row
    assert NETWORKS.describe(name) == NETWORKS.describe(row)


@pytest.mark.parametrize("name", ["convnet7", "convnet3-w0", "torchvision/NAME", "timm/NAME", "NAME", "torchvision/"])
def test_headings_and_near_names_are_no_networks(name: str) -> None:
    with pytest.raises(AttarError, match=f"no network is called '{name}'"):
        NETWORKS.check(name)


def test_the_rules_of_the_field_are_those_of_the_registry() -> None:
    assert typing.get_args(typing.get_type_hints(Select)["rule"]) == RULES.names()
    assert set(COMPARING) < set(RULES)
    with pytest.raises(AttarError, match=r"no selection rule 'herdin' \(did you mean 'herding'\?\)"):
        Select(rule=typing.cast(Any, "herdin"))


def test_a_method_opens_with_the_fields_that_its_name_stands_for() -> None:
    noise: Any = METHODS.open("d4m-noise", {"sampler.steps": 3})
    assert (noise.sampler.solver, noise.sampler.guidance, noise.sampler.steps) == ("checkpoint", 8.0, 3)
    with pytest.raises(AttarError, match=r"herding stands for a rule.*choose `method` medoid"):
        METHODS.open("herding", {"select.rule": "medoid"})
