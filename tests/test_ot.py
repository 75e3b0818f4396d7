"""The guide by optimal transport, held to numbers worked out by hand, and OT, which is guided by it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from test_guides import MEAN, MODE, STD
from torch import Tensor
from toys import GaussianPrior, job_of, linear_schedule, save_world

from attar.core.errors import AttarError
from attar.core.rng import noise
from attar.core.store import Store
from attar.diffusion import Move, Sampler, grid, sample
from attar.distillation.device_speed import passes_per_image, passes_per_second
from attar.distillation.run import distill_sets
from attar.methods import load_method
from attar.methods.ot import OT
from attar.methods.transport import ByTransport, sinkhorn
from attar.priors.prior import Prior

CLASSES = ["ant", "bee"]
NEAR: dict[str, Any] = {"sampler.steps": 6, "guide.first": 4, "guide.last": 1, "sampler.guided_channels": "none"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_world(tmp_path_factory.mktemp("world"), CLASSES)


def drawn(*shape: int, of: str) -> torch.Tensor:
    return noise(shape, "test", of).double()


def points(*places: float, masses: tuple[float, ...]) -> torch.Tensor:
    """Points of latents of four numbers, all alike, and their masses."""
    return torch.tensor([[*[place] * 4, mass] for place, mass in zip(places, masses, strict=True)], dtype=torch.float64)


def test_a_plan_has_the_masses_of_both_sides() -> None:
    rows, columns = torch.tensor([0.2, 0.3, 0.5]).double(), torch.tensor([0.6, 0.4]).double()
    plan = sinkhorn(drawn(3, 2, of="cost").abs(), rows, columns, 0.1, 200)
    torch.testing.assert_close(plan.sum(1), rows)
    torch.testing.assert_close(plan.sum(0), columns)


def test_little_entropy_finds_the_cheapest_plan_whatever_the_costs() -> None:
    half = torch.full((2,), 0.5).double()
    cost = torch.tensor([[0.0, 3e4], [3e4, 2e4]]).double()
    torch.testing.assert_close(sinkhorn(cost, half, half, 0.1, 50), torch.eye(2).double() / 2)


def test_mass_can_only_go_to_the_single_point() -> None:
    torch.testing.assert_close(
        sinkhorn(torch.tensor([[1.0], [5.0]]), torch.full((2,), 0.5), torch.ones(1), 0.1, 5),
        torch.tensor([[0.5], [0.5]]),
    )


@pytest.mark.parametrize("cost", ["sphere", "l1"])
def test_the_gradient_is_that_of_finite_differences(cost: Any) -> None:
    guide, h = ByTransport(cost=cost, epsilon=0.3), 1e-6
    x, finished = drawn(2, 2, 1, of="x"), drawn(3, 2, 2, 1, of="finished")
    aims = torch.cat([drawn(5, 4, of="points"), torch.tensor([[0.1], [0.4], [0.2], [0.25], [0.05]])], 1)
    move = Move(40, 900, 0.25, x[None], x[None], x[None], 1.0, torch.zeros(1))
    found = guide(move, aims[None], finished[None])[0]
    unit = torch.eye(4).double().view(4, 2, 2, 1)
    slopes = [
        (guide.energy(x + h * e, finished, aims) - guide.energy(x - h * e, finished, aims)) / (2 * h) for e in unit
    ]
    if cost == "l1":  # the unit of epsilon is not differentiated
        slopes = [_slope_of_fixed_unit(guide, x, e, finished, aims, h) for e in unit]
    expected = -0.5 * torch.stack(slopes).view(2, 2, 1) / 0.25**0.5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def _slope_of_fixed_unit(guide: ByTransport, x: Any, e: Any, finished: Any, aims: Any, h: float) -> torch.Tensor:
    made = [torch.cat([finished, (x + way * h * e)[None]]).flatten(1) for way in (-1, 0, 1)]
    unit = guide.costs(made[1], aims[:, :-1]).mean()
    alike = torch.full((len(made[0]),), 1 / len(made[0])).double()
    costs = [guide.costs(one, aims[:, :-1]) for one in (made[0], made[2])]
    plans = [sinkhorn(cost / unit, alike, aims[:, -1], guide.epsilon, guide.iterations) for cost in costs]
    return ((plans[1] * costs[1]).sum() - (plans[0] * costs[0]).sum()) / (2 * h)


def test_with_a_gaussian_prior_and_one_point_the_guided_mean_is_known() -> None:
    prior = GaussianPrior(torch.tensor([MEAN, 0.0]), torch.tensor([STD, 1.0]))
    guide, start = ByTransport(scale=0.02, first=15, last=8, cost="l1"), torch.full((1, 1, 1, 1), 0.4)
    aims = torch.tensor([[[MODE, 1.0]]])
    sampler = Sampler(steps=20, guidance=1, spacing="linspace")
    made = sample(
        prior, start, 999, torch.tensor([0]), sampler, guide=lambda move: guide(move, aims, start[:, None][:, :0])
    )
    schedule, times, z = linear_schedule(), grid(20, "linspace"), 0.4
    for left in reversed(range(20)):
        at, to = (schedule.abar(t) for t in (times[left], times[left - 1] if left else -1))
        predicted = (1 - at) ** 0.5 * (z - at**0.5 * MEAN) / (at * STD**2 + 1 - at)
        clean = (z - (1 - at) ** 0.5 * predicted) / at**0.5
        sigma = ((1 - at / to) * (1 - to) / (1 - at)) ** 0.5
        towards = (1 if clean < MODE else -1) * 0.02 * sigma / at**0.5
        z = to**0.5 * clean + (1 - to) ** 0.5 * predicted + (towards if 15 >= left >= 8 else 0.0)
    assert float(made) == pytest.approx(z, rel=1e-4)
    assert prior.calls == 20, "no network pass is added"


def test_an_image_goes_where_the_finished_ones_are_not() -> None:
    guide = ByTransport(cost="l1", epsilon=0.02, scale=1.0)
    x = torch.full((1, 1, 2, 2), 0.1).double()
    move = Move(40, 900, 1.0, x, x, x, 1.0, torch.zeros(1))
    both = points(-1, 1, masses=(0.5, 0.5))[None]
    for place in (-1.0, 1.0):
        finished = torch.full((1, 1, 1, 2, 2), place)
        moved = guide(move, both, finished)
        assert moved.sign().eq(-place).all()
    heavy = points(-1, 1, masses=(0.9, 0.1))[None]
    assert guide(move, heavy, torch.zeros(1, 0, 1, 2, 2)).sign().eq(-1).all(), "most of its mass goes to the left"


def test_steps_outside_are_not_moved() -> None:
    x, some = torch.ones(1, 1, 2, 2), torch.tensor([[[1.0, 0.0, 0.0, 0.0, 1.0]]])
    guide = ByTransport()
    moved = [bool(guide(Move(i, 0, 0.5, x, x, x, 1.0, x), some, x[:, None][:, :0]).any()) for i in (46, 45, 30, 29)]
    assert moved == [False, True, True, False]


@dataclass(frozen=True)
class Watching(ByTransport):
    """Notes how many finished latents each row sees."""

    seen: ClassVar[list[tuple[int, ...]]] = []

    def __call__(self, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        self.seen.append(tuple(finished.shape[:2]))
        return super().__call__(move, aims, finished)


def test_images_are_made_one_after_another(world: Path, tmp_path: Path, store: Store) -> None:
    method: Any = load_method("ot", NEAR)
    watching = Watching(first=4, last=1, cost="l1")
    distill_sets(job_of(world, store), "ot", replace(method, guide=watching), (3,), tmp_path / "out")
    assert Watching.seen == [(1, 0)] * 8 + [(1, 1)] * 8 + [(1, 2)] * 8, (
        "two classes in four guided steps, each row by itself"
    )


def calls_of(world: Path, place: Path, name: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """Calls of the network, of one row each, for two images of each class."""
    calls: list[None] = []
    forward, job = Prior._forward, job_of(world, Store(place / "cache"), tile=1)
    passes_per_second(job.prior)  # timed once in a process
    monkeypatch.setattr(Prior, "_forward", lambda *args: calls.append(None) or forward(*args))  # type: ignore[func-returns-value]
    distill_sets(job, name, load_method(name, fields), (2,), place / "out")
    return len(calls)


def test_no_network_pass_is_added(world: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes_per_image(job_of(world, store), OT()) == 100
    assert calls_of(world, tmp_path, "ot", NEAR, monkeypatch) == 2 * len(CLASSES) * 12


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"guide.scale": -1.0}, "guide.scale -1.0: a number of 0 or more"),
        ({"guide.epsilon": 0.0}, "guide.epsilon 0.0: a number above 0"),
        ({"guide.iterations": 0}, "guide.iterations 0: at least 1"),
        ({"guide.last": 46}, "guide.last 46: from 0 to the 45 of guide.first"),
        ({"sampler.steps": 30}, "guide.last 30: less than the 30 of sampler.steps, or nothing is guided"),
        ({"guide.cost": "l2"}, "guide.cost"),
        ({"sampler.solver": "EulerDiscreteScheduler"}, "a guide moves the steps of"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError, match=said):
        load_method("ot", fields)
