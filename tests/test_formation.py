"""Formation: mosaics of any method's images, what networks learn from, and the same set for other trainers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import attar, save_folder, save_tiny_dit, size_of

import attar as package
from attar.core.errors import AttarError
from attar.core.portable_paths import portable
from attar.core.rng import numpy_generator
from attar.core.store import Store
from attar.data import load_data
from attar.distillation import denoising, pipeline
from attar.distillation.checks import planned
from attar.distillation.regenerate import regenerate
from attar.distillation.reproduce import reproduce
from attar.distillation.run import distill_sets
from attar.evaluation import named_recipe
from attar.evaluation.conditions import Conditions
from attar.evaluation.load_images import images_of_set, random_real_images
from attar.evaluation.run import evaluate_sets
from attar.experiments.spec import read_experiment
from attar.job import Job, Spec
from attar.methods import load_method
from attar.report import write_report
from attar.report.results import _baseline_name
from attar.selection import random_order
from attar.sets.distilled import DistilledSet, open_distilled, verify
from attar.sets.expand import expand
from attar.sets.layouts import export
from attar.sets.mosaics import Picture, enlarged, mosaic, pictures, reduced
from attar.sets.near_copies import Metrics, nearest, read_nearest

CLASSES = ["ant", "bee"]
RECIPE = named_recipe("quick", {"steps": 2, "flip": False})
SMALL: dict[str, dict[str, Any]] = {
    "random": {},
    "herding": {},
    "prior": {"sampler.steps": 3},
    "d3hr": {"sampler.steps": 5, "fit.steps": 5, "subsets": 20},
    "d4m": {"sampler.steps": 4, "sampler.solver": "ddim"},
    "exemplars": {"sampler.steps": 10, "fit.steps": 10, "fit.time": 600},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    for split in ("train", "test"):
        save_folder(root / "data" / split, CLASSES, each=20, size=16, seed=len(split))
    save_tiny_dit(root / "dit", CLASSES)
    return root


def spec(world: Path, **fields: Any) -> Spec:
    prior = {"prior": str(world / "dit")} if fields.pop("sampled", False) else {}
    return Spec(**{"data": f"imagefolder:{world / 'data'}@train", "device": "cpu", "formation": 2, **prior, **fields})


def made(world: Path, out: Path, store: Store, name: str = "random", ipc: int = 2, **fields: Any) -> DistilledSet:
    job = Job(spec(world, sampled=name not in ("random", "herding"), **fields), store)
    (folder,) = distill_sets(job, name, load_method(name, SMALL[name]), (ipc,), out)
    return open_distilled(folder)


def read(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def noise(*key: int, side: int = 4) -> np.ndarray:
    return numpy_generator(*key).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("formation", [1, 2, 3])
def test_a_mosaic_is_taken_apart_as_it_was_put_together(tmp_path: Path, formation: int) -> None:
    parts = [noise(number) for number in range(formation**2)]
    whole = mosaic(parts)
    for number, part in enumerate(parts):
        row, column = divmod(number, formation)
        assert np.array_equal(whole[4 * row : 4 * row + 4, 4 * column : 4 * column + 4], part)
    Image.fromarray(whole).save(tmp_path / "a.png")
    for picture, part in zip(pictures([tmp_path / "a.png"], formation), parts, strict=True):
        assert np.array_equal(
            np.asarray(picture.read()), np.asarray(enlarged(Image.fromarray(part), (4 * formation,) * 2))
        )


def test_an_image_that_does_not_divide_is_no_mosaic(tmp_path: Path) -> None:
    Image.fromarray(noise(0, side=5)).save(tmp_path / "a.png")
    with pytest.raises(AttarError, match=r"a\.png: 5 x 5 pixels are no mosaic of 2 x 2 parts"):
        Picture(tmp_path / "a.png", formation=2).read()


def test_real_images_become_parts_in_the_order_of_the_choice(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "set", store, "herding", ipc=3)
    method, job = load_method("herding", {}), Job(spec(world), store)
    for label, files in enumerate(one.files()):
        pool = torch.from_numpy(job.images.of_class(label))
        images = [np.asarray(job.images.open(int(pool[k]))) for k in method.select(job, label, pool, 12)]
        small = [np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.LANCZOS)) for image in images]
        assert len(files) == 3
        for index, file in enumerate(files):
            assert np.array_equal(read(file), mosaic(small[4 * index : 4 * index + 4]))


def test_mosaics_and_their_parts_name_the_real_images(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "set", store)
    expand(one, tmp_path / "parts")
    parts = open_distilled(tmp_path / "parts")
    for label, name in enumerate(CLASSES):
        order = random_order(0, name, 20)[:8].tolist()
        files = [f"{name}/{number:03d}.png" for number in order]
        assert one.manifest["real_images"][label] == [files[:4], files[4:]]
        assert parts.manifest["real_images"][label] == [[file] for file in files]
    row = ", ".join(parts.manifest["real_images"][0][k][0] for k in range(4))
    assert f"| images/000_{CLASSES[0]}/0000.png | {row} |" in (one.folder / "README.md").read_text()


def test_sampled_images_are_reduced_once_from_what_the_prior_made(world: Path, store: Store, tmp_path: Path) -> None:
    whole = made(world, tmp_path / "whole", store, "prior", ipc=8, formation=1)
    for size, filtered in ((None, "lanczos"), (24, "bicubic")):
        fields = {"output_size": size, "output_filter": filtered}
        one = made(world, tmp_path / str(size), store, "prior", ipc=2, **fields)
        side = (size or 16) // 2
        for files, originals in zip(one.files(), whole.files(), strict=True):
            parts = [reduced(read(file), side, filtered) for file in originals]
            assert np.array_equal(read(files[1]), mosaic(parts[4:]))
            assert size_of(files[1]) == (2 * side, 2 * side)


@pytest.mark.parametrize("name", SMALL)
def test_sets_of_every_kind_of_method_verify_and_are_reproduced(
    world: Path, store: Store, tmp_path: Path, name: str
) -> None:
    one = made(world, tmp_path / "set", store, name, ipc=1)
    assert (one.manifest["formation"], one.manifest["format"], one.manifest["ipc"]) == (2, 2, 1)
    assert verify(one.folder) == []
    again = reproduce(one.folder, tmp_path / "again", store=store)
    assert again is not None
    assert again.differences == ()
    assert "a mosaic of 2 x 2 images" in (one.folder / "README.md").read_text()
    with pytest.raises(AttarError, match=r"belongs to another run \(other formation\)"):
        made(world, tmp_path / "set", store, name, ipc=1, formation=4)


def test_composed_images_are_parts_too(store: Store, tmp_path: Path) -> None:
    from attar.teachers.settings import TeacherTraining
    from attar.teachers.train import train_teacher

    new = TeacherTraining("digits", network="convnet3-bn-w16", flip=False, shift=1, epochs=6, batch=64, lr=0.25)
    train_teacher(replace(new, device="cpu"), tmp_path / "teacher", say=lambda text: None)
    method = load_method("rded", {"teacher": str(tmp_path / "teacher"), "pool": 8, "crops": 2})
    sets = {}
    for formation, ipc in ((1, 8), (2, 2)):
        job = Job(Spec("digits", device="cpu", formation=formation), store)
        (folder,) = distill_sets(job, "rded", method, (ipc,), tmp_path / str(formation))
        assert verify(folder) == []
        sets[formation] = open_distilled(folder).files()
    assert np.array_equal(read(sets[2][3][1]), mosaic([reduced(read(file), 4) for file in sets[1][3][4:]]))
    with pytest.raises(AttarError, match="rded: 12 images of a class take 12 crops of as many images, but pool = 8"):
        distill_sets(Job(Spec("digits", formation=2), store), "rded", method, (3,), tmp_path / "more")


def test_an_interrupted_set_of_mosaics_goes_on(
    world: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made(world, tmp_path / "whole", store, "d4m")
    stitched, calls = mosaic, list[int]()

    def once(parts: Sequence[np.ndarray]) -> np.ndarray:
        calls.append(len(parts))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return stitched(parts)

    monkeypatch.setattr(pipeline, "mosaic", once)
    with pytest.raises(KeyboardInterrupt):
        made(world, tmp_path / "set", store, "d4m")
    monkeypatch.setattr(denoising, "denoise", lambda *_: pytest.fail("sampled again"))
    assert made(world, tmp_path / "set", store, "d4m").manifest["images"] == whole.manifest["images"]
    assert calls == [4] * 6, "of the first class nothing is made again"


def test_statistics_make_mosaics_again(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "set", store, "d3hr", ipc=1, keep_statistics=True)
    (again,) = regenerate(one.folder, [2], tmp_path / "two", store=store, say=lambda text: None)
    two = open_distilled(again)
    assert (two.formation, [len(files) for files in two.pictures()]) == (2, [8, 8])
    assert verify(again) == []


def test_no_key_and_no_word_changes_without_a_formation(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "set", store, formation=1)
    assert one.manifest["format"] == 1
    assert not {"formation", "expanded_from"} & set(one.manifest)
    assert "mosaic" not in (one.folder / "README.md").read_text()
    keys = [_key(world, store, tmp_path, formation) for formation in (1, 2, 4)]
    assert len(set(keys)) == 3
    assert keys[0] == one.manifest["run"]
    (record,) = evaluate_sets([one.folder], RECIPE, Conditions(("convnet3-w8",), (0,), baseline=False), store=store)
    assert "formation" not in record.as_json()


def _key(world: Path, store: Store, tmp_path: Path, formation: int) -> str:
    job = Job(spec(world, formation=formation), store)
    plan = planned(job, "random", load_method("random"), [1 if formation > 1 else 2], tmp_path / f"{formation}", print)
    return plan.key(2)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"formation": 0}, "`formation` 0: at least 1"),
        ({"formation": 3}, "`formation` 3: does not divide the images' 16 pixels; choose another, or an `output_size`"),
        ({"output_size": 9}, "`formation` 2: does not divide the images' 9 pixels"),
        ({"ipc": 6}, r"`ipc` 6 with `formation` 2, 24 of them: more real images than these classes have: 'ant' \(20\)"),
        ({"ipc": 99_999}, "`ipc` times `formation` squared, 399996: at most 100,000 images per class"),
    ],
)
@pytest.mark.parametrize("name", ["random", "prior"])
def test_what_cannot_be_is_said_before_any_work(
    world: Path, store: Store, tmp_path: Path, name: str, fields: dict[str, Any], told: str
) -> None:
    if name == "prior" and "real images" in told:
        pytest.skip("a prior makes as many as are asked for")
    with pytest.raises(AttarError, match=told):
        made(world, tmp_path / "set", store, name, **fields)
    assert not (tmp_path / "set").exists()


def test_the_size_of_the_built_in_prior_is_known_before_it_is_trained(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attar.priors.digits.train_prior", lambda *_: pytest.fail("trained"))
    job = Job(Spec("digits", prior="digits", formation=3, device="cpu"), store)
    with pytest.raises(AttarError, match="`formation` 3: does not divide the images' 8 pixels"):
        distill_sets(job, "prior", load_method("prior"), (1,), tmp_path / "set")


def test_a_class_has_enough_images_for_all_parts_of_a_fit(world: Path, store: Store, tmp_path: Path) -> None:
    with pytest.raises(AttarError, match="exemplars needs 24 images of each class; too few: 'ant' \\(20\\)"):
        made(world, tmp_path / "set", store, "exemplars", ipc=6)


def test_networks_learn_from_every_part(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "set", store, ipc=3)
    train = images_of_set(one, RECIPE)
    assert train.pixels.shape == (2 * 12, 16, 16, 3)
    assert np.bincount(train.labels).tolist() == [12, 12]
    small = Image.fromarray(read(one.files()[1][2])[8:, :8])
    assert np.array_equal(train.pixels[12 + 8 + 2], np.asarray(small.resize((16, 16), Image.Resampling.BILINEAR)))
    (record,) = evaluate_sets([one.folder], RECIPE, Conditions(("convnet3-w8",), (0,)), store=store)
    assert (record.n_train, record.ipc, record.formation, record.stored) == (24, 3, 2, "IPC 3 (2 x 2)")
    assert record.baseline is not None
    assert record.baseline.n_train == 24
    assert record.as_json()["formation"] == 2


@pytest.mark.parametrize("size", [None, 24])
def test_random_images_are_formed_like_the_set(world: Path, store: Store, tmp_path: Path, size: int | None) -> None:
    """The baseline of the random set is that set itself, and beside its expanded parts, too."""
    one = made(world, tmp_path / "set", store, ipc=2, output_size=size, output_filter="bicubic")
    expand(one, tmp_path / "parts")
    for distilled in (one, open_distilled(tmp_path / "parts")):
        for recipe in (RECIPE, replace(RECIPE, size=16)):
            train = images_of_set(distilled, recipe)
            assert random_real_images(distilled, recipe, train.side, store).identity == train.identity


def test_expanding_gives_the_parts_as_an_ordinary_set(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "set", store, "prior", ipc=2)
    expand(one, tmp_path / "parts")
    parts = open_distilled(tmp_path / "parts")
    assert verify(parts.folder) == []
    assert (parts.manifest["ipc"], parts.formation, parts.manifest["format"]) == (8, 1, 1)
    assert parts.manifest["expanded_from"] == {"set": one.manifest["digest"], "formation": 2}
    assert images_of_set(parts, RECIPE).identity == images_of_set(one, RECIPE).identity
    assert "real_images" not in parts.manifest
    for files, own in zip(parts.files(), one.files(), strict=True):
        whole = mosaic([reduced(read(file), 8, "box") for file in files[:4]])
        assert np.abs(whole.astype(int) - read(own[0])).mean() < 25, "row by row"
    export(parts, "folder", tmp_path / "exported")
    for distilled, out, told in [
        (parts, "new", "its images are no mosaics"),
        (one, "parts", "something is there already"),
        (one, "set/in", "lies in the distilled set"),
    ]:
        with pytest.raises(AttarError, match=told):
            expand(distilled, tmp_path / out)
    with pytest.raises(AttarError, match=r"its images are mosaics .* write their parts with `attar expand`"):
        export(one, "folder", tmp_path / "new")
    with pytest.raises(AttarError, match=r"holds the parts of another set .* reproduce that"):
        reproduce(parts.folder, tmp_path / "again", store=store)
    one.files()[0][0].unlink()
    with pytest.raises(AttarError, match="is damaged"):
        expand(open_distilled(one.folder), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command_expands(
    world: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(store.root))
    data, out, parts = f"imagefolder:{world / 'data'}@train", tmp_path / "set", tmp_path / "parts"
    words = ["distill", "--data", data, "--method", "random", "--ipc", 2, "--formation", 2, "--out", out]
    assert attar(monkeypatch, *words) == 0
    assert "16 of them will be copied into mosaics of 2 x 2" in capsys.readouterr().out
    assert attar(monkeypatch, "expand", out, "--out", parts, "--dry-run") == 0
    assert "16 images, the parts of 4 mosaics of 2 x 2, would be written" in capsys.readouterr().out
    assert not parts.exists()
    assert attar(monkeypatch, "expand", out, "--out", parts) == 0
    assert attar(monkeypatch, "verify", parts) == 0
    assert attar(monkeypatch, "cache", "explain", parts) == 2
    assert "the parts of another set" in capsys.readouterr().err
    plain = [*words[:5], "--ipc", 2]
    for taken in (out, parts):
        assert attar(monkeypatch, *plain, "--out", taken) == 2
    assert "belongs to another run (other formation); choose" in capsys.readouterr().err.replace("ipc and ", "")
    assert attar(monkeypatch, "expand", world, "--out", tmp_path / "no") == 2
    assert "holds no distilled set" in capsys.readouterr().err
    assert attar(monkeypatch, "report", out, parts, "--out", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "4, 16 x 16 pixels, mosaics of 2 x 2: 16 to learn from" in page
    assert "1,024 pixels, " in page
    assert "random (2 x 2)" in page
    assert "--formation 2" in page
    assert f"attar expand DIR --out {portable(str(parts))}" in page


def test_a_page_keeps_random_images_that_were_reduced_apart(world: Path, store: Store, tmp_path: Path) -> None:
    expand(made(world, tmp_path / "mosaics", store, ipc=1, formation=2), tmp_path / "parts")
    whole = made(world, tmp_path / "whole", store, ipc=4, formation=1)
    sets, conditions = [open_distilled(tmp_path / "parts"), whole], Conditions(("convnet3-w8",), (0,), device="cpu")
    records = list(evaluate_sets(sets, RECIPE, conditions, store=store))
    assert [record.reduced_by for record in records] == [2, 1]
    names = {_baseline_name(record) for record in records}
    assert names == {"random real images", "random real images, reduced by 2"}


def test_a_set_in_python(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "set", store, ipc=2)
    held, dataset = package.load_set(one.folder), package.DistilledDataset(str(one.folder))
    assert held.classes == ("ant", "bee")
    assert (held.images.shape, str(held.images.dtype)) == ((16, 16, 16, 3), "uint8")
    assert held.labels.tolist() == [0] * 8 + [1] * 8
    assert (dataset.classes, dataset.class_to_idx, len(dataset)) == (["ant", "bee"], {"ant": 0, "bee": 1}, 16)
    assert dataset.targets == held.labels.tolist()
    for number in range(16):
        image, label = dataset[number]
        assert np.array_equal(np.asarray(image), held.images[number])
        assert label == held.labels[number]
    whole = package.load_set(one.folder, expanded=False)
    assert np.array_equal(whole.images[2], read(one.files()[1][0]))
    assert len(package.DistilledDataset(one.folder, expanded=False)) == 4
    changed = package.DistilledDataset(one.folder, lambda image: image.size, lambda label: -label)
    assert changed[9] == ((16, 16), -1)
    loader = torch.utils.data.DataLoader(changed, batch_size=16)
    assert next(iter(loader))[1].tolist() == [0] * 8 + [-1] * 8
    with pytest.raises(AttarError, match="holds no distilled set"):
        package.load_set(world)


def test_images_of_differing_sizes_come_one_by_one(store: Store, tmp_path: Path) -> None:
    save_folder(tmp_path / "data", CLASSES, each=3, size=16)
    Image.fromarray(noise(1, side=20)).save(tmp_path / "data" / "ant" / "000.png")
    job = Job(Spec(str(tmp_path / "data")), store)
    (folder,) = distill_sets(job, "random", load_method("random"), (3,), tmp_path / "set")
    dataset = package.DistilledDataset(folder)
    assert {dataset[number][0].size for number in range(len(dataset))} == {(16, 16), (20, 20)}
    with pytest.raises(AttarError, match=r"its images differ in size; `attar.DistilledDataset` gives them one by one"):
        package.load_set(folder)


def test_each_part_has_a_nearest_real_image(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "set", store, ipc=2)
    (found,) = nearest(one, Metrics(), store=store)
    assert [len(values) for values in found.distances] == [8, 8]
    assert read_nearest(one) == [found]
    images = load_data(one.manifest["data"]["spec"])
    part = np.asarray(one.pictures()[1][5].read().resize((32, 32), Image.Resampling.BICUBIC), np.float64) / 255
    real = np.asarray(images.open(found.numbers[1][5]).resize((32, 32), Image.Resampling.BICUBIC), np.float64) / 255
    assert found.distances[1][5] == pytest.approx(np.sqrt(np.square(part - real).mean()), rel=1e-3)


def test_an_experiment_forms_some_of_its_methods(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "e.toml"
    file.write_text(
        f'data = "imagefolder:{world / "data"}@train"\nipc = [1, 2]\nout = "{tmp_path / "out"}"\nseeds = 1\n'
        'device = "cpu"\n[methods.random]\n[methods.formed]\nmethod = "random"\nformation = 2\n'
        '[evaluations.quick]\nnetworks = ["convnet3-w8"]\nset = {steps = 2}\n'
    )
    assert [contender.spec.formation for contender in read_experiment(file).contenders] == [1, 2]
    assert attar(monkeypatch, "compare", file) == 0
    assert "quick, convnet3-w8, IPC 2 (2 x 2): 1 training of" in capsys.readouterr().out
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| formed (2 x 2) |" in table
    stored = re.findall(r"\| (.*) \| ([\d,]+) pixels, \d.* bytes \| ([\d,]+) pixels", table)
    assert stored == [("random", "512", "1,024"), ("formed (2 x 2)", "512", "1,024")]
    records = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [record["n_train"] for record in records] == [2, 8, 4, 16]
    sets = sorted((tmp_path / "out" / "sets").glob("*/*/ipc-002"))
    write_report(sets, [], tmp_path / "page.html")
    assert "random (2 x 2)" in (tmp_path / "page.html").read_text()


def test_the_plain_loop_learns_from_what_lies_on_disk(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import runpy

    images = load_data("digits@test")
    for number, label in enumerate(images.labels):
        file = tmp_path / "test" / f"{label:03d}" / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        images.open(number).save(file)
    job = Job(Spec("digits", formation=2, device="cpu"), store)
    (folder,) = distill_sets(job, "random", load_method("random"), (3,), tmp_path / "set")
    example = Path(__file__).parent.parent / "examples" / "train_on_a_set.py"
    assert not re.search(r"(import|from) attar", example.read_text())
    told = ["train_on_a_set.py", str(folder), str(tmp_path / "test"), "--steps", "60", "--no-flip"]
    monkeypatch.setattr("sys.argv", told)
    torch.manual_seed(0)
    images, targets = runpy.run_path(str(example), run_name="__main__")["learnt_from"](folder)
    held = package.load_set(folder)
    assert np.array_equal(np.stack([np.asarray(image) for image in images]), held.images)
    assert np.array_equal(targets.argmax(1).numpy(), held.labels)
    said = re.fullmatch(r"120 images: ([\d.]+) % of 364 test images\n", capsys.readouterr().out)
    assert said is not None
    assert float(said[1]) > 30
