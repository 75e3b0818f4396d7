"""docs/reproduction.md says what the experiments and the results say, and nothing else."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from attar.evaluation import RECIPES
from attar.experiments.spec import read_experiment
from attar.networks import check

ROOT = Path(__file__).parent.parent
TOLD = tomllib.loads((ROOT / "docs" / "reproduction.toml").read_text(encoding="utf-8"))
FILES = sorted((ROOT / "experiments").glob("*.toml"))


@pytest.fixture(scope="module")
def ledger() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reproduction", ROOT / "docs" / "reproduction.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_its_sources_say(ledger: ModuleType) -> None:
    written = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    assert written == ledger.page(), "run `python docs/reproduction.py`"


def test_every_published_number_stands_in_it() -> None:
    written = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    for file in FILES:
        for one in read_experiment(file).published:
            assert one.source in written
            for mean, std in one.accuracy.values():
                assert (f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}") in written


def test_every_experiment_with_published_numbers_says_why_they_are_missing() -> None:
    for file in FILES:
        if read_experiment(file).published:
            assert len(TOLD["missing"][file.stem]) > 20
    assert set(TOLD["missing"]) <= {file.stem for file in FILES}


def test_the_published_methods_and_baselines_are_there() -> None:
    methods = {one.method for file in FILES for one in read_experiment(file).published}
    assert {"minimax", "d4m", "d3hr", "rded", "herding", "random"} <= methods


@pytest.mark.parametrize("own", TOLD["measured"], ids=lambda own: f"{own['experiment']}-{own['method']}")
def test_measured_numbers_stand_in_the_results(own: dict[str, object]) -> None:
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    experiment = read_experiment(ROOT / "experiments" / f"{own['experiment']}.toml")
    assert own["method"] in {one.method for one in experiment.published}
    assert own["recipe"] in RECIPES
    check(str(own["network"]))
    assert isinstance(own["accuracy"], dict)
    for value in own["accuracy"].values():
        assert re.search(rf"(?<![\d.]){re.escape(value)}(?!\d)", results), f"{value} does not stand in docs/results.md"
    assert all(own[name] for name in ("n", "cost", "command", "reason"))
