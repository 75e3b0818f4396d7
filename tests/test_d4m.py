"""D4M: prototypes held to scikit-learn as its code calls it, and what is made of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import attar, learnt, recorded, save_folder, save_tiny_dit, save_tiny_sd, size_of

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.data.pixels import Pixels
from attar.diffusion import start_time
from attar.distillation.artefacts import artefacts
from attar.distillation.manifest import prototypes
from attar.distillation.pipeline import fit
from attar.job import Job, Spec
from attar.methods import load_method
from attar.methods.d4m import Prototypes
from attar.methods.kmeans import LatentRows, count_nearest, lloyd, row_batches, rows_at, streamed
from attar.sets.distilled import PROTOTYPES, open_distilled, verify, write_distilled

CLASSES = ["ant", "bee", "cat", "dog"]
EACH = 12


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    save_folder(root / "data", CLASSES, each=EACH)
    save_tiny_dit(root / "dit", CLASSES)
    save_tiny_sd(root / "sd")
    return root


def job_of(world: Path, store: Store, **spec: Any) -> Job:
    return Job(Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu", **spec), store)


def blobs(count: int = 53, seed: int = 0) -> LatentRows:
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(count, 6)) + 8 * draw.integers(0, 3, (count, 1))).astype(np.float32)


def pictured(job: Job, method: Any, ipc: int) -> Iterator[tuple[int, int, Pixels]]:
    own = method.for_ipc(ipc)
    return prototypes(job, own, fit(job, own, artefacts(job, own, ipc)))


@pytest.mark.golden
@pytest.mark.parametrize("shard", [7, 20, 512])
def test_prototypes_are_those_of_the_reference_however_the_latents_come(shard: int) -> None:
    arrays, _, sizes = recorded("d4m_prototypes")
    latents = arrays["latents"].flatten(1).numpy()
    count, batch = int(sizes["ipc"]), int(sizes["ipc"]) * int(sizes["km_expand"])
    parts = (latents[begin : begin + shard] for begin in range(0, len(latents), shard))
    found = streamed(parts, count, batch, int(sizes["random_state"]))
    np.testing.assert_allclose(found, arrays["prototypes"].flatten(1).numpy(), rtol=1e-4, atol=1e-5)


def test_batches_hold_every_row_once_and_in_order() -> None:
    rows = blobs(23)
    made = list(row_batches([rows[:3], rows[3:3], rows[3:20], rows[20:]], 5))
    assert [len(batch) for batch in made] == [5, 5, 5, 5, 3]
    np.testing.assert_array_equal(np.concatenate(made), rows)


def test_the_remainder_of_a_class_is_fitted_even_where_it_is_smaller_than_the_number_of_prototypes() -> None:
    from sklearn.cluster import MiniBatchKMeans

    rows = blobs(53)
    second = MiniBatchKMeans(n_clusters=5, random_state=0, batch_size=25, n_init="auto")
    for begin in (0, 25, 50):
        second.partial_fit(rows[begin : begin + 25])
    found = streamed([rows], 5, 25, 0)
    np.testing.assert_allclose(found, second.cluster_centers_, rtol=1e-5)
    assert not np.allclose(found, streamed([rows[:50]], 5, 25, 0))


def test_no_more_than_a_part_and_a_batch_is_held_at_a_time() -> None:
    alive: list[Any] = []

    def parts() -> Iterator[LatentRows]:
        import weakref

        for seed in range(40):
            part = blobs(16, seed)
            alive.append(weakref.ref(part))
            assert sum(ref() is not None for ref in alive) <= 3
            yield part

    streamed(parts(), 4, 8, 0)
    assert len(alive) == 40


def test_inertia_is_that_of_scikit_learn_and_full_k_means_has_the_lower_one() -> None:
    from sklearn.cluster import KMeans

    rows = blobs(200)
    full = lloyd(rows, 5, 0)
    sizes, inertia = count_nearest([rows[:90], rows[90:]], full)
    second = KMeans(5, random_state=0, n_init="auto").fit(rows)
    assert inertia == pytest.approx(second.inertia_, rel=1e-4)
    assert sizes.tolist() == np.bincount(second.labels_, minlength=5).tolist()
    assert inertia < count_nearest([rows], streamed([rows], 5, 5, 0))[1]


def test_prototypes_of_a_class_are_learnt_from_all_of_its_cached_latents(world: Path, store: Store) -> None:
    job = job_of(world, store)
    found = learnt(job, Prototypes(count=3, expand=2), [1])
    latents = torch.cat([shard.sampled(0, "bee") for shard in job.latents.shards(1)]).flatten(1).numpy()
    np.testing.assert_array_equal(found["prototypes"].flatten(1), streamed([latents], 3, 6, 0))
    assert found["prototypes"].shape == (3, 4, 8, 8)
    assert found["sizes"].sum() == EACH
    gaps = torch.cdist(torch.from_numpy(latents), found["prototypes"].flatten(1)).square().min(1).values
    assert float(found["inertia"]) == pytest.approx(float(gaps.sum()), rel=1e-4)


def test_prototypes_do_not_depend_on_the_other_classes_or_on_threads(world: Path, tmp_path: Path) -> None:
    fit = Prototypes(count=3)
    whole = learnt(job_of(world, Store(tmp_path / "a")), fit, [3])
    some = learnt(job_of(world, Store(tmp_path / "b"), classes=("dog",)), fit, [0])
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        threaded = learnt(job_of(world, Store(tmp_path / "c")), fit, [3])
    finally:
        torch.set_num_threads(threads)
    for other in (some, threaded):
        assert all(torch.equal(value, other[name]) for name, value in whole.items())


def test_neither_a_network_nor_a_text_encoder_is_loaded_for_prototypes(
    world: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import attar.priors

    job = Job(Spec(data=str(world / "data"), prior=str(world / "sd"), device="cpu"), store)
    monkeypatch.setattr(attar.priors, "load_prior", lambda *given, **named: pytest.fail("the prior was loaded"))
    assert learnt(job, Prototypes(count=2), [0])["prototypes"].shape == (2, 4, 8, 8)


def test_real_latents_may_stand_for_prototypes_and_posterior_means_for_samples(world: Path, store: Store) -> None:
    job = job_of(world, store)
    found = learnt(job, Prototypes(count=3, algorithm="random", posterior="mean"), [0])["prototypes"]
    means = next(job.latents.shards(0)).mean.float()
    matches = (found[:, None] == means).flatten(2).all(2)
    assert matches.any(1).all()
    assert matches.any(0).sum() == 3
    sampled = learnt(job, Prototypes(count=3, algorithm="random"), [0])["prototypes"]
    assert not torch.equal(found, sampled)


def test_the_seed_draws_the_real_images_and_fewer_are_among_more(world: Path, store: Store) -> None:
    job = job_of(world, store)

    def drawn(**given: Any) -> set[bytes]:
        found = learnt(job, Prototypes(algorithm="random", posterior="mean", **given), [1])["prototypes"]
        return {row.numpy().tobytes() for row in found}

    first, other = drawn(count=4), drawn(count=4, seed=1)
    assert len(first) == len(other) == 4
    assert first != other
    assert drawn(count=2) < first < drawn(count=7)


def test_real_latents_are_taken_from_wherever_they_stand() -> None:
    rows = blobs(23)
    found = rows_at([rows[:3], rows[3:3], rows[3:20], rows[20:]], [21, 2, 3])
    np.testing.assert_array_equal(found, rows[[2, 3, 21]])
    assert found.base is None


def test_there_are_as_many_prototypes_as_images_or_as_many_as_are_asked_for(world: Path, store: Store) -> None:
    job = job_of(world, store)
    assert Prototypes().for_ipc(7) == Prototypes(count=7)
    assert Prototypes(count=2).for_ipc(7) == Prototypes(count=2)
    found = learnt(job, Prototypes(count=50), [0])
    assert len(found["prototypes"]) == EACH, "a class has no more prototypes than images"
    assert float(found["inertia"]) == pytest.approx(0, abs=1e-3)


def test_starts_are_prototypes_noised_to_the_time_of_the_strength(world: Path, store: Store) -> None:
    job = job_of(world, store)
    method: Any = load_method("d4m")
    prototypes = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    start = method.start(job, {"prototypes": prototypes}, 2, 5)
    assert start.t == start_time(method.sampler, job.prior, 0.7) == 680, "35 of the 50 steps 0, 20 ... 980 are left"
    abar = job.prior.schedule.alphas_cumprod[start.t]
    noise = (start.z - abar.sqrt() * prototypes[[0, 1, 0, 1, 0]]) / (1 - abar).sqrt()
    torch.testing.assert_close(noise[3], job.noise((4, 8, 8), "start", 2, 3), rtol=1e-4, atol=1e-5)
    assert len({tuple(row.flatten().tolist()) for row in start.z}) == 5, "repeated prototypes get fresh noise"
    assert start.z.abs().max() < 10


def test_a_set_of_several_ipcs_has_prototypes_for_each(world: Path, tmp_path: Path, store: Store) -> None:
    from attar.distillation.run import distill_sets

    spec = job_of(world, store).spec
    method = load_method("d4m", {"sampler.steps": 5})
    together = distill_sets(Job(spec, store), "d4m", method, (2, 3), tmp_path / "many")
    (alone,) = distill_sets(Job(spec, Store(tmp_path / "other")), "d4m", method, (3,), tmp_path / "one")
    assert open_distilled(alone).manifest["images"] == open_distilled(together[1]).manifest["images"]
    kept = [json.loads(file.read_text())["inputs"]["fit"]["count"] for file in store.root.glob("fit/*/meta.json")]
    assert sorted(kept) == [2] * 4 + [3] * 4
    assert open_distilled(together[0]).manifest["method"]["fit"]["count"] is None


def test_a_fixed_number_of_prototypes_is_learnt_once_and_repeated(world: Path, tmp_path: Path, store: Store) -> None:
    from attar.distillation.run import distill_sets

    method = load_method("d4m", {"sampler.steps": 5, "fit.count": 2})
    folders = distill_sets(Job(job_of(world, store).spec, store), "d4m", method, (2, 4), tmp_path / "out")
    assert len(list(store.root.glob("fit/*/meta.json"))) == 4
    images = [open_distilled(folder).manifest["images"] for folder in folders]
    assert images[0].items() <= images[1].items()
    assert len(set(images[1].values())) == 16


def test_the_set_keeps_its_prototypes_as_pictures_and_their_inertia(world: Path, tmp_path: Path, store: Store) -> None:
    from PIL import Image

    from attar.distillation.run import distill_sets
    from attar.report import write_report

    job, method = job_of(world, store), load_method("d4m", {"sampler.steps": 5})
    (folder,) = distill_sets(Job(job.spec, store), "d4m", method, (3,), tmp_path / "out")
    one = open_distilled(folder)
    assert [len(files) for files in one.prototypes()] == [3] * 4
    made = {(label, index): pixels for label, index, pixels in pictured(job, method, 3)}
    shown = np.asarray(Image.open(one.prototypes()[2][1]))
    np.testing.assert_array_equal(shown, made[2, 1])
    inertia = sum(float(learnt(job, Prototypes(count=3), [label])["inertia"]) for label in job.labels)
    assert one.manifest["learnt"] == {"inertia": pytest.approx(inertia)}
    assert verify(folder) == []
    write_report([folder], [], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count(", prototypes, class ") == 4
    assert page.count('<details class="prototypes"') == 1
    one.prototypes()[0][0].unlink()
    one.prototypes()[0][1].write_bytes(b"")
    assert [problem.split(":")[0] for problem in verify(folder)] == ["missing", "altered"]


def test_pictures_of_prototypes_are_no_images_to_other_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    manifest: dict[str, Any] = {"method": {"name": "d4m"}, "ipc": 1, "seed": 0, "data": {"spec": "x"}, "prior": None}
    manifest |= {"attar": "0", "run": "0123456789abcdef", "seconds": {}}
    images = [(label, 0, np.full((8, 8, 3), 9 * label, np.uint8)) for label in range(2)]
    write_distilled(tmp_path / "set", ["ant", "bee"], lambda done: images, manifest, images)
    assert len(list((tmp_path / "set" / PROTOTYPES).rglob("*.png"))) == 2
    found = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert found["label"] == [0, 1]


def test_an_evenly_spaced_part_of_many_classes_is_pictured(world: Path, store: Store) -> None:
    import attar.distillation.manifest

    job, method = job_of(world, store), load_method("d4m", {"fit.count": 3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attar.distillation.manifest, "CLASSES_SHOWN", 2)
        patch.setattr(attar.distillation.manifest, "IMAGES_SHOWN", 1)
        patch.setattr(attar.distillation.manifest, "THUMBNAIL", 8)
        made = list(pictured(job, method, 5))
    assert [(label, index, pixels.shape) for label, index, pixels in made] == [(0, 0, (8, 8, 3)), (2, 0, (8, 8, 3))]


def test_the_ablation_is_the_same_sampler_from_plain_noise() -> None:
    method: Any = load_method("d4m-noise")
    plain: Any = load_method("d4m")
    assert method.sampler == plain.sampler
    assert not method.fit.learns
    assert load_method("d4m-noise", {"sampler.guidance": 3}) == dataclasses.replace(
        method, sampler=dataclasses.replace(method.sampler, guidance=3.0)
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strength": 0}, "at least one of 50 steps"),
        ({"strength": 1.5}, "at most 1"),
        ({"strength": "nan"}, "at most 1"),
        ({"sampler.steps": 1}, "at least one of 1 steps"),
        ({"fit.count": 0}, "fit.count 0: at least 1"),
        ({"fit.expand": 0}, "fit.expand 0: at least 1"),
        ({"fit.algorithm": "fuzzy"}, "choose one of minibatch, full, random"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError, match=said):
        load_method("d4m", changes)


@pytest.mark.parametrize(("prior", "steps"), [("dit", 3), ("sd", 4)])
def test_from_the_command_line(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prior: str, steps: int, capsys: Any
) -> None:
    """Of 5 steps int(3.5) are left; PNDM begins two of them at one time, and both are made, as in diffusers."""

    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    common = ["--data", world / "data", "--method", "d4m", "--ipc", "1,3", "--device", "cpu", "--preprocess", "squash"]
    words = [*common, "--prior", world / prior, "--set", "sampler.steps=5", "--out", tmp_path / "out"]
    assert attar(monkeypatch, "distill", *words, "--output-size", 24, "--output-filter", "bicubic") == 0
    passes = steps * 2 * 4 * (1 + 3)
    told = f"{passes} network passes (0 to fit, {passes} to sample 16), 48 images to encode"
    assert told in capsys.readouterr().out
    one = open_distilled(tmp_path / "out" / "ipc-003")
    assert [len(files) for files in one.files()] == [3] * 4
    assert {size_of(file) for files in one.files() for file in files} == {(24, 24)}
    assert {size_of(file) for files in one.prototypes() for file in files} == {(16, 16)}
    assert (one.manifest["output_size"], one.manifest["output_filter"]) == (24, "bicubic")
    assert attar(monkeypatch, "verify", tmp_path / "out") == 0
    assert attar(monkeypatch, "report", tmp_path / "out", "--out", tmp_path / "page.html") == 0
    assert "--output-size 24 --output-filter bicubic" in (tmp_path / "page.html").read_text()
    assert attar(monkeypatch, "distill", *words[:-1], tmp_path / "again", "--seed", 1, "--dry-run") == 0
    assert "to encode" not in capsys.readouterr().out


def test_images_are_brought_to_size_by_the_filter_that_is_named() -> None:
    from PIL import Image

    from attar.sets.mosaics import reduced

    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for name, how in {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC}.items():
        assert np.array_equal(reduced(pixels, 9, name), np.asarray(Image.fromarray(pixels).resize((9, 9), how)))
    assert np.array_equal(reduced(pixels, 9), reduced(pixels, 9, "lanczos"))
    assert reduced(pixels, 16, "bicubic") is pixels
    with pytest.raises(AttarError, match="`output_filter` bicubic: needs an `output_size`"):
        Spec("digits", output_filter="bicubic")


def test_images_of_another_size_are_another_set_and_copies_have_no_size(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:

    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    common = ["--data", world / "data", "--prior", world / "dit", "--ipc", 1, "--device", "cpu"]
    words = [*common, "--method", "d4m", "--set", "sampler.steps=5", "--out", tmp_path / "out"]
    assert attar(monkeypatch, "distill", *words) == 0
    assert size_of(open_distilled(tmp_path / "out").files()[0][0]) == (16, 16)
    assert attar(monkeypatch, "distill", *words, "--output-size", 8) == 2
    assert "other output_size" in capsys.readouterr().err
    for size, method in ((0, "d4m"), (8, "random")):
        assert attar(monkeypatch, "distill", *common, "--method", method, "--output-size", size, "--out", "x") == 2
        assert f"--output-size {size}" in capsys.readouterr().err
