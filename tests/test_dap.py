"""DAP: the gradient of the prior's features against finite differences, and what it costs and does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_ot import CLASSES, calls_of, drawn
from toys import job_of, learnt, save_world

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.diffusion import Move
from attar.methods import load_method
from attar.methods.dap import DAP, Drawn, RealFeatures, Representative
from attar.priors.features import TIME, features_at, prior_features

FAST: dict[str, Any] = {"sampler.steps": 5, "sampler.guided_channels": "none"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_world(tmp_path_factory.mktemp("world"), CLASSES)


def test_features_in_the_middle_are_those_of_prior_features(world: Path, store: Store) -> None:
    prior = job_of(world, store).prior
    z = drawn(3, *prior.codec.shape, of="z").float()
    null = torch.full((3,), prior.null)
    noiseless = prior.schedule.noised(z, TIME, torch.zeros_like(z))
    torch.testing.assert_close(features_at(prior, noiseless, TIME, null, 0.5), prior_features(prior, z))
    assert not torch.allclose(features_at(prior, noiseless, TIME, null, 0.0), prior_features(prior, z))


def test_the_gradient_is_that_of_finite_differences(world: Path, store: Store) -> None:
    one = job_of(world, store).prior
    prior, h = replace(one, network=one.network.double(), dtype=torch.float64), 1e-2
    z, y, real = drawn(4, 8, 8, of="z"), torch.tensor(1), drawn(5, 16, of="real")
    opened = Drawn(Representative(), prior, 0.5, {})
    found = opened.slope(z, 500, y, real)
    for name in "abc":
        way = drawn(4, 8, 8, of=name)
        way /= way.norm()
        rise = opened.distance(z + h * way, 500, y, real) - opened.distance(z - h * way, 500, y, real)
        assert float((found * way).sum()) == pytest.approx(float(rise.detach()) / (2 * h), rel=2e-2, abs=1e-5)


def test_a_step_against_it_brings_the_features_nearer_and_rows_depend_on_no_other(world: Path, store: Store) -> None:
    job = job_of(world, store)
    fitted = {label: learnt(job, RealFeatures(), [label]) for label in job.labels}
    opened: Any = DAP(guide=Representative(3.0)).guiding(job, fitted)
    z, labels = drawn(3, *job.codec.shape, of="z").float(), torch.tensor([0, 1, 1])
    y = job.conditions(labels.tolist())
    with torch.inference_mode():
        move = Move(3, 500, 0.1, z, z, z, 1.0, y)
        moved = opened(move, labels, z[:, None][:, :0])
        for row in range(3):
            real = opened.features[int(labels[row])]
            near, far = (opened.distance(some[row], 500, y[row], real) for some in (z + moved, z))
            assert near < far
        part = opened(move.of(slice(1, 2)), labels[1:2], z[1:2, None][:, :0])
    assert torch.equal(part, moved[1:2])


def test_features_are_those_of_the_class_and_as_many_as_asked_for(world: Path, store: Store) -> None:
    job = job_of(world, store)
    every = learnt(job, RealFeatures(), [1])["features"]
    some = learnt(job, RealFeatures(per_class=4), [1])["features"]
    assert every.shape == (9, 16)
    torch.testing.assert_close(some, every[:4])
    assert RealFeatures(per_class=4).passes([9, 3]) == RealFeatures(per_class=4).encodings([9, 3]) == 7


def test_no_more_shards_are_encoded_than_hold_what_is_asked_for(
    world: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attar.priors.latents.SHARD", 4)
    job = job_of(world, store)
    assert len(learnt(job, RealFeatures(per_class=4), [1])["features"]) == 4
    assert job.latents.missing(1) == 5


def test_no_whole_pass_is_added_to_sampling(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls_of(world, tmp_path, "dap", FAST, monkeypatch) == 2 * len(CLASSES) * 2 * 5


def test_what_the_gradients_take_is_estimated(world: Path, store: Store) -> None:
    method = load_method("dap", FAST)
    assert isinstance(method, DAP)
    assert method.start_seconds(job_of(world, store), 4) > 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"guide.scale": -1.0}, "guide.scale -1.0: a number of 0 or more"),
        ({"fit.depth": 1.0}, "fit.depth 1.0: from 0 to less than 1"),
        ({"fit.per_class": 0}, "fit.per_class 0: at least 1"),
        ({"sampler.solver": "EulerDiscreteScheduler"}, "a guide moves the steps of"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError, match=said):
        load_method("dap", fields)
