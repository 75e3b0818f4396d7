"""Refinement in a formation: of the images that networks learn from, by latents or by the stored pixels themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_refine import gap_elsewhere
from toys import save_folder, save_tiny_dit

from attar.core.rng import noise, numpy_generator
from attar.core.store import Store
from attar.distillation.checks import planned
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import load_method
from attar.methods.refine import Refinement
from attar.priors.codec import to_uint8
from attar.sets.distilled import DistilledSet, open_distilled
from attar.sets.mosaics import enlarged, reduced, resampled

CLASSES = ["ant", "bee", "cat"]
NETWORKS = ("convnet3-w16", "convnet3-bn-w16")
QUICK = Refinement(steps=4, networks=NETWORKS, real=8)
FEW = {"refine.steps": 2, "refine.networks": "convnet3-w16", "refine.real": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    save_folder(root / "data", CLASSES, each=12)
    save_tiny_dit(root / "dit", CLASSES)
    return root


def job_of(world: Path, store: Store, **spec: Any) -> Job:
    return Job(Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu", **spec), store)


def made(
    world: Path, store: Store, out: Path, fields: dict[str, Any], name: str = "prior", **spec: Any
) -> DistilledSet:
    method = load_method(name, {"sampler.steps": 5, **fields})
    said: list[str] = []
    (folder,) = distill_sets(job_of(world, store, **spec), name, method, (1,), out, say=said.append)
    (out.parent / f"{out.name}.said").write_text("\n".join(said), encoding="utf-8")
    return open_distilled(folder)


def files_of(distilled: DistilledSet) -> list[np.ndarray]:
    return [np.asarray(Image.open(file)) for files in distilled.files() for file in files]


@pytest.mark.parametrize(("side", "to", "how"), [(16, 8, "lanczos"), (18, 6, "bicubic"), (6, 18, "bilinear")])
def test_resampling_with_gradients_is_that_of_sets(side: int, to: int, how: str) -> None:
    pixels = numpy_generator(side).choice(np.array([0, 40, 255], np.uint8), (5, side, side, 3))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    found = resampled(images, to, how).permute(0, 2, 3, 1).numpy()
    if to < side:
        wanted = [reduced(image, to, how) for image in pixels]
    else:
        wanted = [np.asarray(enlarged(Image.fromarray(image), (to, to))) for image in pixels]
    assert np.abs(found - np.stack(wanted)).max() < 2, "but for rounding, in either pass"
    grey = torch.full((1, 3, side, side), 100.0, requires_grad=True)
    resampled(grey, to, how).sum().backward()
    assert grey.grad is not None
    torch.testing.assert_close(grey.grad.sum(), torch.tensor(3.0 * to * to))


def test_networks_are_shown_what_the_set_will_give_them(world: Path, store: Store) -> None:
    job = job_of(world, store, formation=2)
    z = noise((3, *job.codec.shape), "refine", "test")
    small = [reduced(image, 8) for image in to_uint8(job.codec.decode(z))]
    seen = np.stack([np.asarray(enlarged(Image.fromarray(image), (16, 16))) for image in small])
    shown = QUICK._shown(job.spec, job.codec, z).permute(0, 2, 3, 1).numpy()
    assert np.abs(shown - seen).max() < 3
    whole = replace(QUICK, space="pixels")
    start = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2) / 127.5 - 1
    assert np.abs(whole._shown(job.spec, job.codec, start).permute(0, 2, 3, 1).numpy() - seen).max() < 2


@pytest.mark.parametrize("space", ["latents", "pixels"])
def test_it_brings_the_enlarged_parts_nearer(world: Path, store: Store, space: Any) -> None:
    job = job_of(world, store, formation=2)
    how = replace(QUICK, steps=60, lr=0.1, real=12, dsa=False, pull=0, depths=1, space=space)
    start = noise((4, *job.codec.shape), "refine", "test")
    if space == "pixels":
        start = noise((4, 3, 8, 8), "refine", "pixels").mul(0.3).clamp(-1, 1)
    moved, real = how(job, job.prior, 0, start), how._pool(job, 0)

    assert moved.shape == start.shape
    assert gap_elsewhere(job, how, real, moved) < 0.9 * gap_elsewhere(job, how, real, start)


def test_pixels_stay_in_range_and_are_pulled_to_their_start(world: Path, store: Store) -> None:
    job = job_of(world, store, formation=2)
    start = torch.where(noise((2, 3, 8, 8), "refine", "edge") > 0, 1.0, -1.0)
    how = replace(QUICK, space="pixels", steps=12, lr=0.1)
    free, pulled = (replace(how, pull=pull)(job, job.prior, 0, start) for pull in (0.0, 100.0))
    assert float(free.abs().max()) <= 1
    assert float((pulled - start).norm()) < 0.7 * float((free - start).norm())


def test_a_formation_enters_keys_where_images_are_looked_at_and_nowhere_else(
    world: Path, store: Store, tmp_path: Path
) -> None:
    def inputs(fields: dict[str, Any], **spec: Any) -> tuple[str, dict[str, Any]]:
        job, method = job_of(world, store, **spec), load_method("prior", {"sampler.steps": 5, **fields})
        plan = planned(job, "prior", method, (4 if spec.get("formation", 1) == 1 else 1,), tmp_path / "x", print, None)
        (artefacts,) = plan.artefacts.values()
        return artefacts.refined[0].key, artefacts.refined[0].recorded

    plain_key, plain = inputs(FEW)
    assert "formation" not in plain
    assert "space" not in plain["refine"], "keys of older sets stay as they are"
    keys = {plain_key}
    for fields, spec in (
        (FEW, {"formation": 2}),
        (FEW, {"formation": 2, "output_size": 8}),
        (FEW, {"formation": 2, "output_filter": "bicubic"}),
        (FEW | {"refine.space": "pixels"}, {}),
        (FEW | {"refine.space": "pixels"}, {"output_size": 8}),
        (FEW | {"refine.space": "pixels"}, {"formation": 2}),
    ):
        keys.add(inputs(fields, **spec)[0])
    assert len(keys) == 7
    diver = {"refine": "diver", "refine.sampler.steps": 3, "refine.noised": 2, "refine.first": 2, "refine.last": 1}
    assert inputs(diver)[0] == inputs(diver, formation=2)[0], "it looks at no images"


def test_refined_pixels_begin_as_the_parts_that_would_be_stored(world: Path, store: Store, tmp_path: Path) -> None:
    plain = made(world, store, tmp_path / "plain", {}, formation=2)
    still = {**FEW, "refine.space": "pixels", "refine.lr": 1e-6}
    same = made(world, store, tmp_path / "same", still, formation=2)
    assert all(np.array_equal(one, other) for one, other in zip(files_of(plain), files_of(same), strict=True))
    moved = made(world, store, tmp_path / "moved", {**still, "refine.lr": 0.2}, formation=2)
    assert not any(np.array_equal(one, other) for one, other in zip(files_of(plain), files_of(moved), strict=True))
    assert moved.manifest["method"]["refine"]["space"] == "pixels"
    assert moved.manifest["seconds"].keys() == {"candidates", "refined", "images"}


def test_refined_pixels_have_the_output_size_without_a_formation(world: Path, store: Store, tmp_path: Path) -> None:
    fields = {**FEW, "refine.space": "pixels"}
    small = made(world, store, tmp_path / "small", fields, output_size=12)
    assert {image.shape for image in files_of(small)} == {(12, 12, 3)}


def test_refined_pixels_are_found_again_and_forecast(world: Path, store: Store, tmp_path: Path) -> None:
    fields = {**FEW, "refine.space": "pixels"}
    one = made(world, store, tmp_path / "one", fields, formation=2)
    said = (tmp_path / "one.said").read_text(encoding="utf-8")
    assert "12 images to refine" in said
    assert "refinement" in said
    assert "decoding" not in said, "it is a part of refinement here"
    two = made(world, store, tmp_path / "two", fields, formation=2)
    assert "all images are made" in (tmp_path / "two.said").read_text(encoding="utf-8")
    assert one.manifest["images"] == two.manifest["images"]


def test_exemplars_name_the_same_real_images_when_their_pixels_are_refined(
    world: Path, store: Store, tmp_path: Path
) -> None:
    few = {"sampler.steps": 10, "fit.steps": 10, "fit.time": 600}
    plain = made(world, store, tmp_path / "plain", few, "exemplars", formation=2)
    pixels = {**few, **FEW, "refine.space": "pixels"}
    moved = made(world, store, tmp_path / "moved", pixels, "exemplars", formation=2)
    assert moved.manifest["real_images"] == plain.manifest["real_images"]
    assert set(moved.manifest["images"].values()).isdisjoint(plain.manifest["images"].values())
