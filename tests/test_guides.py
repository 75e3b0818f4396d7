"""Guides: what moves latents between the prior's steps, and MGD3, which draws each image to a mode of its class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from toys import GaussianPrior, job_of, linear_schedule, save_world

from attar.core.errors import AttarError
from attar.core.progress import quiet
from attar.core.store import Store
from attar.diffusion import SOLVERS, Move, Sampler, grid, sample
from attar.distillation.artefacts import artefacts, load_artefact
from attar.distillation.checks import planned
from attar.distillation.run import distill_sets
from attar.job import Job
from attar.methods import load_method
from attar.methods.base import LatentMethod, Start, Tensors
from attar.methods.mgd3 import MGD3, TowardMode
from attar.methods.prior_samples import PriorSamples
from attar.report import write_report
from attar.sets.distilled import open_distilled, verify

MEAN, STD, MODE = 0.6, 0.5, 2.0
CLASSES = ["ant", "bee", "cat"]
FAST: dict[str, Any] = {"sampler.steps": 6, "guide.until": 2, "sampler.guided_channels": "none"}


def one_mode(solver: str, steps: int, guide: TowardMode | None, z: float, t: int) -> Tensor:
    """Where a latent of a Gaussian prior goes from (z, t), its mode being MODE; steps draw no noise."""
    prior = GaussianPrior(torch.tensor([MEAN, 0.0]), torch.tensor([STD, 1.0]))
    start, aims = torch.full((1, 1, 1, 1), z), torch.full((1, 1, 1, 1), MODE)
    sampler = Sampler(solver=solver, steps=steps, guidance=1, spacing="linspace")
    shift = None if guide is None else lambda move: guide(move, aims, aims[:, None, :0])
    return sample(prior, start, t, torch.tensor([0]), sampler, noise=lambda _: torch.zeros_like(start), guide=shift)


def by_hand(solver: str, steps: int, guide: TowardMode, z: float) -> float:
    """The same in numbers: what a Gaussian predicts of x0 is known, and so is each step's mean."""
    schedule, times = linear_schedule(), grid(steps, "linspace")
    for left in reversed(range(steps)):
        at, to = (schedule.abar(t) for t in (times[left], times[left - 1] if left else -1))
        noise = (1 - at) ** 0.5 * (z - at**0.5 * MEAN) / (at * STD**2 + 1 - at)
        clean = (z - (1 - at) ** 0.5 * noise) / at**0.5
        beta = 1 - at / to
        sigma = (beta * (1 - to) / (1 - at)) ** 0.5
        mean, moved = to**0.5 * clean + (1 - to) ** 0.5 * noise, to**0.5
        if solver == "ddpm":
            moved = 1.0
            mean = beta * to**0.5 / (1 - at) * clean + (1 - to) * (1 - beta) ** 0.5 / (1 - at) * z
        z = mean + (guide.scale * sigma * moved * (MODE - clean) if left > guide.until else 0.0)
    return z


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_with_a_gaussian_prior_and_one_mode_the_guided_mean_is_known(solver: str) -> None:
    guide = TowardMode(scale=0.3, until=8)
    made = float(one_mode(solver, 20, guide, 0.4, 999))
    assert made == pytest.approx(by_hand(solver, 20, guide, 0.4), rel=1e-4)
    assert made != pytest.approx(by_hand(solver, 20, TowardMode(scale=0.0), 0.4), rel=1e-2), "the guide does nothing"


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_guide_draws_towards_the_mode_at_any_solver(solver: str) -> None:
    plain, drawn, more = (
        float(one_mode(solver, 20, guide, 0.4, 999))
        for guide in (None, TowardMode(scale=0.05, until=8), TowardMode(scale=0.1, until=8))
    )
    assert abs(more - MODE) < abs(drawn - MODE) < abs(plain - MODE)


def test_no_guide_and_one_of_no_weight_are_the_same() -> None:
    assert torch.equal(one_mode("ddim", 20, None, 0.4, 999), one_mode("ddim", 20, TowardMode(scale=0.0), 0.4, 999))


def test_a_guide_costs_no_network_pass() -> None:
    calls = []
    for guide in (None, lambda move: torch.ones_like(move.z)):
        prior = GaussianPrior(torch.tensor([MEAN, 0.0]), torch.tensor([STD, 1.0]))
        sample(prior, torch.zeros(1, 1, 1, 1), 980, torch.tensor([0]), Sampler(steps=50), guide=guide)
        calls.append(prior.calls)
    assert calls[0] == calls[1] == 100


