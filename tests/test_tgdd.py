"""TGDD: the means of anchors, held to numbers worked out by hand, and what is drawn to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_guides import MODE, by_hand, one_mode
from toys import job_of, learnt, save_world

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.distillation.device_speed import passes_per_image
from attar.methods import load_method
from attar.methods.d4m import Prototypes
from attar.methods.kmeans import nearest_in_clusters
from attar.methods.tgdd import TGDD, Anchors

CLASSES = ["ant", "bee"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_world(tmp_path_factory.mktemp("world"), CLASSES)


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_anchors_are_the_nearest_of_the_cluster_however_the_latents_come(parts: int) -> None:
    rows = np.array([[0.0], [1.5], [10.0], [0.1], [-0.3], [11.0], [4.9], [0.1]], np.float32)
    centroids = np.array([[0.0], [10.0], [99.0]], np.float32)
    found = nearest_in_clusters(np.array_split(rows, parts), centroids, 3)
    assert found == [[0, 3, 7], [2, 5], []], "4.9 is of the first cluster, and its sixth; nothing is of the third"


def test_each_centre_is_the_mean_of_its_anchors(world: Path, store: Store) -> None:
    job = job_of(world, store)
    plain = learnt(job, Prototypes(count=2, algorithm="full", posterior="mean"), [0])["prototypes"].flatten(1)
    latents = torch.cat([shard.mean.float() for shard in job.latents.shards(0)]).flatten(1)
    distances = torch.cdist(latents, plain).square()
    made = learnt(job, Anchors(count=2, algorithm="full", posterior="mean", anchors=2), [0])["prototypes"].flatten(1)
    for cluster in range(2):
        own = (distances.argmin(1) == cluster).nonzero().flatten()
        nearest = own[distances[own, cluster].argsort()[:2]]
        torch.testing.assert_close(made[cluster], latents[nearest].mean(0))
    assert not torch.allclose(made, plain), "two anchors are not the whole cluster"


def test_with_all_of_a_cluster_for_anchors_it_is_mgd3(world: Path, store: Store) -> None:
    job = job_of(world, store)
    mode, mean = (
        learnt(job, kind(count=1, algorithm="full", posterior="mean"), [1])["prototypes"]
        for kind in (Prototypes, Anchors)
    )
    torch.testing.assert_close(mean, mode, rtol=1e-4, atol=1e-5)


def test_with_a_gaussian_prior_the_way_to_an_anchors_mean_is_known() -> None:
    guide = TGDD().guide
    made = float(one_mode("ddpm", 50, guide, 0.4, 999))
    assert made == pytest.approx(by_hand("ddpm", 50, guide, 0.4), rel=1e-4)
    assert abs(made - MODE) < abs(float(one_mode("ddpm", 50, None, 0.4, 999)) - MODE)


def test_no_network_pass_is_added_and_images_aim_at_the_means(world: Path, store: Store) -> None:
    job, method = job_of(world, store), TGDD()
    prior: Any = load_method("prior", {"sampler.solver": "ddpm", "sampler.spacing": "linspace"})
    assert passes_per_image(job, method) == passes_per_image(job, prior) == 100
    means = torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, *job.prior.codec.shape)
    aims = method.start(job, {"prototypes": means}, 0, 3).aims
    assert aims is not None
    assert aims[:, 0, 0, 0].tolist() == [0, 1, 0]


def test_no_anchor_is_refused() -> None:
    with pytest.raises(AttarError, match=r"^fit.anchors 0: at least 1"):
        load_method("tgdd", {"fit.anchors": 0})
