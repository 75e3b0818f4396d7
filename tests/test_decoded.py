"""Images that have no room in memory: mapped from a file of the cache, or decoded whenever they are asked for."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toys import save_folder, tint

from attar.core.errors import AttarError, Unwritable
from attar.core.store import Store
from attar.data import ImageSet, load_data, load_pixels
from attar.data import decoded as module
from attar.data.decoded import Undecoded, decoded
from attar.evaluation import RECIPES
from attar.evaluation.evaluator import Students, evaluate
from attar.evaluation.load_images import all_images
from attar.teachers.record import read_record
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher
from attar.training import placed
from attar.training.placed import Fetched


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    folder = save_folder(tmp_path / "data", ["ant", "bee"], each=6, size=20)
    tint(folder)
    return load_data(str(folder))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """All images are too many for memory."""
    monkeypatch.setattr(module, "IN_MEMORY", 0)


class Breaking:
    """Decodes, and is broken off at the n-th part."""

    def __init__(self, nth: int) -> None:
        self.nth, self.asked = nth, list[int]()

    def __call__(self, images: ImageSet, indices: Any, size: int, how: str) -> Any:
        self.asked.append(len(indices))
        if len(self.asked) == self.nth:
            raise KeyboardInterrupt
        return load_pixels(images, indices, size, how)


def test_few_images_are_in_memory_and_many_in_a_file(
    images: ImageSet, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_pixels(images, range(12), 16, "adm")
    few = decoded(images, 16, "adm", store)
    assert not isinstance(few, np.memmap | Undecoded)
    monkeypatch.setattr(module, "IN_MEMORY", few.nbytes - 1)
    many = decoded(images, 16, "adm", store)
    assert isinstance(many, np.memmap)
    assert np.array_equal(few, plain)
    assert np.array_equal(many, plain)


def test_images_in_another_order_are_another_file(images: ImageSet, store: Store, large: None) -> None:
    turned = images._view(np.arange(12).reshape(2, 6).T.flatten())
    assert turned.identities == images.identities, "each class alone is as it was"
    first, second = (decoded(each, 16, "adm", store) for each in (images, turned))
    assert not np.array_equal(first[np.arange(12)], second[np.arange(12)])


def test_a_decoding_that_was_broken_off_goes_on(
    images: ImageSet, store: Store, monkeypatch: pytest.MonkeyPatch, large: None
) -> None:
    monkeypatch.setattr(module, "PART", 4)
    breaking = Breaking(3)
    monkeypatch.setattr(module, "load_pixels", breaking)
    with pytest.raises(KeyboardInterrupt):
        decoded(images, 16, "adm", store)
    (begun,) = (store.root / "pixels").glob(".*.partial/pixels.npy")
    sizes = [begun.stat().st_size - len(header(12, 16))]
    made = decoded(images, 16, "adm", store)
    assert breaking.asked == [4, 4, 4, 4], "the first two parts are not decoded again"
    assert sizes[0] == (4 + 4) * 16 * 16 * 3, "no hole that a full disk could not fill later"
    assert np.array_equal(made[np.arange(12)], load_pixels(images, range(12), 16, "adm"))


def test_without_room_on_disk_images_are_decoded_when_asked_for(
    images: ImageSet, store: Store, monkeypatch: pytest.MonkeyPatch, large: None
) -> None:
    monkeypatch.setattr(module, "has_room", lambda *_: False)
    found = placed(decoded(images, 16, "adm", store), torch.device("cpu"))
    assert isinstance(found, Fetched)
    assert len(found) == 12
    assert torch.equal(found[torch.tensor([7, 0])], torch.from_numpy(load_pixels(images, [7, 0], 16, "adm")))
    assert not (store.root / "pixels").exists()


@pytest.mark.parametrize("room", [True, False])
def test_a_teacher_is_the_same_wherever_its_images_are(
    tmp_path: Path, images: ImageSet, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    spec = TeacherTraining(images.spec, "convnet3-w8", batch=4, epochs=2, device="cpu")
    train_teacher(spec, tmp_path / "held", store=Store(tmp_path / "one"), say=lambda _: None)
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    monkeypatch.setattr(module, "has_room", lambda *_: room)
    train_teacher(spec, tmp_path / "left", store=Store(tmp_path / "two"), say=lambda _: None)
    first, second = (read_record(tmp_path / name) for name in ("held", "left"))
    assert first["weights"] == second["weights"]
    assert first["held_out"] == second["held_out"]


def test_an_evaluation_is_the_same_wherever_its_images_are(
    images: ImageSet, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attar.evaluation import modified

    recipe = modified(RECIPES.open("minimax-hard"), {"size": 16, "epochs": 2, "precision": "float32"})

    def accuracy() -> float:
        train, test = (all_images(images, size, "adm", store) for size in (16, recipe.shorter_side(16)))
        return evaluate(Students(train, test, recipe, "convnet3-w8", "cpu"), [0]).mean

    held = accuracy()
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    assert isinstance(all_images(images, 16, "adm", store).pixels, np.memmap)
    assert accuracy() == held


def header(count: int, size: int) -> bytes:
    """What a file of so many images begins with."""
    file = io.BytesIO()
    np.save(file, np.zeros((count, size, size, 3), np.uint8))
    return file.getvalue()[: -count * size * size * 3]


@pytest.mark.parametrize("damage", ["rows lost", "no number"])
def test_only_what_is_there_is_gone_on_from(
    images: ImageSet, store: Store, monkeypatch: pytest.MonkeyPatch, large: None, damage: str
) -> None:
    monkeypatch.setattr(module, "PART", 4)
    monkeypatch.setattr(module, "load_pixels", Breaking(3))
    with pytest.raises(KeyboardInterrupt):
        decoded(images, 16, "adm", store)
    (begun,) = (store.root / "pixels").glob(".*.partial")
    if damage == "rows lost":
        os.truncate(begun / "pixels.npy", len(header(12, 16)) + 5 * 16 * 16 * 3)
    else:
        (begun / ".decoded").write_text("")
    monkeypatch.setattr(module, "load_pixels", load_pixels)
    made = decoded(images, 16, "adm", store)
    assert np.array_equal(made[np.arange(12)], load_pixels(images, range(12), 16, "adm"))


def test_a_file_that_is_begun_needs_room_for_the_rest_alone(
    images: ImageSet, store: Store, monkeypatch: pytest.MonkeyPatch, large: None
) -> None:
    monkeypatch.setattr(module, "PART", 4)
    monkeypatch.setattr(module, "load_pixels", Breaking(3))
    with pytest.raises(KeyboardInterrupt):
        decoded(images, 16, "adm", store)
    monkeypatch.setattr(module, "load_pixels", load_pixels)
    free = int(1.2 * 4 * 16 * 16 * 3)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    assert isinstance(decoded(images, 16, "adm", store), np.memmap)
    assert isinstance(decoded(images, 16, "squash", store), Undecoded)


def test_a_full_disk_names_the_cache(
    images: ImageSet, store: Store, monkeypatch: pytest.MonkeyPatch, large: None
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Unwritable, match=rf"{store.root} cannot be written: No space left on device"):
        decoded(images, 16, "adm", store)


def test_an_evaluation_that_has_room_nowhere_says_so(
    images: ImageSet, store: Store, monkeypatch: pytest.MonkeyPatch, large: None
) -> None:
    monkeypatch.setattr(module, "has_room", lambda *_: False)
    assert np.array_equal(all_images(images, 16, "adm", store).pixels, load_pixels(images, range(12), 16, "adm"))
    monkeypatch.setattr("attar.evaluation.load_images.memory", lambda: 4 * 12 * 16 * 16 * 3 - 4)
    with pytest.raises(
        AttarError, match=rf"all images at 16 pixels take 1 MiB, and the cache {store.root} has no room"
    ):
        all_images(images, 16, "adm", store)
