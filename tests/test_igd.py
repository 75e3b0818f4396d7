"""IGD: both guides held to numbers worked out by hand, and the surrogate that one of them asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_methods import FAST
from test_ot import CLASSES, calls_of, drawn
from torch import Tensor, nn
from toys import job_of, learnt, save_tiny_dit, save_world

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.data import load_pixels
from attar.diffusion import Move
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import load_method
from attar.methods.igd.guides import Guidance, Influence, similarity_gradient
from attar.methods.igd.method import IGD
from attar.methods.igd.surrogate import Surrogate
from attar.sets.distilled import open_distilled
from attar.training import Plan, train
from attar.training.augment import Augmentation

SMALL = Surrogate(network="convnet3-w8", epochs=3, kept=(1, 3), batch=8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = save_world(tmp_path_factory.mktemp("world"), CLASSES)
    save_tiny_dit(root / "pixels", CLASSES, vae=False)
    return root


@pytest.fixture(scope="module")
def pixels(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job whose latents are pixels, so that the decoder is known."""
    spec = Spec(f"imagefolder:{world / 'data'}", prior=str(world / "pixels"), codec="pixel", device="cpu")
    return Job(spec, Store(tmp_path_factory.mktemp("cache")))


def move(z: Tensor, left: int = 40) -> Move:
    return Move(left, 900, 0.25, z, z, z, 0.5, torch.zeros(len(z)))


def test_the_gradient_of_the_nearest_cosine_is_that_of_finite_differences() -> None:
    z, others, h = drawn(2, 3, 3, of="z"), drawn(6, 2, 3, 3, of="others"), 1e-6
    unit = torch.eye(18).double().view(18, 2, 3, 3)

    def nearest(x: Tensor) -> Tensor:
        return F.cosine_similarity(x.flatten()[None], others.flatten(1)).max()

    slopes = torch.stack([(nearest(z + h * e) - nearest(z - h * e)) / (2 * h) for e in unit])
    torch.testing.assert_close(similarity_gradient(z, others).flatten(), slopes, rtol=1e-5, atol=1e-8)


def test_the_deviation_raises_the_smallest_distance() -> None:
    z, finished = drawn(3, 2, 4, 4, of="z"), drawn(3, 5, 2, 4, 4, of="finished")
    guide = Guidance(deviation=0.5)
    moved = z + guide(move(z), None, finished)

    def distances(some: Tensor) -> Tensor:
        unit = F.normalize(some.flatten(1))[:, None] - F.normalize(finished.flatten(2), dim=2)
        return unit.norm(dim=2).min(1).values

    assert (distances(moved) > distances(z)).all()


def test_only_the_last_finished_latents_count_and_the_first_image_is_not_moved() -> None:
    z, finished = drawn(1, 2, 4, 4, of="z"), drawn(1, 5, 2, 4, 4, of="finished")
    finished[:, 0] = z
    all_of_them, last = (Guidance(memory=memory)(move(z), None, finished) for memory in (5, 4))
    assert all_of_them.abs().max() < 1e-9, "nothing is nearer than itself, where the cosine is at its highest"
    assert last.abs().max() > 1
    assert not Guidance()(move(z), None, finished[:, :0]).any()
    assert [bool(Guidance(memory=4)(move(z, i), None, finished).any()) for i in (46, 45, 30, 29)] == [0, 1, 1, 0]


