"""The examples, each at its smallest size: they run, offline, and say what they are for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from attar.core.store import Store
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import load_method

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    job = Job(Spec(data="digits", device="cpu"), Store(root / "cache"))
    (folder,) = distill_sets(job, "herding", load_method("herding"), (10,), root / "set")
    return folder


def test_networks_are_ranked_on_a_set_and_on_all_of_the_data(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--networks", "convnet3-bn-w4,convnet3-bn-w8", "--steps", "2", "--seeds", "1"]
    ranks = example("architecture_search").main([str(digits), *words])
    assert all(-1 <= rank <= 1 or rank != rank for rank in ranks)  # alike: no rank
    said = capsys.readouterr().out
    assert "rank correlation with all of the data: the set" in said
    assert said.count("convnet3-bn-w") == 2


def test_replay_keeps_what_was_learnt(digits: Path) -> None:
    means = example("replay_buffer").main([str(digits), "--steps", "30", "--seeds", "1"])
    assert list(means) == ["nothing", "random", "distilled"]
    assert means["distilled"] > means["nothing"] + 10


def test_a_broken_pipeline_does_not_learn_the_set(digits: Path) -> None:
    passed = example("smoke_test_set").main([str(digits)])
    assert passed == {
        "none": True,
        "labels of another order": False,
        "frozen layers": False,
        "images not scaled": False,
    }
