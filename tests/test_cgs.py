"""CGS: what couples the images of a class, held to numbers worked out by hand, and that a class is made at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from test_guides import MEAN, MODE, STD
from test_ot import calls_of
from torch import Tensor
from toys import GaussianPrior, job_of, learnt, linear_schedule, save_world

from attar.core.errors import AttarError
from attar.core.rng import noise
from attar.core.store import Store
from attar.diffusion import Move, Sampler, grid, sample
from attar.distillation import denoising
from attar.distillation.run import distill_sets
from attar.job import Job
from attar.methods import load_method
from attar.methods.cgs import CGS, Collaborative, drift
from attar.methods.energy import gradient
from attar.sets.distilled import open_distilled

CLASSES = ["ant", "bee", "cat"]
NEAR: dict[str, Any] = {"sampler.steps": 5, "sampler.guided_channels": "none"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_world(tmp_path_factory.mktemp("world"), CLASSES)


def latents(n: int) -> Tensor:
    return noise((n, 2, 3, 3), "test").double()


def moved(z: Tensor, mean: Tensor, guide: Collaborative, abar: float = 0.25) -> Tensor:
    return guide(Move(9, 500, abar, z, z, z, 1.0, torch.zeros(len(z))), mean.expand_as(z), z[:, None][:, :0])


def test_two_images_repel_one_another_as_worked_out_by_hand() -> None:
    z, epsilon = latents(2), 0.01
    a, b = z.flatten(1)
    u, v = a / a.norm(), b / b.norm()
    c = u @ v
    # L = -log((1 + epsilon)^2 - c^2)
    steep = 2 * c / ((1 + epsilon) ** 2 - c**2)
    expected = -7 * steep * torch.stack([(v - c * u) / a.norm(), (u - c * v) / b.norm()]).view_as(z)
    torch.testing.assert_close(moved(z, z[:1], Collaborative(7.0, 0.0, epsilon)), expected)


def test_energies_are_computed_in_float64_on_the_cpu_also_in_inference_mode() -> None:
    def energy(x: Tensor) -> Tensor:
        assert (x.dtype, x.device.type) == (torch.float64, "cpu")
        return x.pow(3).sum()

    with torch.inference_mode():
        x = torch.tensor([0.1, 3.0])
        found = gradient(energy, x)
    assert torch.equal(found, (3 * x.double() ** 2).float())


def test_the_gradient_is_that_of_finite_differences() -> None:
    guide, z, h = Collaborative(), latents(4), 1e-6
    unit = torch.eye(z.numel()).double().view(-1, *z.shape)
    slopes = [(guide.crowding(z + h * e) - guide.crowding(z - h * e)) / (2 * h) for e in unit]
    torch.testing.assert_close(gradient(guide.crowding, z), torch.stack(slopes).view_as(z), rtol=1e-5, atol=1e-8)


def test_repulsion_opens_the_smallest_angle_and_the_match_brings_the_mean_nearer() -> None:
    z, mean = latents(5) + 1.5, latents(1)[0]

    def closest(some: Tensor) -> float:
        rows = torch.nn.functional.normalize(some.flatten(1))
        return float((rows @ rows.T - 2 * torch.eye(len(rows))).max())

    assert closest(z + moved(z, mean, Collaborative(0.5, 0.0))) < closest(z)
    half = 0.25**0.5 * mean
    assert drift(z + moved(z, mean, Collaborative(0.0, 3.0)), half) < drift(z, half)


def test_with_a_gaussian_prior_and_one_image_the_guided_mean_is_known() -> None:
    """A single image repels none; its latents have one number, so D = 1."""
    prior = GaussianPrior(torch.tensor([MEAN, 0.0]), torch.tensor([STD, 1.0]))
    guide, start, mode = Collaborative(100.0, 0.02), torch.full((1, 1, 1, 1), 0.4), torch.full((1, 1, 1, 1), MODE)
    sampler = Sampler(steps=20, guidance=1, spacing="linspace")
    made = sample(
        prior, start, 999, torch.tensor([0]), sampler, guide=lambda move: guide(move, mode, start[:, None][:, :0])
    )
    schedule, times, z = linear_schedule(), grid(20, "linspace"), 0.4
    for left in reversed(range(20)):
        at, to = (schedule.abar(t) for t in (times[left], times[left - 1] if left else -1))
        predicted = (1 - at) ** 0.5 * (z - at**0.5 * MEAN) / (at * STD**2 + 1 - at)
        clean = (z - (1 - at) ** 0.5 * predicted) / at**0.5
        z = to**0.5 * clean + (1 - to) ** 0.5 * predicted - 0.02 * 2 * (z - at**0.5 * MODE)
    assert float(made) == pytest.approx(z, rel=1e-4)
    assert prior.calls == 20, "no network pass is added"


def test_the_single_centroid_is_the_mean_of_the_class(world: Path, store: Store) -> None:
    job = job_of(world, store)
    every = torch.cat([shard.mean.float() for shard in job.latents.shards(1)])
    torch.testing.assert_close(learnt(job, CGS().fit, [1])["prototypes"][0], every.mean(0), rtol=1e-4, atol=1e-5)


@dataclass(frozen=True)
class Watching(Collaborative):
    told: ClassVar[list[tuple[int, Tensor]]] = []

    def __call__(self, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        self.told.append((len(move.z), move.y))
        return super().__call__(move, aims, finished)


def test_a_class_is_given_to_the_guide_whole_and_by_itself(
    world: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever classes share its batch, and where they are more than fill one."""
    method: Any = replace(load_method("cgs", NEAR), guide=Watching())  # type: ignore[type-var]

    def bytes_of(job: Job, name: str) -> list[list[bytes]]:
        Watching.told.clear()
        distill_sets(job, "cgs", method, (4,), tmp_path / name)
        assert all(n == 4 and len(set(y.tolist())) == 1 for n, y in Watching.told)
        return [[file.read_bytes() for file in files] for files in open_distilled(tmp_path / name).files()]

    every = bytes_of(job_of(world, store), "every")
    some = bytes_of(job_of(world, Store(tmp_path / "b"), classes=("bee",)), "some")
    assert some == every[1:2]
    monkeypatch.setattr(denoising, "BUNDLE", 1)
    monkeypatch.setattr("attar.distillation.pipeline.BUNDLE", 1)
    small = job_of(world, Store(tmp_path / "c"))
    small.prior = small.prior.with_batch_size(2)
    monkeypatch.setattr(type(small), "compute", {"tile": 2})
    assert len(bytes_of(small, "small")) == 3


def test_no_network_pass_is_added(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls_of(world, tmp_path, "cgs", NEAR, monkeypatch) == 2 * len(CLASSES) * 2 * NEAR["sampler.steps"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"guide.repulsion": -1.0}, "guide.repulsion -1.0: a number of 0 or more"),
        ({"guide.matching": "inf"}, "guide.matching inf: a number of 0 or more"),
        ({"guide.epsilon": 0.0}, "guide.epsilon 0.0: a number above 0"),
        ({"fit.count": 2}, "fit.count 2: 1, for there is one mean"),
        ({"sampler.solver": "EulerDiscreteScheduler"}, "a guide moves the steps of"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError, match=said):
        load_method("cgs", fields)
