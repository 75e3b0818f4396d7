"""What k-means is given: no outliers, and averages of squares; held to scikit-learn and to numbers by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import job_of, learnt, save_world

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.methods import load_method
from attar.methods.d4m import Prototypes
from attar.methods.kmeans import LatentRows, Parts, cluster_means, count_nearest, lloyd
from attar.methods.latent_rows import averaged, filled, loneliest, outlier_factors
from attar.methods.tgdd import Anchors

CLASSES = ["ant", "bee"]
FULL: dict[str, Any] = {"algorithm": "full", "posterior": "mean"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_world(tmp_path_factory.mktemp("world"), CLASSES)


def parts_of(rows: LatentRows, *cuts: int) -> Parts:
    return Parts(lambda: iter(np.split(rows, cuts)), len(rows))


def cloud(count: int = 60) -> LatentRows:
    """A cloud, and far from it every tenth point."""
    rows = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    rows[::10] += 50 + 10 * np.arange(0, count, 10, dtype=np.float32)[:, None]
    return rows


def test_parts_are_read_anew_and_only_some_rows_left_out() -> None:
    rows = np.arange(12.0, dtype=np.float32).reshape(6, 2)
    parts = parts_of(rows, 2, 4)
    rest = parts.without(np.array([0, 2, 3]))
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(rest)), rows[[1, 4, 5]])
    assert [len(part) for part in rest] == [1, 2], "a part without rows is no part"
    assert (parts.count, rest.count) == (6, 3)
    np.testing.assert_array_equal(np.concatenate(list(rest.mapped(lambda part: 2 * part))), 2 * rows[[1, 4, 5]])


@pytest.mark.parametrize("cuts", [(), (7, 20, 59)])
def test_outliers_are_those_of_scikit_learn_however_the_latents_come(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    from sklearn.neighbors import LocalOutlierFactor

    rows = cloud()
    factors = outlier_factors(parts_of(rows, *cuts), 10, tmp_path)
    judged = LocalOutlierFactor(n_neighbors=10, contamination=0.1).fit(rows)
    np.testing.assert_allclose(factors, -judged.negative_outlier_factor_, rtol=1e-3)
    assert (
        loneliest(factors, 0.1).tolist()
        == list(range(0, 60, 10))
        == np.flatnonzero(judged.fit_predict(rows) < 0).tolist()
    )
    assert not list(tmp_path.iterdir())


def test_the_file_that_latents_are_compared_in_has_no_hole(tmp_path: Path) -> None:
    """A full disk is then an error where it is written, and not the end of the process where it is read."""

    def broken() -> Iterator[LatentRows]:
        yield cloud()[:7]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outlier_factors(Parts(broken, 60), 10, tmp_path)
    assert (tmp_path / ".rows").stat().st_size == 7 * 4 * 4


def test_the_loneliest_are_a_share_rounded_down() -> None:
    factors = np.array([1.0, 3.0, 2.0, 3.0, 1.0])
    assert loneliest(factors, 0.1).tolist() == []
    assert loneliest(factors, 0.5).tolist() == [1, 3]


def test_of_a_single_latent_none_is_lonely(tmp_path: Path) -> None:
    assert outlier_factors(parts_of(cloud(1)), 10, tmp_path).tolist() == [1]
    assert len(outlier_factors(parts_of(cloud(2)), 10, tmp_path)) == 2


def test_few_parts_are_held_while_outliers_are_sought(tmp_path: Path) -> None:
    import weakref

    alive: list[Any] = []

    def read() -> Iterator[LatentRows]:
        for seed in range(20):
            part = np.random.default_rng(seed).normal(size=(8, 4)).astype(np.float32)
            alive.append(weakref.ref(part))
            assert sum(ref() is not None for ref in alive) <= 3
            yield part

    assert len(outlier_factors(Parts(read, 160), 10, tmp_path)) == 160


def test_squares_are_averaged_and_enlarged_again() -> None:
    z = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(2, 3, 4, 6)
    rows = z.flatten(1).numpy()
    small = averaged(rows, (3, 4, 6), 2)
    np.testing.assert_allclose(small, torch.nn.functional.avg_pool2d(z, 2).flatten(1))
    assert averaged(rows, (3, 4, 6), 1) is rows
    large = torch.nn.functional.interpolate(torch.from_numpy(small).view(2, 3, 2, 3), scale_factor=2)
    np.testing.assert_array_equal(filled(small, (3, 4, 6), 2), large.flatten(1))


def test_means_of_clusters_and_none_of_an_empty_one() -> None:
    latents = np.array([[0, 1], [0, 3], [8, 9]], np.float32)
    compared = latents[:, :1]
    means = cluster_means(parts_of(latents, 1), parts_of(compared, 1), np.array([[0], [8], [99]], np.float32))
    np.testing.assert_array_equal(means, [[0, 2], [8, 9], [np.nan, np.nan]])


def test_outliers_are_in_no_prototype_and_count_for_none(world: Path, store: Store) -> None:
    job = job_of(world, store)
    latents = torch.cat([shard.mean.float() for shard in job.latents.shards(0)]).flatten(1).numpy()
    found = learnt(job, Prototypes(count=2, outliers=0.25, neighbours=3, **FULL), [0])
    left_out = loneliest(outlier_factors(parts_of(latents), 3, world), 0.25)
    assert len(left_out) == 2
    rest = np.delete(latents, left_out, 0)
    np.testing.assert_array_equal(found["prototypes"].flatten(1), lloyd(rest, 2, 0))
    assert found["sizes"].sum() == len(rest) == 7
    assert len(learnt(job, Prototypes(count=9, outliers=0.25, **FULL), [0])["prototypes"]) == 7


@pytest.mark.parametrize("kind", [Prototypes, Anchors])
def test_clusters_of_averages_have_means_of_whole_latents(world: Path, store: Store, kind: type[Prototypes]) -> None:
    job = job_of(world, store)
    latents = torch.cat([shard.mean.float() for shard in job.latents.shards(1)]).flatten(1).numpy()
    small = averaged(latents, job.codec.shape, 4)
    found = learnt(job, kind(count=2, pooled=4, **FULL), [1])
    nearest = torch.cdist(torch.from_numpy(small), torch.from_numpy(lloyd(small, 2, 0))).argmin(1)
    means = [latents[nearest == cluster].mean(0) for cluster in range(2)]
    np.testing.assert_allclose(found["prototypes"].flatten(1), means, rtol=1e-4, atol=1e-5)
    made = averaged(found["prototypes"].flatten(1).numpy(), job.codec.shape, 4)
    sizes, inertia = count_nearest([small], made)
    assert found["sizes"].tolist() == sizes.tolist()
    assert float(found["inertia"]) == pytest.approx(inertia, rel=1e-4)


def test_anchors_are_sought_among_averages(world: Path, store: Store) -> None:
    job = job_of(world, store)
    latents = torch.cat([shard.mean.float() for shard in job.latents.shards(1)]).flatten(1).numpy()
    small = averaged(latents, job.codec.shape, 8)
    centre = lloyd(small, 1, 0)
    nearest = np.square(small - centre).sum(1).argsort()[:3]
    found = learnt(job, Anchors(count=1, pooled=8, anchors=3, **FULL), [1])["prototypes"].flatten(1)
    np.testing.assert_allclose(found, latents[nearest].mean(0)[None], rtol=1e-4, atol=1e-5)


def test_a_minibatch_and_real_latents_may_leave_outliers_out(world: Path, store: Store) -> None:
    job = job_of(world, store)
    drawn = learnt(job, Prototypes(count=7, algorithm="random", outliers=0.25, neighbours=3, posterior="mean"), [0])
    latents = torch.cat([shard.mean.float() for shard in job.latents.shards(0)]).flatten(1).numpy()
    rest = np.delete(latents, loneliest(outlier_factors(parts_of(latents), 3, world), 0.25), 0)
    np.testing.assert_array_equal(drawn["prototypes"].flatten(1), rest)
    assert learnt(job, Prototypes(count=2, outliers=0.25, pooled=2), [0])["sizes"].sum() == 7


def test_unused_they_enter_no_key(world: Path, store: Store) -> None:
    job = job_of(world, store)
    assert not {"outliers", "neighbours", "pooled"} & job.to_config(Prototypes(count=2)).keys()
    asked = {"outliers": 0.1, "pooled": 2}
    assert asked.items() <= job.to_config(Prototypes(count=2, **asked)).items()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"outliers": 0.6}, "fit.outliers 0.6: from 0 to 0.5"),
        ({"outliers": float("nan")}, "fit.outliers nan: from 0 to 0.5"),
        ({"neighbours": 0}, "fit.neighbours 0: at least 1"),
        ({"pooled": 0}, "fit.pooled 0: at least 1"),
        (
            {"pooled": 2, "algorithm": "random"},
            "fit.pooled 2: fit.algorithm random compares nothing; choose minibatch or full",
        ),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(AttarError) as error:
        load_method("mgd3", {f"fit.{name}": value for name, value in {"algorithm": "full", **fields}.items()})
    assert str(error.value).startswith(words)


def test_squares_must_fill_the_latents(world: Path, store: Store) -> None:
    with pytest.raises(AttarError, match=r"^`fit.pooled` 3: does not divide the latents' 8 x 8$"):
        Prototypes(pooled=3).check(job_of(world, store).prior)
