"""DIVER: kept latents taken to noise and back, held to numbers worked out by hand; and `refine`, now of two kinds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_methods import FAST
from toys import GaussianPrior, linear_schedule, save_world

from attar.core.errors import AttarError
from attar.core.progress import silent
from attar.core.rng import noise
from attar.core.store import Store
from attar.diffusion import Sampler, grid
from attar.distillation.from_manifest import method_of
from attar.distillation.reproduce import MadeAgain, reproduce
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import METHODS, load_method
from attar.methods.base import LatentMethod
from attar.methods.diver import Diver
from attar.methods.refine import Refinement
from attar.sets.distilled import open_distilled

MEAN, STD, KEPT = 0.6, 0.5, 2.0
CLASSES = ["ant", "bee", "cat"]
QUICK = Diver(Sampler(steps=5), noised=3, first=3, last=2)
FEW = {"refine": "diver", "refine.sampler.steps": 5, "refine.noised": 3, "refine.first": 3, "refine.last": 2}


def gaussian() -> Any:
    """A prior whose answers are known, as a job's would be asked."""
    prior: Any = GaussianPrior(torch.tensor([MEAN, 0.0]), torch.tensor([STD, 1.0]))
    prior.device, prior.batch_size = torch.device("cpu"), 4
    return prior


def stub(value: float = 0.7) -> Any:
    """A job that draws the same number for all noise."""
    return SimpleNamespace(
        classes=["a"],
        progress=silent,
        conditions=lambda labels: torch.tensor(labels),
        noise=lambda shape, purpose, label, *parts: torch.full(shape, value),
    )


def by_hand(diver: Diver, drawn: float) -> float:
    """The same in numbers: what a Gaussian predicts is known, and so is each step of DDIM."""
    schedule, times = linear_schedule(), grid(diver.sampler.steps)
    begin = schedule.abar(times[diver.noised - 1])
    z = begin**0.5 * KEPT + (1 - begin) ** 0.5 * drawn
    for left in reversed(range(diver.sampler.steps)):
        at, to = (schedule.abar(t) for t in (times[left], times[left - 1] if left else -1))
        predicted = (1 - at) ** 0.5 * (z - at**0.5 * MEAN) / (at * STD**2 + 1 - at)
        clean = (z - (1 - at) ** 0.5 * predicted) / at**0.5
        sigma = ((1 - at / to) * (1 - to) / (1 - at)) ** 0.5
        pull = diver.scale * sigma * (z - KEPT) if diver.first >= left >= diver.last else 0.0
        z = to**0.5 * clean + (1 - to) ** 0.5 * predicted - pull
    return z


def recovered(diver: Diver, n: int = 1) -> torch.Tensor:
    return diver(stub(), gaussian(), 0, torch.full((n, 1, 1, 1), KEPT))


@pytest.mark.parametrize(
    "diver",
    [
        Diver(Sampler(guidance=1)),
        Diver(Sampler(guidance=1), scale=0.5),
        Diver(Sampler(guidance=1, steps=20), noised=20, first=12, last=3, scale=0.3),
    ],
)
def test_with_a_gaussian_prior_the_way_back_is_known(diver: Diver) -> None:
    found = recovered(diver, n=6).flatten().tolist()
    assert found == pytest.approx([by_hand(diver, 0.7)] * 6, rel=1e-4), "in batches of 4"


def test_the_pull_brings_latents_nearer_to_what_they_were() -> None:
    free, pulled, more = (float(recovered(Diver(scale=scale))) for scale in (0.0, 0.1, 0.5))
    assert abs(more - KEPT) < abs(pulled - KEPT) < abs(free - KEPT)


def test_it_costs_the_passes_of_a_sample_and_the_pull_none() -> None:
    for diver in (Diver(), Diver(scale=0.0)):
        prior = gaussian()
        diver(stub(), prior, 0, torch.zeros(4, 1, 1, 1))
        assert prior.calls == 100


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_world(tmp_path_factory.mktemp("world"), CLASSES)