def test_a_guide_sees_the_steps_that_are_left_and_the_deviation_of_each() -> None:
    seen: list[Move] = []

    def watch(move: Move) -> Tensor:
        seen.append(move)
        return torch.zeros_like(move.z)

    prior = GaussianPrior(torch.tensor([MEAN, 0.0]), torch.tensor([STD, 1.0]))
    sample(prior, torch.zeros(1, 1, 1, 1), 980, torch.tensor([0]), Sampler(steps=50, guidance=1), guide=watch)
    assert [move.left for move in seen] == list(reversed(range(50)))
    assert [move.t for move in seen] == grid(50)[::-1]
    assert seen[-1].deviation == 0
    assert all(float(a.deviation) > float(b.deviation) for a, b in pairwise(seen))


def test_schedulers_of_diffusers_take_no_guide() -> None:
    sampler = Sampler(solver="EulerDiscreteScheduler", spacing="linspace")
    with pytest.raises(
        AttarError, match=r"^sampler.solver EulerDiscreteScheduler: a guide moves the steps of ddim, ddpm"
    ):
        MGD3(sampler=sampler)
    prior = GaussianPrior(torch.tensor([MEAN, 0.0]), torch.tensor([STD, 1.0]))
    with pytest.raises(AttarError, match="a guide moves the steps of"):
        sample(prior, torch.zeros(1, 1, 1, 1), 999, torch.tensor([0]), sampler, guide=lambda move: move.z)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"guide.until": -1}, "guide.until -1: at least 0"),
        ({"guide.until": 49}, "guide.until 49: less than 49, or nothing is guided"),
        ({"guide.scale": "much"}, "guide.scale"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError, match=said):
        load_method("mgd3", fields)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_world(tmp_path_factory.mktemp("world"), CLASSES)


@dataclass(frozen=True)
class Recording(TowardMode):
    """Keeps what it is told, beside the class of each row."""

    told: ClassVar[list[tuple[Tensor, Tensor]]] = []

    def __call__(self, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        assert aims is not None
        self.told.append((move.y, aims))
        return super().__call__(move, aims, finished)


def test_mgd3_draws_each_image_to_a_mode_of_its_own(world: Path, tmp_path: Path, store: Store) -> None:
    job, recording = job_of(world, store), Recording(until=2)
    recording.told.clear()
    method: Any = replace(load_method("mgd3", FAST), guide=recording)  # type: ignore[type-var]
    distill_sets(job, "mgd3", method, (3,), tmp_path / "out")
    assert verify(tmp_path / "out") == []
    made, (y, aims) = artefacts(job, method.for_ipc(3), 3), recording.told[0]
    for label in job.labels:
        modes = load_artefact(job, made.fits[label])["prototypes"]
        assert len({mode.sum().item() for mode in modes}) == 3
        assert torch.equal(aims[y == job.prior_labels[label]], modes)


def test_modes_are_taken_again_where_images_outnumber_them(world: Path, store: Store) -> None:
    job, method = job_of(world, store), MGD3()
    modes = torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, *job.prior.codec.shape)
    start = method.start(job, {"prototypes": modes}, 0, 5)
    assert start.aims is not None
    assert start.aims[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 0]
    assert len({z.sum().item() for z in start.z}) == 5, "each has noise of its own"


