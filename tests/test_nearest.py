"""Near copies: the distances, held to a search in loops; copies are found; what is kept beside a set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.testing
from PIL import Image
from toys import save_folder, save_tiny_dit, size_of

from attar.cli import app
from attar.core.errors import AttarError
from attar.core.store import Store
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import load_method
from attar.report import write_report
from attar.selection.features import FeatureKind
from attar.sets.distilled import DistilledSet, open_distilled, verify
from attar.sets.near_copies import COMPARED, Metrics, Nearest, folder_of, nearest, read_nearest
from attar.sets.neighbours import NEIGHBOURS, covered_share
from attar.teachers.reference import TeacherReference
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

CLASSES = ["ant", "bee", "cat"]
EACH = 12


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    save_folder(root / "data", CLASSES, each=EACH)
    save_tiny_dit(root / "dit", CLASSES)
    new = TeacherTraining(
        str(root / "data"), "convnet3-bn-w16", flip=False, shift=0, epochs=30, batch=20, lr=0.25, device="cpu"
    )
    train_teacher(new, root / "teacher", store=Store(root / "cache"), say=lambda _: None)
    return root


def made(world: Path, out: Path, store: Store, name: str, ipc: int = 3, **spec: Any) -> DistilledSet:
    fields: dict[str, Any] = {} if name == "random" else {"sampler.steps": 3}
    job = Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu", **spec)
    (folder,) = distill_sets(Job(job, store), name, load_method(name, fields), (ipc,), out)
    return open_distilled(folder)


def pixels(files: list[Path]) -> np.ndarray[Any, Any]:
    """At 32 x 32, enlarged from 16 x 16 as `adm` does, from 0 to 1."""
    return np.stack([np.asarray(Image.open(f).resize((32, 32), Image.Resampling.BICUBIC)) for f in files]) / 255


def test_distances_agree_with_a_search_in_loops(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "prior", store, "prior")
    (found,) = nearest(one, Metrics(device="cpu"), store=store)
    for label, files in enumerate(one.files()):
        real = pixels(sorted((world / "data" / CLASSES[label]).iterdir()))
        for index, image in enumerate(pixels(files)):
            gaps = [float(np.sqrt(np.mean((image - other) ** 2))) for other in real]
            assert found.distances[label][index] == pytest.approx(min(gaps), abs=1e-5)
            assert found.numbers[label][index] == label * EACH + int(np.argmin(gaps))
        own = [min(np.sqrt(np.mean((a - b) ** 2)) for j, b in enumerate(real) if j != i) for i, a in enumerate(real)]
        assert sorted(found.real[label]) == pytest.approx(sorted(own), abs=1e-5)
        assert len(found.real[label]) == min(EACH, COMPARED)


def test_copies_are_found_and_are_near_copies_by_every_measure(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "random", store, "random")
    teacher = TeacherReference(str(world / "teacher"))
    kinds: tuple[FeatureKind, ...] = ("pixels", "teacher", "prior", "latents")
    found = nearest(one, Metrics(kinds, teacher, str(world / "dit"), "cpu"), store=store)
    assert [of.kind for of in found] == list(kinds)
    for of in found:
        assert max(of.all) < 0.02 * np.median(of.all_real), of.kind
        assert of.near_copies == 1
    assert max(found[0].all) == 0
    names = [Path(file).read_bytes() for files in one.files() for file in files]
    numbers = [number for numbers in found[0].numbers for number in numbers]
    real = [file for name in CLASSES for file in sorted((world / "data" / name).iterdir())]
    for copy, number in zip(names, numbers, strict=True):
        assert np.array_equal(np.asarray(Image.open(real[number])), np.asarray(Image.open(_file(tmp_path, copy))))


def _file(folder: Path, data: bytes) -> Path:
    file = folder / "copy.png"
    file.write_bytes(data)
    return file


def test_what_is_kept_stands_beside_the_set_and_goes_with_it(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "set", store, "prior")
    assert read_nearest(one) == []
    found = nearest(one, Metrics(device="cpu"), store=store)
    assert read_nearest(one) == found
    assert verify(one.folder) == []
    folder = folder_of(one)
    assert sorted(file.name for file in folder.iterdir()) == ["closest-pixels.png", "nearest.json"]
    assert size_of(folder / "closest-pixels.png") == (9 * 16, 2 * 16)
    nearest(one, Metrics(("latents",), prior=str(world / "dit"), device="cpu"), store=store)
    assert [of.kind for of in read_nearest(one)] == ["pixels", "latents"], "another measure leaves those before"
    kept = json.loads((folder / "nearest.json").read_text())
    (folder / "nearest.json").write_text(json.dumps({**kept, "set": "another"}))
    assert read_nearest(one) == []
    (folder / "nearest.json").write_text("{")
    with pytest.raises(AttarError, match=r"nearest\.json is damaged"):
        read_nearest(one)


def test_the_report_shows_it(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "set", store, "prior")
    write_report([one.folder], [], tmp_path / "before.html")
    nearest(one, Metrics(device="cpu"), store=store)
    write_report([one.folder], [], tmp_path / "after.html")
    before, after = ((tmp_path / f"{name}.html").read_text() for name in ("before", "after"))
    assert "How far these images are from real ones" in after
    assert "How far these images" not in before
    assert after.count('<img src="data:image/png;base64,') == 1


def test_near_copies_are_counted_against_real_images() -> None:
    of = Nearest("pixels", [[0.01, 0.5], [0.04]], [[3, 1], [7]], [[0.1 * k for k in range(1, 11)]])
    assert of.near_copies == pytest.approx(2 / 3)
    assert of.closest(2) == [(0, 0), (1, 0)]
    assert str(of).startswith("pixels: nearest real image at 0.04 (median; closest 0.01), between real images 0.55")


def test_what_a_set_covers_and_how_far_it_is_spread_agree_with_loops(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "prior", store, "prior")
    teacher = TeacherReference(str(world / "teacher"))
    by_pixels, by_teacher = nearest(one, Metrics(("pixels", "teacher"), teacher, device="cpu"), store=store)
    for label, files in enumerate(one.files()):
        real, images = pixels(sorted((world / "data" / CLASSES[label]).iterdir())), pixels(files)
        between = np.sqrt(((real[:, None] - real[None]) ** 2).mean((2, 3, 4)))
        radii = np.sort(between, 1)[:, NEIGHBOURS]
        away = np.sqrt(((real[:, None] - images[None]) ** 2).mean((2, 3, 4))).min(1)
        assert by_pixels.covered[label] == pytest.approx((away < radii).mean())
        own = np.sqrt(((images[:, None] - images[None]) ** 2).mean((2, 3, 4))) + np.diag([np.inf] * len(images))
        assert by_pixels.apart[label] == pytest.approx(own.min(1).tolist(), abs=1e-5)
    assert (by_pixels.sure, [len(of) for of in by_teacher.sure]) == ([], [3, 3, 3])
    assert read_nearest(one) == [by_pixels, by_teacher]
    write_report([one.folder], [], tmp_path / "report.html", say=lambda _: None)
    assert by_teacher.spread["sure"] in (tmp_path / "report.html").read_text()


def test_a_row_is_covered_within_its_fifth_neighbour() -> None:
    """Rows 8, 9, 0 and 1 are 14.6, 19, 11.2 and 10.2 from their fifth, 11.4, 15.8, 8 and 7 from their fourth."""
    rows, chosen = np.arange(10, dtype=np.float32)[:, None] ** 1.5, np.array([8, 0, 3, 1, 9])
    assert covered_share(rows, chosen, np.array([[35.5]], np.float32)) == pytest.approx(0.4)
    assert covered_share(rows, chosen, np.array([[35.5], [-9]], np.float32)) == pytest.approx(0.8)


def test_a_set_of_all_real_images_covers_all_and_a_single_image_has_no_other(
    world: Path, store: Store, tmp_path: Path
) -> None:
    (every,) = nearest(made(world, tmp_path / "all", store, "random", EACH), Metrics(device="cpu"), store=store)
    assert every.covered == [1, 1, 1]
    (single,) = nearest(made(world, tmp_path / "one", store, "random", 1), Metrics(device="cpu"), store=store)
    assert single.apart == [[], [], []]
    assert single.spread.keys() == {"covered"}


def test_what_an_older_attar_kept_is_read(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "random", store, "random")
    nearest(one, Metrics(device="cpu"), store=store)
    file = folder_of(one) / "nearest.json"
    kept = json.loads(file.read_text())
    for measure in kept["measures"]:
        del measure["covered"], measure["apart"], measure["sure"]
    file.write_text(json.dumps(kept))
    (found,) = read_nearest(one)
    assert found.spread == {}
    assert str(found).endswith("near copies")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--features", "prior"], "made without a prior"),
        (["--features", "teacher"], "name one with `teacher`"),
        (["--features", "colour"], "choose among pixels, teacher, prior, latents"),
    ],
)
def test_wrong_words_are_named(world: Path, store: Store, tmp_path: Path, words: list[str], said: str) -> None:
    one = made(world, tmp_path / "random", store, "random")
    result = typer.testing.CliRunner().invoke(app, ["nearest", str(one.folder), "--device", "cpu", *words])
    assert said in str(result.exception)


def test_the_command_tells_what_it_found(world: Path, store: Store, tmp_path: Path) -> None:
    one = made(world, tmp_path / "random", store, "random", classes=("cat", "ant"))
    result = typer.testing.CliRunner().invoke(app, ["nearest", str(one.folder), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "pixels: nearest real image at 0 (median; closest 0)" in result.output
    assert "100% near copies" in result.output
