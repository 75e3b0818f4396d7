"""CaO2: which samples are kept, and how kept latents are moved, both held to numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_methods import FAST, TAUGHT
from torch import Tensor, nn
from toys import job_of, save_folder, save_tiny_dit

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.data import load_pixels
from attar.diffusion import Schedule
from attar.distillation.artefacts import artefacts
from attar.distillation.run import distill_sets
from attar.job import Job
from attar.methods import load_method
from attar.methods.cao2 import LargerPool
from attar.methods.likelihood import Likelihood
from attar.selection import Select
from attar.selection.features import teacher_for
from attar.teachers.features import doubts
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

CLASSES = ["ant", "bee"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    save_folder(root / "data", CLASSES, each=12)
    save_tiny_dit(root / "dit", CLASSES)
    new = TeacherTraining(str(root / "data"), "convnet3-bn-w16", epochs=8, batch=12, lr=0.1, device="cpu")
    train_teacher(new, root / "teacher", store=Store(root / "cache"), say=lambda _: None)
    return root


# Stage 1


class Answers(nn.Module):
    """Says of image n what is written in row n."""

    def __init__(self, shares: Tensor) -> None:
        super().__init__()
        self.shares = shares
        self.last = nn.Linear(1, shares.shape[1])

    def forward(self, images: Tensor) -> Tensor:
        return self.shares[: len(images)].log()


def test_those_that_are_right_come_first_the_surest_before_others(
    world: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(world, store)
    select = Select(rule="correct", teacher=str(world / "teacher"))
    assert select.reference is not None
    teacher = teacher_for(job, select.reference)
    shares = torch.tensor(
        [[0.45, 0.30, 0.25], [0.40, 0.45, 0.15], [0.9, 0.05, 0.05], [0.34, 0.33, 0.33], [0.1, 0.8, 0.1]]
    )
    rest = shares[:1].expand(64 - len(shares), -1)
    monkeypatch.setattr(teacher, "network", Answers(torch.cat([shares, rest])))
    monkeypatch.setattr(teacher, "logits", [0, 1])
    found = doubts(teacher, np.zeros((5, 16, 16, 3), np.uint8), 0)
    assert found.tolist() == pytest.approx([0.55, 1.55, 0.1, 0.66, 1.2])
    assert found.argsort().tolist() == [2, 0, 3, 4, 1], "0.34 is right, though 0.40 is more"


def test_the_rule_goes_by_that_on_real_images_and_on_samples(world: Path, store: Store) -> None:
    job, select = job_of(world, store), Select(rule="correct", teacher=str(world / "teacher"), pool=9)
    assert select.reference is not None
    teacher = teacher_for(job, select.reference)
    numbers = torch.from_numpy(job.images.of_class(1))
    expected = doubts(teacher, load_pixels(job.images, numbers.numpy(), teacher.side, job.spec.preprocess), 1)
    assert select(job, 1, numbers, 4).tolist() == expected.argsort(stable=True)[:4].tolist()
    z = torch.randn(9, *job.codec.shape, generator=torch.Generator().manual_seed(0))
    assert len(set(select(job, 1, z, 9).tolist())) == 9
    kinds = {
        artefact.inputs["of"] for artefact in (features.artefact(job, 1, z) for features in select.needed_features(job))
    }
    assert kinds == {"answers"}


def test_it_wants_a_teacher_and_no_share(world: Path, store: Store) -> None:
    with pytest.raises(AttarError, match=r"^`select.teacher` is missing, the classifier whose surest images are kept"):
        LargerPool(rule="correct").check(job_of(world, store), [2], generated=True)
    with pytest.raises(AttarError, match=r"^select.share 0.5: of no use to select.rule correct"):
        LargerPool(rule="correct", share=0.5)
    with pytest.raises(AttarError, match=r"^select.times 0: at least 1"):
        load_method("cao2", {"select.times": 0})
    once = LargerPool(rule="correct", times=1, teacher=str(world / "teacher"))
    with pytest.raises(AttarError, match=r"^`select.rule` correct: generate more than are kept"):
        once.check(job_of(world, store), [2], generated=True)


def test_twice_as_many_samples_are_made_as_are_kept(world: Path, store: Store) -> None:
    method: Any = load_method("cao2", {**FAST["cao2"], TAUGHT["cao2"]: str(world / "teacher")})
    job = job_of(world, store)
    for ipc in (1, 3):
        assert {made.inputs["count"] for made in artefacts(job, method, ipc).candidates.values()} == {2 * ipc}
    assert replace(method.select, pool=50).candidates(3) == 50
    assert replace(method.select, times=4).candidates(3) == 12


# Stage 2


class Scaled(nn.Module):
    """Predicts the noise k z_t, whatever time and label it is told; it notes them."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k, self.told = k, list[tuple[int, tuple[int, ...]]]()

    def forward(self, z: Tensor, times: Tensor, y: Tensor) -> Tensor:
        self.told.append((int(times[0]), tuple(y.tolist())))
        return torch.cat([self.k * z, torch.zeros_like(z)], 1)


def prior_of(job: Job, network: nn.Module, prediction: str = "epsilon") -> Any:
    schedule = Schedule(job.prior.schedule.alphas_cumprod, prediction)
    return replace(job.prior, network=network, schedule=schedule, batch_size=2)


