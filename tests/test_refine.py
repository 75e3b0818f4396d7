"""Refinement: gradients through the decoder, the gap that is lowered, and the switch that every method has."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toys import save_folder, save_tiny_dit

from attar.core.config import changed
from attar.core.errors import AttarError
from attar.core.rng import noise
from attar.core.store import Store
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import load_method
from attar.methods.refine import Refinement
from attar.methods.refine_gap import Aim, aims_of, gap
from attar.networks import build
from attar.networks.depths import features_of
from attar.sets.distilled import open_distilled

CLASSES = ["ant", "bee", "cat"]
NETWORKS = ("convnet3-w16", "convnet3-bn-w16")
QUICK = Refinement(steps=4, networks=NETWORKS, real=8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    save_folder(root / "data", CLASSES, each=12)
    save_tiny_dit(root / "dit", CLASSES)
    return root


def job_of(world: Path, store: Store, **spec: Any) -> Job:
    return Job(Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu", **spec), store)


def refined(job: Job, how: Refinement, z: torch.Tensor, label: int = 0) -> torch.Tensor:
    return how(job, job.prior, label, z)


def latents(job: Job, n: int) -> torch.Tensor:
    return noise((n, *job.codec.shape), "refine", "test")


def test_decoding_with_gradients_gives_the_same_images_and_the_gradient_of_the_autoencoder(
    world: Path, store: Store
) -> None:
    job = job_of(world, store)
    codec, z = job.codec.with_batch_size(4), latents(job, 6)
    asked = z.clone().requires_grad_()
    images = codec.decode(asked)
    assert torch.equal(images.detach(), codec.decode(z))
    weights = noise(tuple(images.shape), "weights")
    (images * weights).sum().backward()
    plain = z.clone().requires_grad_()
    vae: Any = codec.vae  # type: ignore[attr-defined]
    (vae.decode(plain / codec.scale).sample.clamp(-1, 1) * weights).sum().backward()  # type: ignore[attr-defined]
    torch.testing.assert_close(asked.grad, plain.grad, rtol=1e-4, atol=1e-5)


def test_the_gap_is_that_of_the_means_in_units_of_the_spread_at_every_depth() -> None:
    aims = [Aim(torch.tensor([1.0, 2.0]), torch.tensor(5.0)), Aim(torch.tensor([0.0]), torch.tensor(2.0))]
    assert float(gap(aims, [torch.tensor([1.0, 5.0]), torch.tensor([1.0])])) == pytest.approx((9 / 5 + 1 / 2) / 2)


def test_the_gap_to_equal_real_images_is_finite() -> None:
    same = [Aim(torch.zeros(2), torch.tensor(0.0))]
    assert torch.isfinite(gap(same, [torch.ones(2)]))


@pytest.mark.parametrize(("name", "deepest"), [("convnet3-w16", 16 * 4), ("resnet18-idc", 32 << 3)])
def test_features_are_what_the_last_layer_sees_then_the_deepest_maps(name: str, deepest: int) -> None:
    network = build(name, 2, 16, 0).eval()
    views = noise((3, 3, 16, 16), "views")
    last, *maps = features_of(network, 3)(views)
    layer: Any = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)][-1]
    torch.testing.assert_close(layer(last), network(views))
    assert last.shape == (3, deepest)
    assert len(maps) == 2
    assert maps[0].shape[1] <= maps[1].shape[1]


def test_a_transformer_gives_its_blocks_and_a_vgg_its_maps() -> None:
    views = noise((3, 3, 32, 32), "views")
    network: Any = build("vit6-w32", 2, 32, 0).eval()
    last, deep, shallow = features_of(network, 3)(views)
    torch.testing.assert_close(network.head(last), network(views))
    tokens = network.norm_pre(network.pos_drop(network._pos_embed(network.patch_embed(views))))
    after = [tokens := block(tokens) for block in network.blocks]
    for found, number in ((deep, 4), (shallow, 2)):
        wanted = after[number - 1].transpose(1, 2).reshape(3, 32, 8, 8)
        torch.testing.assert_close(found, F.adaptive_avg_pool2d(wanted, 4).flatten(1))
    assert [features.shape[1] for features in features_of(build("vgg11-bn-w8", 2, 32, 0).eval(), 3)(views)] == [
        64,
        64 * 2 * 2,
        64 * 4 * 4,
    ]


def test_tokens_of_a_class_are_no_place_of_a_map() -> None:
    network: Any = build("timm/vit_tiny_patch16_224", 2, 32, 0).eval()
    views = noise((2, 3, 32, 32), "views")
    (_, map) = features_of(network, 2)(views)
    seen: list[torch.Tensor] = []
    network.blocks[5].register_forward_hook(lambda *given: seen.append(given[2]))
    network(views)
    torch.testing.assert_close(map, seen[0][:, 1:].transpose(1, 2).flatten(1))


def gap_elsewhere(job: Job, how: Refinement, real: torch.Tensor, moved: torch.Tensor) -> float:
    """The mean gap between what is moved and real images, in networks that refinement did not meet."""
    found = []
    for seed in range(4):
        network = build("convnet4-w16", 2, 16, seed)
        features = features_of(network, 1)

        def see(images: torch.Tensor, features: Any = features) -> list[torch.Tensor]:
            return features(images.permute(0, 3, 1, 2).float() / 127.5 - 1)

        aims = aims_of(network, see, real)
        with torch.no_grad():
            found.append(float(gap(aims, how._means(partial(how._shown, job.spec, job.codec), see, moved))))
    return float(np.mean(found))


def test_it_brings_features_nearer_in_networks_that_it_did_not_meet(world: Path, store: Store) -> None:
    job = job_of(world, store)
    how = Refinement(steps=60, lr=0.1, networks=NETWORKS, real=12, dsa=False, pull=0, depths=1)
    z = latents(job, 4)
    moved = refined(job, how, z)
    real = how._pool(job, 0)

    assert gap_elsewhere(job, how, real, moved) < 0.8 * gap_elsewhere(job, how, real, z)


def test_the_pull_keeps_latents_near_their_start(world: Path, store: Store) -> None:
    job = job_of(world, store)
    z = latents(job, 2)
    free, pulled = (refined(job, replace(QUICK, steps=12, pull=pull), z) - z for pull in (0.0, 100.0))
    assert float(pulled.norm()) < 0.7 * float(free.norm())


def test_it_is_deterministic_and_each_class_is_on_its_own(world: Path, store: Store, tmp_path: Path) -> None:
    job = job_of(world, store)
    z = latents(job, 3)
    one = refined(job, QUICK, z, label=2)
    assert torch.equal(refined(job_of(world, Store(tmp_path / "other")), QUICK, z, label=2), one)
    assert torch.equal(refined(job_of(world, store, classes=("cat",)), QUICK, z, label=0), one)
    assert not torch.equal(refined(job_of(world, store, seed=1), QUICK, z, label=2), one)
    assert not torch.equal(refined(job, QUICK, z, label=1), one)


def test_parts_bound_the_memory_and_change_nothing_but_the_last_bits(world: Path, store: Store) -> None:
    job = job_of(world, store)
    z = latents(job, 5)
    whole, parts = (refined(job, replace(QUICK, steps=2, part=part), z) for part in (16, 2))
    torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-3)


def test_steps_go_by_the_number_of_images(world: Path, store: Store) -> None:
    job = job_of(world, store)
    table = replace(QUICK, steps="1:2, 4")
    for n, steps in ((1, 2), (2, 4)):
        assert torch.equal(
            refined(job, table, latents(job, n)), refined(job, replace(QUICK, steps=steps), latents(job, n))
        )


def test_depths_and_colours_enter(world: Path, store: Store) -> None:
    job = job_of(world, store)
    z = latents(job, 2)
    found = [refined(job, replace(QUICK, **change), z) for change in ({}, {"depths": 2}, {"dsa": False})]
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("name", ["prior", "d4m", "d3hr", "minimax", "exemplars"])
def test_a_field_switches_it_on_for_every_method(name: str) -> None:
    assert load_method(name).refine is None
    method: Any = load_method(name, {"refine.steps": "7", "refine.networks": "convnet3-w16,airbench"})
    assert method.refine == Refinement(steps=7, networks=("convnet3-w16", "airbench"))
    assert changed(method, {"refine": "none"}, name).refine is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "refine: steps = 0: give whole numbers of 1 or more"),
        ({"steps": "9:2, 1.5"}, "refine: steps = '9:2, 1.5': give whole numbers"),
        ({"lr": 0.0}, "refine: lr"),
        ({"pull": -1.0}, "refine: pull"),
        ({"networks": ("convnet9",)}, "convnet9"),
    ],
)
def test_wrong_fields_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError, match=said):
        Refinement(**changes)


@pytest.mark.parametrize(("name", "has"), [("vit2-w32", 2), ("convnet3-w16", 4)])
def test_a_network_of_fewer_depths_is_found_before_any_work(world: Path, store: Store, name: str, has: int) -> None:
    job = job_of(world, store, output_size=64, formation=2)
    how = Refinement(networks=(name,), depths=has + 1)
    with pytest.raises(AttarError, match=rf"refine.depths {has + 1}: {name} has {has} at 64 pixels"):
        how.check(job)
    replace(how, depths=has).check(job)


def test_a_transformer_can_be_in_the_mix(world: Path, store: Store) -> None:
    job, how = job_of(world, store), replace(QUICK, networks=("convnet3-w16", "vit3-w32"))
    z = latents(job, 2)
    how.check(job)
    assert not torch.equal(refined(job, how, z), refined(job, replace(how, networks=("convnet3-w16",)), z))


def test_networks_that_cannot_take_the_images_are_found_before_any_work(world: Path, store: Store) -> None:
    with pytest.raises(AttarError, match="convnet6 halves the image 6 times"):
        Refinement(networks=("convnet6",)).check(job_of(world, store))


def test_the_default_mix_goes_with_the_size() -> None:
    assert Refinement().mix(32) == ("convnet3-w64", "convnet3-bn-w64", "resnet10-w16")
    assert Refinement().mix(256) == ("convnet6-w64", "convnet6-bn-w64", "resnet10-w16")
    assert Refinement().mix(8)[0] == "convnet3-w64"


def test_a_refined_set_says_so_resumes_and_follows_its_data(world: Path, store: Store, tmp_path: Path) -> None:
    fields = {"sampler.steps": 5, "refine.steps": 2, "refine.networks": "convnet3-w16", "refine.real": 4}
    method = load_method("prior", fields)
    said: list[str] = []
    spec = Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu")
    (folder,) = distill_sets(Job(spec, store), "prior", method, (2,), tmp_path / "one", say=said.append)
    manifest = open_distilled(folder).manifest
    assert manifest["method"]["refine"]["networks"] == ["convnet3-w16"]
    assert manifest["seconds"].keys() == {"candidates", "refined", "images"}
    assert any("6 images to refine" in line for line in said)
    distill_sets(Job(spec, store), "prior", method, (2,), tmp_path / "two", say=said.append)
    assert not any("to refine" in line for line in said[-3:])
    plain = distill_sets(Job(spec, store), "prior", load_method("prior", {"sampler.steps": 5}), (2,), tmp_path / "p")
    assert set(open_distilled(plain[0]).manifest["images"].values()).isdisjoint(manifest["images"].values())
    other = save_folder(tmp_path / "data", CLASSES, each=12, seed=1)
    elsewhere = replace(spec, data=str(other))
    (third,) = distill_sets(Job(elsewhere, store), "prior", method, (2,), tmp_path / "three")
    assert set(open_distilled(third).manifest["images"].values()).isdisjoint(manifest["images"].values())
