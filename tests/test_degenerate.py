"""Images that show nothing: all equal, of single colours, or the same in two classes; real ones as distilled ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import attar, save_folder

from attar.core.errors import AttarError
from attar.core.progress import silent
from attar.core.store import Store
from attar.data import load_data, readable, readable_parts
from attar.data.degenerate import ACCIDENT, ClassContents, ImageContents, check_contents
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import METHODS, load_method
from attar.methods.base import LatentMethod


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images of each of two classes, with a test split."""
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    for seed, split in enumerate(("train", "test")):
        save_folder(tmp_path / "data" / split, ["ant", "bee"], each=3, seed=seed)
    return tmp_path / "data"


def spoil(folder: Path, how: str) -> None:
    """Makes the images of class bee below a folder equal, of single colours, or those of class ant."""
    ants, bees = (sorted(folder.glob(f"*{name}/*.png")) for name in ("ant", "bee"))
    for number, (ant, bee) in enumerate(zip(ants, bees, strict=True)):
        if how == "equal":
            shutil.copyfile(bees[0], bee) if number else None
        elif how == "plain":
            Image.new("RGB", (16, 16), (number, 0, 90)).save(bee)
        else:
            shutil.copyfile(ant, bees[number - 1])


MESSAGES = {
    "equal": r"all images are equal in class 'bee' \(3 images\); give other images",
    "plain": r"every image is of a single colour in class 'bee' \(3 images\); give other images",
    "twins": r"the classes 'ant', 'bee' hold the same images, so that their labels mean nothing; give other images",
}


@pytest.mark.parametrize("how", MESSAGES)
def test_classes_that_show_nothing(data: Path, store: Store, how: str) -> None:
    spoil(data / "train", how)
    images = load_data(f"{data}@train")
    for _ in range(2):
        with pytest.raises(AttarError, match=f"^imagefolder:{data}@train: {MESSAGES[how]}"):
            readable(images, "error", store)
    if how == "twins":
        readable(images.restricted(["ant"]), "error", store)


def test_a_photograph_of_two_classes_may_be_all_that_is_held_out_of_both(data: Path, store: Store) -> None:
    images = load_data(f"{data}@train")
    ant, bee = (data / "train" / images.held_out()[1].name(number) for number in (0, 1))
    shutil.copyfile(ant, bee)
    images = load_data(f"{data}@train")
    with pytest.raises(AttarError, match="hold the same images"):
        readable(images.held_out()[1], "skip", store)
    for bad in ("error", "skip"):
        train, held = readable_parts(images, bad, store, silent)
        assert (len(train), len(held)) == (4, 2)


@pytest.mark.parametrize("name", [name for name in METHODS if not isinstance(load_method(name), LatentMethod)])
def test_methods_of_real_images_refuse_them(data: Path, store: Store, name: str) -> None:
    spoil(data / "train", "equal")
    taught = {"confident": {"select.teacher": "nowhere"}, "rded": {"teacher": "nowhere"}}
    method = load_method(name, taught.get(name))
    with pytest.raises(AttarError, match=MESSAGES["equal"]):
        distill_sets(Job(Spec(f"{data}@train"), store), name, method, (1,), data.parent / "out")
    assert not (data.parent / "out").exists()


def test_some_equal_and_some_plain_images_are_data(data: Path, store: Store) -> None:
    ants = sorted((data / "train" / "ant").iterdir())
    shutil.copyfile(ants[0], ants[1])
    shutil.copyfile(ants[0], data / "train" / "bee" / "000.png")
    for number, colour in enumerate(("red", "blue")):
        Image.new("RGB", (16, 16), colour).save(data / "train" / "bee" / f"{number + 1:03d}.png")
    images = load_data(f"{data}@train")
    assert readable(images, "error", store) is images


def test_a_single_pixel_is_no_single_colour(tmp_path: Path, store: Store) -> None:
    (tmp_path / "data" / "ant").mkdir(parents=True)
    for value in range(2):
        Image.new("RGB", (1, 1), (value, 0, 0)).save(tmp_path / "data" / "ant" / f"{value}.png")
    assert len(readable(load_data(str(tmp_path / "data")), "error", store)) == 2


def test_images_that_cannot_be_read_do_not_hide_it(data: Path, store: Store) -> None:
    spoil(data / "train", "equal")
    (data / "train" / "bee" / "x.png").write_bytes(b"no image")
    with pytest.raises(AttarError, match=MESSAGES["equal"]):
        readable(load_data(f"{data}@train"), "skip", store)


@pytest.mark.parametrize("how", MESSAGES)
def test_evaluate_refuses_a_set_of_such_images(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    export = save_folder(data.parent / "set", ["ant", "bee"], each=3, seed=2)
    spoil(export, how)
    words = ["evaluate", export, "--layout", "folder", "--data", f"{data}@train", "--network", "convnet3-w8"]
    assert attar(monkeypatch, *words, "--seeds", 1, "--set", "steps=1") == 2
    assert "hold the same images" in (told := capsys.readouterr().err) or "class 'bee'" in told


@pytest.mark.parametrize("how", ["equal", "plain"])
def test_a_set_of_our_own_is_looked_at_before_it_is_judged(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """What wrote it did not look: the manifest agrees with the files."""
    monkeypatch.setattr("attar.sets.distilled._check_distinct", lambda *_: None)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    pixels = pixels if how == "equal" else np.zeros_like(pixels)
    monkeypatch.setattr("attar.distillation.pipeline.np.asarray", lambda _: pixels)
    distill_sets(Job(Spec(f"{data}@train")), "random", load_method("random"), (3,), data.parent / "set")
    monkeypatch.undo()
    monkeypatch.setenv("ATTAR_CACHE", str(data.parent / "cache"))
    assert attar(monkeypatch, "evaluate", data.parent / "set", "--network", "convnet3-w8", "--set", "steps=1") == 2
    told = {
        "equal": "all images are equal in classes 'ant' (3 images), 'bee'",
        "plain": "of a single colour in classes",
    }
    assert f"{data.parent / 'set'}: " in (error := capsys.readouterr().err)
    assert told[how] in error


def test_a_photograph_of_two_classes_may_be_all_that_a_set_shows_of_both() -> None:
    """A data set may hold it in both; that its classes are copies cannot be told from one image."""
    one = ClassContents.of([ImageContents("a", False)])
    check_contents({"ant": one, "bee": one}, "set", ACCIDENT)
    with pytest.raises(AttarError, match="hold the same images"):
        check_contents({"ant": one, "bee": one}, "data")
    two = ClassContents.of([ImageContents("a", False), ImageContents("b", False)])
    with pytest.raises(AttarError, match="hold the same images"):
        check_contents({"ant": two, "bee": two}, "set", ACCIDENT)