def test_the_gradient_is_that_of_the_formula(world: Path, store: Store) -> None:
    job, draw, k, t = job_of(world, store), torch.Generator().manual_seed(0), 0.7, 200
    z, noise = torch.randn(2, 3, *job.codec.shape, generator=draw).unbind()
    found = Likelihood(largest=10.0)._gradient(prior_of(job, Scaled(k)), z, noise, t, torch.zeros(3, dtype=torch.long))
    abar = job.prior.schedule.abar(t)
    error = k * (abar**0.5 * z + (1 - abar) ** 0.5 * noise) - noise
    by_hand = 2 * error / error[0].numel()
    for row, own in enumerate(error):
        place = int(own.abs().argmax())
        by_hand[row].view(-1)[place] += 10 * own.flatten()[place].sign()
    torch.testing.assert_close(found, k * abar**0.5 * by_hand)


def test_a_velocity_is_taken_for_the_noise_that_it_means(world: Path, store: Store) -> None:
    job, draw, t = job_of(world, store), torch.Generator().manual_seed(0), 200
    z, noise = torch.randn(2, 1, *job.codec.shape, generator=draw).unbind()
    found = Likelihood(largest=0.0)._gradient(
        prior_of(job, Scaled(0.0), "v_prediction"), z, noise, t, torch.zeros(1).long()
    )
    abar = job.prior.schedule.abar(t)
    error = (1 - abar) ** 0.5 * (abar**0.5 * z + (1 - abar) ** 0.5 * noise) - noise
    torch.testing.assert_close(found, (1 - abar) ** 0.5 * abar**0.5 * 2 * error / error.numel())


@pytest.mark.parametrize(("told", "label"), [("class", 1), ("none", 2)])
def test_early_times_alone_are_met_and_the_prior_is_told_the_class_or_nothing(
    world: Path, store: Store, told: Any, label: int
) -> None:
    job, network = job_of(world, store), Scaled(0.5)
    refine = Likelihood(steps=60, told=told)
    refine(job, prior_of(job, network), 1, torch.zeros(3, *job.codec.shape))
    assert {t for t, _ in network.told} == set(refine.times) == {round(i * 999 / 49) for i in range(1, 12)}
    assert [t for t, _ in network.told[:60]] == [t for t, _ in network.told[60:]], "both parts meet the same"
    assert [len(y) for _, y in network.told] == [2] * 60 + [1] * 60
    assert {own for _, y in network.told for own in y} == {job.prior.null if told == "none" else label}


def test_noise_is_predicted_better_afterwards(world: Path, store: Store) -> None:
    job, refine = job_of(world, store), Likelihood(steps=40, lr=0.05, largest=0.0)
    z = torch.randn(2, *job.codec.shape, generator=torch.Generator().manual_seed(0))
    prior = prior_of(job, Scaled(0.7))

    def error(z: Tensor) -> float:
        noise = torch.stack([job.noise(job.codec.shape, "likelihood", 0, row) for row in range(2)])
        noisy = [(prior.schedule.noised(z, t, noise), t) for t in refine.times]
        return float(torch.stack([(0.7 * z_t - noise).square().mean() for z_t, _ in noisy]).mean())

    moved = refine(job, prior, 0, z)
    assert error(moved) < 0.95 * error(z)
    one = refine(job, prior, 0, z[:1])
    torch.testing.assert_close(one, moved[:1])
    assert not torch.equal(refine(job_of(world, store, seed=1), prior, 0, z), moved)
    assert refine.seconds(job, 3) > 0


def test_the_codes_values_are_the_usual_ones() -> None:
    method: Any = load_method("cao2", {TAUGHT["cao2"]: "teacher"})
    sampler, refine = method.sampler, method.refine
    assert (sampler.solver, sampler.steps, sampler.guidance, sampler.spacing) == ("ddpm", 50, 2.7, "linspace")
    assert (refine.steps, refine.lr, refine.largest, method.select.times) == (100, 6e-4, 10.0, 2)


def test_any_method_takes_the_second_stage(world: Path, store: Store, tmp_path: Path) -> None:
    fields = {**FAST["prior"], "refine": "likelihood", "refine.steps": 2, "refine.lr": 0.1}
    plain = distill_sets(job_of(world, store), "prior", load_method("prior", FAST["prior"]), (1,), tmp_path / "plain")[
        0
    ]
    moved = distill_sets(job_of(world, store), "prior", load_method("prior", fields), (1,), tmp_path / "moved")[0]
    name = next(plain.glob("images/*/*.png")).relative_to(plain)
    assert (plain / name).read_bytes() != (moved / name).read_bytes()


def test_float16_has_no_gradients(world: Path, store: Store, tmp_path: Path) -> None:
    job = Job(replace(job_of(world, store).spec, dtype="float16"), store)
    with pytest.raises(
        AttarError, match=r"^refine=likelihood: gradients vanish in `dtype` float16; choose bfloat16 or"
    ):
        distill_sets(job, "prior", load_method("prior", {"refine": "likelihood"}), (1,), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"refine.steps": 0}, "refine.steps 0: at least 1"),
        ({"refine.lr": 0}, "refine.lr 0.0: a number above 0"),
        ({"refine.largest": -1}, "refine.largest -1.0: a number of 0 or more"),
        ({"refine.first": 12}, "refine.first 12, refine.last 11: from 0 to 49, in this order"),
        ({"refine.last": 50}, "refine.first 1, refine.last 50: from 0 to 49, in this order"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError) as error:
        load_method("cao2", {TAUGHT["cao2"]: "teacher", **fields})
    assert str(error.value) == said
