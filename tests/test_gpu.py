"""On a CUDA device: `pytest -m gpu`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attar.core.rng import generator
from attar.core.store import Store
from attar.evaluation import LabelledImages, Recipe, Students, evaluate
from attar.priors.folder import new_scheduler
from attar.priors.shared_embedders import untrained
from attar.priors.training import train as training
from attar.priors.training.latent_set import LatentSet
from attar.priors.training.optimise import Session
from attar.priors.training.settings import Training
from attar.training import augment
from attar.training.processes import accelerator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
TINY = Training(steps=12, batch=16, hidden=32, layers=2, heads=2, warmup=1)


def trained(folder: Path, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    z = torch.randn(40, 4, 8, 8, generator=generator("z"))
    data = LatentSet(z, z.abs() / 9, torch.arange(40) % 2)
    if not ahead:
        monkeypatch.setattr(training, "Ahead", lambda make, steps: make)
    network = untrained((4, 8, 8), 2, TINY, 0)
    session = Session(folder, accelerator("cuda", "bfloat16"), "x")
    training.train_network(network, data, new_scheduler("epsilon"), TINY, session)
    return [value.detach().cpu() for value in network.parameters()]


def test_batches_drawn_ahead_train_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = trained(tmp_path / "a", True, monkeypatch)
    alone = trained(tmp_path / "b", False, monkeypatch)
    for one, other in zip(ahead, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["crop", "dsa"])
def test_views_are_those_of_the_cpu(how: str) -> None:
    changes: dict[str, Any] = {
        "crop": {"crop": 0.1, "flip": True, "jitter": 0.4, "lighting": 0.1},
        "dsa": {"dsa": True},
    }
    asked = augment.Augmentation(size=32, mix="cutmix", **changes[how])
    images = torch.randint(0, 256, (16, 40, 36, 3), dtype=torch.uint8, generator=generator("images"))
    images = images if how == "crop" else images[:, :32, :32].contiguous()
    drawn = augment.draw(asked, 16, "views")
    here = augment.mixed(augment.apply(images, drawn, asked), drawn)
    there = augment.mixed(augment.apply(images.cuda(), drawn, asked), drawn)
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-4)


def test_an_evaluation_repeats_itself(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), 8)
    pixels = (rng.integers(0, 120, (16, 32, 32, 3)) + 120 * labels[:, None, None, None]).astype(np.uint8)
    images = LabelledImages(pixels, labels, ("dark", "bright"))
    recipe = replace(Recipe(name="x", source="", steps=20, batch=8, crop=0.5, mix="cutmix"), precision="bfloat16")
    found = [
        evaluate(Students(images, images, recipe, "convnet3-w16", "cuda", store=Store(tmp_path / name)), [0, 1])
        for name in "ab"
    ]
    assert json.dumps(found[0].accuracies) == json.dumps(found[1].accuracies)