@dataclass(frozen=True)
class Backward:
    """Notes how many finished latents each row sees, and moves away from their mean."""

    seen: ClassVar[list[tuple[int, ...]]] = []

    looks_back = True
    together = False

    def __call__(self, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        assert aims is None
        self.seen.append(tuple(finished.shape[:2]))
        if not finished.shape[1]:
            return torch.zeros_like(move.z)
        return 0.1 * move.deviation * (move.clean - finished.mean(1))


@dataclass(frozen=True)
class LooksBack(LatentMethod):
    fit: Any = PriorSamples.fit
    sampler: Sampler = Sampler(steps=4)
    guide: Backward = Backward()
    select: Any = PriorSamples.select

    def start_time(self, prior: Any) -> int:
        return PriorSamples(sampler=self.sampler).start_time(prior)

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        return PriorSamples(sampler=self.sampler).start(job, fitted, label, n)


def test_a_guide_that_looks_back_sees_what_is_finished_of_its_class(world: Path, tmp_path: Path, store: Store) -> None:
    method, job = LooksBack(), job_of(world, store)
    method.guide.seen.clear()
    distill_sets(job, "looks-back", method, (3,), tmp_path / "all")
    assert method.guide.seen == [(3, 0)] * 4 + [(3, 1)] * 4 + [(3, 2)] * 4
    some = job_of(world, Store(tmp_path / "other"), classes=("bee",))
    distill_sets(some, "looks-back", method, (3,), tmp_path / "some")
    every, alone = (open_distilled(tmp_path / name) for name in ("all", "some"))
    pictures = [file.read_bytes() for file in alone.files()[0]]
    assert pictures == [file.read_bytes() for file in every.files()[1]], "bytes depend on the other classes"
    plain = LooksBack(guide=None)  # type: ignore[arg-type]
    distill_sets(job_of(world, store), "plain", plain, (3,), tmp_path / "plain")
    unguided = [file.read_bytes() for file in open_distilled(tmp_path / "plain").files()[1]]
    assert pictures[0] == unguided[0]
    assert pictures[1:] != unguided[1:]


def test_how_far_images_are_from_their_modes_is_kept_step_by_step(
    world: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, seen = job_of(world, store), list[tuple[Tensor, Tensor]]()

    def noted(guide: TowardMode, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        assert aims is not None
        seen.append((move.clean.clone(), aims.clone()))
        return guide.scale * move.deviation * (aims - move.clean)

    monkeypatch.setattr(TowardMode, "__call__", noted)
    method: Any = load_method("mgd3", FAST)
    distill_sets(job, "mgd3", method, (2,), tmp_path / "out")
    made = artefacts(job, method.for_ipc(2), 2)
    kept = torch.cat([load_artefact(job, made.candidates[label])["distances"] for label in job.labels])
    assert kept.shape == (6, 6), "of two images of three classes, at six steps"
    expected = torch.stack([(clean - aims).flatten(1).norm(dim=1) / aims[0].numel() ** 0.5 for clean, aims in seen], 1)
    torch.testing.assert_close(kept, expected)
    way = open_distilled(tmp_path / "out").manifest["way"]
    assert [step["t"] for step in way] == grid(6, "linspace")[::-1]
    assert [step["distance"] for step in way] == pytest.approx(expected.square().mean(0).sqrt().tolist(), rel=1e-6)


def test_the_guide_brings_images_nearer_to_their_modes(world: Path, tmp_path: Path, store: Store) -> None:
    last = {}
    for scale in (0.0, 0.02):
        method: Any = load_method("mgd3", {**FAST, "guide.scale": scale})
        distill_sets(job_of(world, store), "mgd3", method, (2,), tmp_path / f"{scale}")
        last[scale] = open_distilled(tmp_path / f"{scale}").manifest["way"]
    assert last[0.02][0] == last[0.0][0], "the first prediction is made before anything is moved"
    assert last[0.02][3]["distance"] < last[0.0][3]["distance"]
    write_report([tmp_path / "0.02"], [], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"<td>{last[0.02][0]['distance']:.3f}</td><td>{last[0.02][-1]['distance']:.3f}</td>" in page


def test_what_is_kept_of_the_way_does_not_depend_on_the_batches(world: Path, tmp_path: Path, store: Store) -> None:
    method: Any = load_method("mgd3", FAST)
    every = artefacts(job := job_of(world, store), method.for_ipc(2), 2)
    distill_sets(job, "mgd3", method, (2,), tmp_path / "all")
    other = job_of(world, Store(tmp_path / "other"), classes=("bee",))
    distill_sets(other, "mgd3", method, (2,), tmp_path / "some")
    alone = artefacts(other, method.for_ipc(2), 2)
    files = [
        (of.store.folder(made.candidates[label]) / "candidates.safetensors").read_bytes()
        for of, made, label in ((job, every, 1), (other, alone, 0))
    ]
    assert files[0] == files[1]


@dataclass(frozen=True)
class Unguided(PriorSamples):
    aims_at_latents = True


def test_without_a_guide_there_is_no_way_to_keep(world: Path, tmp_path: Path, store: Store) -> None:
    distill_sets(job_of(world, store), "unguided", Unguided(Sampler(steps=2)), (2,), tmp_path / "out")
    assert "way" not in open_distilled(tmp_path / "out").manifest


def test_sets_that_keep_the_way_are_other_sets_than_those_of_before(
    world: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    method: Any = load_method("mgd3", FAST)
    keys = [planned(job_of(world, store), "mgd3", method, (2,), tmp_path / "out", quiet).key(2)]
    monkeypatch.setattr(MGD3, "aims_at_latents", False)
    keys.append(planned(job_of(world, store), "mgd3", method, (2,), tmp_path / "out", quiet).key(2))
    assert keys[0] != keys[1]
