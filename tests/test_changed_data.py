"""Data that has changed since a set was made of it, and test images that are training images, too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from toys import attar, save_folder, save_random_set, tint

from attar.core.progress import quiet
from attar.core.store import Store
from attar.data import load_data, shared
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

QUICK = ["--set", "steps=1", "--network", "convnet3-bn-w4", "--seeds", 1, "--device", "cpu"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_random_set(tmp_path, monkeypatch)
    shutil.rmtree(tmp_path / "data" / "test")
    save_folder(tmp_path / "data" / "test", ["ant", "bee"], each=6, seed=1)
    return tmp_path


def one_more(train: Path) -> None:
    Image.new("RGB", (16, 16), "red").save(train / "ant" / "more.png")


def one_other(train: Path) -> None:
    Image.new("RGB", (16, 16), "red").save(train / "ant" / "003.png")


def one_name(train: Path) -> None:
    (train / "ant" / "003.png").rename(train / "ant" / "zzz.png")


def one_class(train: Path) -> None:
    shutil.rmtree(train / "bee")
    save_folder(train, ["cow"], each=6)


CHANGES = [
    (one_more, "7 images of class 'ant' now, 6 before"),
    (one_other, "other images, or in another order"),
    (one_name, "other images, or in another order"),
    (one_class, "it has no class 'bee' now"),
]


@pytest.mark.parametrize(("change", "how"), CHANGES)
def test_changed_data_is_said(
    change: Callable[[Path], None], how: str, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    change(world / "data" / "train")
    said = f"imagefolder:{world / 'data'}@train has changed since {world / 'set'} was distilled from it ({how})"
    remedy = "bring back the images that it was made from, or distill it again (`attar evaluate` with "
    test = ["--test", world / "data" / "test"]
    for words in (
        ["evaluate", world / "set", *QUICK, *test],
        ["nearest", world / "set", "--device", "cpu"],
        ["score", world / "set", *QUICK, *test],
        ["waterfall", world / "set", "--change", "lr=0.1", "--baseline", "--out", world / "w", *QUICK, *test],
    ):
        capsys.readouterr()
        assert attar(monkeypatch, *words) == 2
        told = capsys.readouterr()
        assert f"{said}: {remedy}" in " ".join(told.err.split())
        assert "%" not in told.out, "nothing was trained before"
    assert attar(monkeypatch, "evaluate", world / "set", *QUICK, *test, "--no-baseline") == 0
    assert f"note: {said}" in capsys.readouterr().out
    alone = ["--change", "lr=0.1", "--out", world / "w", *QUICK, *test]
    assert attar(monkeypatch, "waterfall", world / "set", *alone) == 0
    assert capsys.readouterr().out.count(f"note: {said}") == 1


def test_a_teacher_is_tried_on_what_there_is_now(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    data = f"imagefolder:{world / 'data'}@train"
    tint(world / "data" / "train")
    new = TeacherTraining(data, "convnet3-bn-w16", flip=False, shift=0, epochs=30, batch=10, lr=0.25, device="cpu")
    train_teacher(new, world / "teacher", store=Store(world / "cache"), say=quiet)
    fkd = ["--recipe", "fkd-soft-cifar", "--set", "flip=false", "--set", "epochs=1", "--device", "cpu"]
    words = ["relabel", world / "set", "--teacher", world / "teacher", *fkd, "--out", world / "labels"]
    assert attar(monkeypatch, *words) == 0
    assert "in another order): the teacher is tried on the images that there are now" in capsys.readouterr().out


def test_data_that_is_not_at_hand_is_needed_for_the_baseline_alone(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (world / "data" / "train").rename(world / "elsewhere")
    test = ["--test", world / "data" / "test"]
    assert attar(monkeypatch, "evaluate", world / "set", *QUICK, *test) == 2
    assert attar(monkeypatch, "evaluate", world / "set", *QUICK, *test, "--no-baseline") == 0
    assert "\nnote:" not in f"\n{capsys.readouterr().out}"


def test_as_it_was_nothing_is_said(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for file in (world / "data" / "train").rglob("*.png"):
        file.touch()
    assert attar(monkeypatch, "evaluate", world / "set", *QUICK) == 0
    assert attar(monkeypatch, "nearest", world / "set", "--device", "cpu") == 0
    assert "\nnote:" not in f"\n{capsys.readouterr().out}"


def test_test_images_that_are_training_images(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    train, test = world / "data" / "train", world / "data" / "test"
    for number, label in enumerate(("ant", "bee", "bee")):
        shutil.copyfile(train / label / f"00{number}.png", test / "bee" / f"00{number}.png")
    train_spec, test_spec = (f"imagefolder:{world / 'data'}@{name}" for name in ("train", "test"))
    assert shared(load_data(test_spec), load_data(train_spec), Store(world / "cache")) == 3
    said = (
        f"note: 3 of the 12 test images of {test_spec} are training images of {train_spec}, too: "
        "accuracies on them are too high"
    )
    for words in (
        ["evaluate", world / "set", *QUICK],
        ["score", world / "set", "--full-accuracy", 50, *QUICK],
        ["waterfall", world / "set", "--change", "lr=0.1", "--out", world / "w", *QUICK],
    ):
        assert attar(monkeypatch, *words) == 0
        assert capsys.readouterr().out.count(said) == 1
    assert attar(monkeypatch, "evaluate", world / "set", *QUICK, "--test", train_spec) == 0
    assert "note: 12 of the 12 test images" in capsys.readouterr().out


def test_an_experiment_says_it_once(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    shutil.copyfile(world / "data" / "train" / "ant" / "000.png", world / "data" / "test" / "ant" / "000.png")
    top = {"data": f"{world / 'data'}@train", "ipc": [1, 2], "seeds": 1, "device": "cpu", "out": str(world / "out")}
    lines = [f"{name} = {json.dumps(value)}" for name, value in {"title": "Insects", **top}.items()]
    lines += ["[methods.random]", "[evaluations.quick]", 'networks = ["convnet3-bn-w4"]', "set = {steps = 1}"]
    (world / "e.toml").write_text("\n".join(lines))
    assert attar(monkeypatch, "compare", world / "e.toml") == 0
    assert capsys.readouterr().out.count("note: 1 of the 12 test images") == 1