def job_of(world: Path, store: Store, **spec: Any) -> Job:
    return Job(Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu", **spec), store)


def test_each_latent_goes_by_itself_whatever_else_is_asked_for(world: Path, store: Store, tmp_path: Path) -> None:
    job = job_of(world, store)
    z = noise((3, *job.codec.shape), "diver", "test")
    all_of_it = QUICK(job, job.prior, 2, z)
    assert torch.equal(QUICK(job, job.prior, 2, z[:1]), all_of_it[:1])
    same = QUICK(job, job.prior, 2, z[:1].expand(2, -1, -1, -1))
    assert not torch.equal(same[0], same[1]), "each has noise of its own"
    cat = job_of(world, Store(tmp_path / "other"), classes=("cat",))
    assert torch.equal(QUICK(cat, cat.prior, 0, z), all_of_it)
    assert not torch.equal(QUICK(job, job.prior, 1, z), all_of_it)
    seeded = job_of(world, store, seed=1)
    assert not torch.equal(QUICK(seeded, seeded.prior, 2, z), all_of_it)
    assert QUICK.seconds(job, 3) > 0


@pytest.mark.parametrize("name", [name for name in METHODS if isinstance(METHODS.open(name), LatentMethod)])
def test_every_method_of_latents_takes_it_by_name_or_by_a_field_of_it(name: str) -> None:
    refined_already = METHODS.open(name).refine is not None
    by_fields = FEW if refined_already else {field: value for field, value in FEW.items() if field != "refine"}
    for fields in (FEW, by_fields):
        method: Any = load_method(name, fields)
        assert method.refine == QUICK
    usual: Any = load_method(name, {"refine": "refinement"})
    assert usual.refine == Refinement()


def test_what_is_no_kind_is_refused() -> None:
    with pytest.raises(AttarError) as told:
        load_method("prior", {"refine": "divr"})
    kinds = "must be refinement, diver, likelihood, true, or a table of its fields, or none"
    assert str(told.value) == f"prior.refine = 'divr' (did you mean 'diver'?): {kinds}"
    with pytest.raises(AttarError, match=r"prior.refine has no field 'lr'; its fields: sampler, noised"):
        load_method("prior", {"refine": "diver", "refine.lr": 0.1})
    with pytest.raises(AttarError, match=r"prior.refine has no field 'noised'; its fields: steps, lr"):
        load_method("prior", {"refine.noised": 3, "refine.lr": 0.1})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"noised": 0}, "refine.noised 0: from 1 to the 50 of refine.sampler.steps"),
        ({"noised": 51}, "refine.noised 51: from 1 to the 50 of refine.sampler.steps"),
        ({"last": 41}, "refine.last 41: from 0 to the 40 of refine.first"),
        ({"last": -1}, "refine.last -1: from 0 to the 40"),
        ({"sampler.steps": 25}, "refine.last 25: less than the 25 of refine.sampler.steps, or none is pulled"),
        ({"scale": "nan"}, "refine.scale nan: a number of 0 or more"),
        ({"scale": -0.1}, "refine.scale -0.1: a number of 0 or more"),
        ({"sampler.spacing": "log-snr"}, "refine.sampler.spacing log-snr: its steps cannot be counted"),
        ({"sampler.solver": "checkpoint"}, "sampler.solver checkpoint: a guide moves the steps of ddim"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError, match=said):
        load_method("prior", {f"refine.{field}": value for field, value in fields.items()} | {"refine": "diver"})


def test_it_is_described_with_its_fields() -> None:
    from attar.methods import method_in_words

    words = method_in_words("prior")
    assert "refine=diver: Noises kept latents z0" in words
    assert "refine.noised = 25" in words
    assert words.index("refine.lr = ") < words.index("refine=diver") < words.index("refine.scale = 0.1")


def test_a_set_says_its_kind_and_is_read_back_with_it(world: Path, store: Store, tmp_path: Path) -> None:
    method = load_method("prior", {**FAST["prior"], **FEW})
    said: list[str] = []
    (folder,) = distill_sets(job_of(world, store), "prior", method, (2,), tmp_path / "diver", say=said.append)
    made = open_distilled(folder)
    assert made.manifest["method"]["refine"]["is"] == "Diver"
    assert method_of(made) == method
    assert method_of(made, {"refine.scale": 0.3}).refine == replace(QUICK, scale=0.3)
    assert any("6 images to refine" in line for line in said)
    again = reproduce(folder, tmp_path / "again", MadeAgain(device="cpu"), store=Store(tmp_path / "other"))
    assert again is not None
    assert again.differences == ()
    (plain,) = distill_sets(
        job_of(world, store), "prior", load_method("prior", FAST["prior"]), (2,), tmp_path / "plain"
    )
    assert set(open_distilled(plain).manifest["images"].values()).isdisjoint(made.manifest["images"].values())