class Linear(nn.Module):
    """With weights of zero, the loss of x has the gradient (p - y) x, p uniform."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.last = nn.Linear(features, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.flatten(1))


def test_for_a_linear_surrogate_the_influence_is_the_cosine_with_the_mean_real_image(pixels: Job) -> None:
    size = pixels.codec.size
    features = 3 * size**2
    opened = Influence(Guidance(real=100), pixels, Linear(features), torch.zeros(2, 2 * features))
    x = 0.3 * drawn(3, size, size, of="x").clamp(-3, 3).float()
    numbers = pixels.images.of_class(1)
    real = torch.from_numpy(load_pixels(pixels.images, numbers, size, pixels.spec.preprocess))
    mean = (real / 127.5 - 1).mean(0).permute(2, 0, 1)
    torch.testing.assert_close(opened.influence(x, 1), F.cosine_similarity(x.flatten(), mean.flatten(), dim=0))
    expected = F.normalize(similarity_gradient(x, mean[None]).flatten(), dim=0)
    torch.testing.assert_close(opened.slope(x, 1).flatten(), expected, rtol=1e-3, atol=1e-4)
    with torch.inference_mode():
        moved = opened(move(x[None]), torch.tensor([1]), x[None, None][:, :0])
    torch.testing.assert_close(moved.flatten(), 5 * 0.5 * expected, rtol=1e-3, atol=1e-3)


def test_the_slope_is_where_the_influence_rises_through_a_trained_surrogate(pixels: Job) -> None:
    weights = learnt(pixels, SMALL, list(pixels.labels))["weights"]
    opened = Influence(Guidance(real=6), pixels, SMALL.built(pixels, 2), weights)
    x = 0.3 * drawn(3, pixels.codec.size, pixels.codec.size, of="x").float().clamp(-2, 2)
    slope = opened.slope(x, 0)

    def influence(step: Tensor) -> float:
        return float(opened.influence(x + 0.1 * step, 0).detach())

    up = influence(slope)
    assert up > influence(torch.zeros_like(x)) > influence(-slope)
    others = [drawn(*x.shape, of=name).float() for name in "abc"]
    assert up > max(influence(other / other.norm()) for other in others), (
        "no other direction of this length rises as much"
    )


def test_the_kept_weights_are_those_of_their_epochs(pixels: Job) -> None:
    labels = list(pixels.labels)
    both, first = (learnt(pixels, replace(SMALL, kept=kept), labels)["weights"] for kept in ((1, 3), (1,)))
    assert both.shape == (2, first.shape[1])
    assert torch.equal(both[0], first[0])
    assert not torch.equal(both[0], both[1])
    network, chosen = SMALL.built(pixels, 2), [number for label in labels for number in SMALL._drawn(pixels, label)]
    images = torch.from_numpy(load_pixels(pixels.images, chosen, pixels.codec.size, pixels.spec.preprocess))
    plan = Plan(epochs=3, batch=8, lr=0.01, schedule="multistep")
    how = Augmentation(pixels.codec.size, shift=4, flip=True, normalise="half")
    train(network, images, torch.tensor([0] * 9 + [1] * 9), plan, how, 0, "surrogate")
    assert torch.equal(both[1], nn.utils.parameters_to_vector(network.parameters())), "the end of all epochs"


def test_the_surrogate_is_the_same_wherever_its_images_are(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, mapped, decoded = (job_of(world, Store(tmp_path / name)) for name in ("held", "mapped", "decoded"))
    expected = learnt(held, SMALL, [0, 1])["weights"]
    monkeypatch.setattr("attar.data.decoded.IN_MEMORY", 0)
    assert torch.equal(learnt(mapped, SMALL, [0, 1])["weights"], expected)
    assert len(list((tmp_path / "mapped" / "pixels").iterdir())) == 2, "a file and its lock"
    monkeypatch.setattr("attar.data.decoded.has_room", lambda *_: False)
    assert torch.equal(learnt(decoded, SMALL, [0, 1])["weights"], expected)


def test_no_pass_of_the_prior_is_added(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls_of(world, tmp_path, "igd", FAST["igd"], monkeypatch) == 2 * len(CLASSES) * 2 * 5


def test_each_guide_changes_the_images(world: Path, tmp_path: Path, store: Store) -> None:
    """The first image of a class deviates from nothing."""

    def images(name: str, **guide: float) -> list[list[bytes]]:
        fields = {f"guide.{field}": value for field, value in guide.items()}
        method = load_method("igd", {**FAST["igd"], **fields})
        distill_sets(job_of(world, store), "igd", method, (2,), tmp_path / name)
        return [[file.read_bytes() for file in files] for files in open_distilled(tmp_path / name).files()]

    neither, deviation, influence, both = (
        images("neither", influence=0.0, deviation=0.0),
        images("deviation", influence=0.0),
        images("influence", deviation=0.0, influence=50.0),
        images("both", influence=50.0),
    )
    for label in range(len(CLASSES)):
        assert neither[label][0] == deviation[label][0]
        assert influence[label][0] == both[label][0] != neither[label][0]
        assert len({made[label][1] for made in (neither, deviation, influence, both)}) == 4


def test_what_influence_takes_is_estimated(world: Path, store: Store) -> None:
    job, method = job_of(world, store), load_method("igd", FAST["igd"])
    assert isinstance(method, IGD)
    assert method.start_seconds(job, 4) > 0
    assert replace(method, guide=Guidance(influence=0.0, first=3, last=2)).start_seconds(job, 4) == 0


def test_what_the_surrogate_cannot_be_taught(world: Path, store: Store) -> None:
    with pytest.raises(AttarError, match=r"^igd: its surrogate tells classes apart; give it two or more"):
        learnt(job_of(world, store, classes=("bee",)), SMALL, [0])
    with pytest.raises(AttarError, match=r"^fit.network convnet3-bn-w8: keeps statistics of batches"):
        learnt(job_of(world, store), replace(SMALL, network="convnet3-bn-w8"), [0, 1])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"guide.influence": -1.0}, "guide.influence -1.0: a number of 0 or more"),
        ({"guide.deviation": "inf"}, "guide.deviation inf: a number of 0 or more"),
        ({"guide.last": 46}, "guide.last 46: from 0 to the 45 of guide.first"),
        ({"guide.memory": 0}, "guide.memory 0: at least 1"),
        ({"sampler.steps": 30}, "guide.last 30: less than the 30 of sampler.steps, or nothing is guided"),
        ({"fit.kept": "6,1"}, "fit.kept 6,1: rising epochs, from 1 to the 50 of fit.epochs"),
        ({"fit.epochs": 40}, "fit.kept 1,6,17,41: rising epochs, from 1 to the 40 of fit.epochs"),
        ({"fit.lr": 0.0}, "fit.lr 0.0: a number above 0"),
        ({"fit.network": "convnot"}, "convnot"),
        ({"sampler.solver": "EulerDiscreteScheduler"}, "a guide moves the steps of"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError, match=said):
        load_method("igd", fields)


def test_the_training_of_the_surrogate_is_in_the_estimate(
    world: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attar.methods.igd.surrogate.timed_on", lambda call, device: 10.0)
    fit, said = replace(SMALL, per_class=8, epochs=6, kept=(1, 3)), list[str]()
    job = Job(job_of(world, store).spec, store, dry=True)
    assert fit.seconds(job, [9, 9]) == 10.0 * 3 * 2, "three epochs of sixteen images, eight in a batch"
    distill_sets(job, "igd", replace(IGD(), fit=fit), (1,), tmp_path / "out", say=said.append)
    assert any("the fit 60 s" in text for text in said), said
