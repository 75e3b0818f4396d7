"""DMGD: its diffused labels, held to numbers worked out by hand, and what each of its two parts does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_ot import CLASSES, NEAR, calls_of, drawn
from toys import job_of, learnt, save_tiny_dit, save_tiny_sd, save_world

from attar.core.errors import AttarError
from attar.core.rng import noise
from attar.core.store import Store
from attar.distillation.run import distill_sets
from attar.job import Job
from attar.methods import load_method
from attar.methods.dmgd import DMGD, DiffusedLabel, like
from attar.methods.transport import ByTransport, cloud
from attar.priors import load_prior
from attar.priors.prompts import Prompts
from attar.sets.distilled import open_distilled


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_world(tmp_path_factory.mktemp("world"), CLASSES)


def test_points_weigh_as_their_clusters_do(world: Path, store: Store) -> None:
    job = job_of(world, store)
    fitted = learnt(job, DMGD().fit, [0])
    seen = cloud(fitted, weighted=True)
    assert seen.shape == (9, 4 * 8 * 8 + 1), "nine images make nine points"
    torch.testing.assert_close(seen[:, -1], fitted["sizes"] / 9)
    assert cloud(fitted, weighted=False)[:, -1].tolist() == pytest.approx([1 / 9] * 9)
    without = {**fitted, "sizes": fitted["sizes"] * torch.arange(9).ne(2)}
    assert len(cloud(without, weighted=True)) == 8, "a centroid without latents is no point"


def bytes_of(job: Job, method: Any, out: Path) -> list[bytes]:
    distill_sets(job, "made", method, (3,), out)
    return [file.read_bytes() for files in open_distilled(out).files() for file in files]


def test_the_first_image_of_a_class_depends_on_no_other_and_each_part_changes_the_images(
    world: Path, tmp_path: Path, store: Store
) -> None:
    dmgd: Any = load_method("dmgd", {**NEAR, "guide.scale": 50.0, "guide.cost": "l1"})
    kinds = {
        "both": dmgd,
        "transport": replace(dmgd, told=None),
        "label": replace(dmgd, guide=ByTransport(first=4, last=1, scale=0.0)),
        "neither": replace(dmgd, told=None, guide=ByTransport(first=4, last=1, scale=0.0)),
    }
    made = {name: bytes_of(job_of(world, store), method, tmp_path / name) for name, method in kinds.items()}
    assert len({image for images in made.values() for image in images}) == 4 * 6
    alone = bytes_of(job_of(world, Store(tmp_path / "other"), classes=("bee",)), dmgd, tmp_path / "alone")
    assert alone == made["both"][3:]


def test_a_diffused_label_is_noise_then_a_mixture_then_the_label() -> None:
    how, (own, other, n) = DiffusedLabel(), (drawn(2, 64, of=name) for name in ("own", "other", "noise"))
    torch.testing.assert_close(how.mixed(950, own, other, n), like(n, own))
    torch.testing.assert_close(how.mixed(900, own, other, n), like(0.06 * n + 0.01 * other, own))
    half = 0.5**0.5
    torch.testing.assert_close(how.mixed(700, own, other, n), like(half * own + half * (0.06 * n + 0.01 * other), own))
    torch.testing.assert_close(how.mixed(500, own, other, n), own)
    brought = like(3 + 5 * n, own)
    torch.testing.assert_close(brought.mean(1), own.mean(1))
    torch.testing.assert_close(brought.std(1), own.std(1))


@pytest.mark.parametrize("kind", ["dit", "sd"])
def test_a_prior_takes_the_embedding_of_a_label_for_the_label(tmp_path: Path, store: Store, kind: str) -> None:
    where = save_tiny_dit(tmp_path / "dit", CLASSES) if kind == "dit" else save_tiny_sd(tmp_path / "sd")
    prompts = Prompts(("ant", "bee"), ("an ant", "a bee")) if kind == "sd" else None
    prior = load_prior(str(where), device="cpu", dtype="float32", store=store, prompts=prompts)
    z, y = noise((2, *prior.codec.shape), "z"), torch.tensor([0, 1])
    told = prior.embedded(y)
    with torch.inference_mode():
        assert torch.equal(prior(z, 500, told), prior(z, 500, y))
        for mixed, plain in zip(prior.both(z, 500, told), prior.both(z, 500, y), strict=True):
            assert torch.equal(mixed, plain)
        assert not torch.equal(prior(z, 500, told.flip(0)), prior(z, 500, y))
        assert torch.equal(prior(z, 500, y), prior(z, 500, told)), "labels are taken again afterwards"


def test_blocks_with_labels_of_their_own_are_refused(tmp_path: Path, store: Store) -> None:
    prior = load_prior(str(save_tiny_dit(tmp_path / "dit", CLASSES, tied=False)), device="cpu", store=store)
    with pytest.raises(AttarError, match="the label tables of the prior's blocks differ"):
        prior.embedded(torch.tensor([0]))


def test_the_other_label_is_never_the_own_and_is_drawn_for_each_image(world: Path, store: Store) -> None:
    job = job_of(world, store)
    rows = [(label, index) for label in (0, 1) for index in range(20)]
    y = job.conditions([label for label, _ in rows])
    told = DiffusedLabel()(job, job.prior, rows)
    assert (told._others(y) != y).all()
    assert torch.equal(told.told(499, y), y)
    first, again, later = told.told(950, y), told.told(950, y), told.told(930, y)  # noise alone
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    some = DiffusedLabel()(job, job.prior, rows[5:7])
    assert torch.equal(some.told(950, y[5:7]), first[5:7]), "a row depends on no other"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"told.lower": 900}, "told.lower 900: from 0 to less than the 900 of told.upper, at most 999"),
        ({"told.noise": 0.0}, "told.noise 0.0: a number above 0"),
        ({"told.other": -1.0}, "told.other -1.0: a number of 0 or more"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError, match=said):
        load_method("dmgd", fields)


def test_no_network_pass_is_added(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls_of(world, tmp_path, "dmgd", NEAR, monkeypatch) == 2 * len(CLASSES) * 12
