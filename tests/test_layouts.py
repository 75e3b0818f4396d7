"""Other codes' folders: what is written is read again, classes are matched by name and not by place, errors say so."""

from __future__ import annotations

import json
import os
import pickle
import runpy
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from toys import attar

from attar.core.engine import Engine
from attar.core.errors import AttarError
from attar.core.rng import numpy_generator
from attar.core.store import Store
from attar.data import load_data
from attar.data.class_names import read_class_map
from attar.data.imagenet import subset
from attar.distillation.run import distill_sets
from attar.evaluation import modified, named_recipe
from attar.evaluation.conditions import Conditions
from attar.evaluation.load_images import images_of_set
from attar.evaluation.run import evaluate_sets
from attar.methods import load_method
from attar.sets.distilled import open_distilled
from attar.sets.layouts import class_folders, export, open_layout, understood, wordnet_ids

QUICK = named_recipe("quick")
LETTERS = tuple(f"class {letter}" for letter in "abcdefghijkl")
"""Twelve, so that 0, 1, 10, 11, 2 ... sort as text in another order than they count."""
DOGS = tuple(sorted(subset("imagewoof")))


def made(root: Path, classes: Sequence[str], each: int = 3, side: int = 8) -> Path:
    """A folder of random images of each class."""
    for name in classes:
        (root / name).mkdir(parents=True)
        for n in range(each):
            pixels = numpy_generator("layouts", name, n).integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{n}.png")
    return root


def distilled(root: Path, classes: Sequence[str], ipc: int = 2) -> Path:
    """A set of random real images of the folder root/real, which is made."""
    data = made(root / "real", classes)
    method = load_method("random")
    return distill_sets_in(root, str(data), method, ipc)


def distill_sets_in(root: Path, data: str, method: Any, ipc: int) -> Path:
    from attar.job import Job, Spec

    return distill_sets(Job(Spec(data), Store(root / "cache")), "random", method, [ipc], root / "set")[0]


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("letters")
    distilled(root, LETTERS)
    return root


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dogs")
    distilled(root, DOGS)
    return root


def read(root: Path, folder: Path, layout: str, mapping: Any = None, classes: Sequence[str] | None = None) -> Any:
    real = load_data(str(root / "real"))
    return open_layout(folder, layout, real.restricted(classes) if classes else real, mapping, Store(root / "cache"))


@pytest.mark.parametrize(
    ("world", "layout", "first"),
    [
        ("letters", "rded", "00000/class00000_id00000.png"),
        ("letters", "d4m", "0/0-image00.png"),
        ("letters", "d3hr", "000/0.png"),
        ("letters", "folder", "000_class_a/0000.png"),
        ("dogs", "minimax", "n02086240/0.png"),
        ("dogs", "d3hr", "n02086240/0.png"),
        ("dogs", "folder", "000_n02086240/0000.png"),
    ],
)
def test_what_is_written_is_read_again(
    world: str, layout: str, first: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    root = request.getfixturevalue(world)
    one = open_distilled(root / "set")
    export(one, layout, tmp_path / "out")
    assert (tmp_path / "out" / first).is_file()
    found = read(root, tmp_path / "out", layout)
    own, again = images_of_set(one, QUICK), images_of_set(found, QUICK)
    assert again.classes == own.classes
    assert again.labels.tolist() == own.labels.tolist()
    assert np.array_equal(again.pixels, own.pixels)
    published = ImageFolder(tmp_path / "out")  # what RDED's, D4M's and Minimax's readers begin with
    assert len(published) == len(own.labels)
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


def test_a_set_of_another_code_travels_to_workers(letters: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """They are told it in words; it has no digest of its own."""
    export(open_distilled(letters / "set"), "folder", tmp_path / "out")
    sent = list[Any]()

    def ahead(_: Engine, items: Any, *__: Any) -> list[Any]:
        sent.extend(pickle.loads(pickle.dumps(items)))
        return []

    monkeypatch.setattr(Engine, "ahead", ahead)
    conditions = Conditions(("convnet3-w8",), (0,), str(letters / "real"), baseline=False, device="cpu")
    foreign, recipe = read(letters, tmp_path / "out", "folder"), modified(QUICK, {"steps": 2})
    (record,) = evaluate_sets([foreign], recipe, conditions, store=Store(letters / "cache"))
    assert [item.seed for item in sent] == [0]
    assert record.layout == "folder"


def test_the_order_of_the_folders_is_not_that_of_the_classes(letters: Path, tmp_path: Path) -> None:
    """D4M's folders sort as 0, 1, 10, 11, 2: torchvision would take class k for class c."""
    one = open_distilled(letters / "set")
    export(one, "d4m", tmp_path / "out")
    assert ImageFolder(tmp_path / "out").classes[2] == "10"
    found = read(letters, tmp_path / "out", "d4m")
    assert found.manifest["folders"] == [str(label) for label in range(12)]
    assert found.files()[2][0].parent.name == "2"


def test_images_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    data = made(tmp_path / "real", ["a", "b"], each=12)
    method = load_method("random")
    one = open_distilled(distill_sets_in(tmp_path, str(data), method, 12))
    export(one, "rded", tmp_path / "out")
    assert np.array_equal(
        images_of_set(read(tmp_path, tmp_path / "out", "rded"), QUICK).pixels, images_of_set(one, QUICK).pixels
    )


def test_d3hr_gets_its_list_of_files(dogs: Path, tmp_path: Path) -> None:
    export(open_distilled(dogs / "set"), "d3hr", tmp_path / "out")
    lines = (tmp_path / "out" / "train.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 20
    assert all(Path(line).is_file() for line in lines)


def test_published_jpegs_are_read(letters: Path, tmp_path: Path) -> None:
    one = open_distilled(letters / "set")
    export(one, "rded", tmp_path / "out")
    for file in (tmp_path / "out").rglob("*.png"):
        Image.open(file).save(file.with_suffix(".jpg"), quality=100, subsampling=0)
        file.unlink()
    again = images_of_set(read(letters, tmp_path / "out", "rded"), QUICK).pixels.astype(int)
    assert np.abs(again - images_of_set(one, QUICK).pixels).mean() < 2


def test_images_of_several_sizes_are_brought_to_one(letters: Path, tmp_path: Path) -> None:
    made(tmp_path / "out", LETTERS, each=2, side=8)
    Image.new("RGB", (30, 12)).save(tmp_path / "out" / "class a" / "9.png")
    found = read(letters, tmp_path / "out", "folder")
    assert images_of_set(found, QUICK).pixels.shape == (25, 8, 8, 3)
    assert "2 to 3 images of each of 12 classes" in understood(found)


def test_folders_by_name_and_id(dogs: Path, tmp_path: Path) -> None:
    assert wordnet_ids(["golden retriever", "n02086240_Shih-Tzu", "crane (517)", "dog", "7"]) == [
        "n02099601",
        "n02086240",
        "n03126707",
        None,
        None,
    ]
    made(tmp_path / "named", ["golden retriever", "Shih-Tzu"])
    made(tmp_path / "ids" / "out", ["n02099601", "n02086240"])
    real = load_data(str(tmp_path / "named"))
    found = open_layout(tmp_path / "ids" / "out", "folder", real, None, Store(dogs / "cache"))
    assert found.classes == ("Shih-Tzu", "golden retriever")
    assert found.manifest["folders"] == ["n02086240", "n02099601"]
    assert class_folders("minimax", real.classes) == ["n02086240", "n02099601"]


def test_a_class_map_says_which_is_which(letters: Path, tmp_path: Path) -> None:
    one = open_distilled(letters / "set")
    export(one, "rded", tmp_path / "out")
    mapping = json.loads((tmp_path / "out" / "classes.json").read_text())
    for folder in mapping:
        (tmp_path / "out" / folder).rename(tmp_path / "out" / f"c{folder}")
    renamed = {f"c{folder}": name for folder, name in mapping.items()}
    renamed["c00003"] = 3
    found = read(letters, tmp_path / "out", "rded", renamed)
    assert np.array_equal(images_of_set(found, QUICK).pixels, images_of_set(one, QUICK).pixels)


def gone(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


HARM: dict[str, tuple[Callable[[Path], Any], str, dict[str, Any] | None, str]] = {
    "another layout": (
        lambda out: None,
        "d4m",
        None,
        "is the folder '0'; these folders are no class of it: 00000, .*`layout` rded would fit",
    ),
    "a layout that is none": (
        lambda out: None,
        "rdde",
        None,
        r"`layout` rdde \(did you mean 'rded'\?\): choose one of minimax, ",
    ),
    "a stranger": (lambda out: made(out, ["00012"]), "rded", None, "no class of it: 00012; say which is which"),
    "a class missing": (lambda out: gone(out / "00004"), "rded", None, "no folder is class e; name .*`classes`"),
    "one class twice": (lambda out: made(out, ["x"]), "rded", {"x": "class b"}, "00001, x are the same class"),
    "a map of no folder": (lambda out: None, "rded", {"y": 1}, "has no folder 'y'"),
    "a map of a mistyped folder": (lambda out: made(out, ["x"]), "rded", {"X": 1}, r"no folder 'X' .did you mean 'x'"),
    "a map to a mistyped class": (
        lambda out: made(out, ["x"]),
        "rded",
        {"x": "Class A"},
        r"'Class A': neither a class .*nor a label of one .did you mean 'class a'",
    ),
    "a map to no class": (lambda out: made(out, ["x"]), "rded", {"x": "zebra"}, "'x' = 'zebra': neither a class"),
    "a map to no label": (lambda out: made(out, ["x"]), "rded", {"x": 12}, "'x' = 12: neither a class"),
    "ids that there are not": (lambda out: None, "minimax", None, "these classes are not ImageNet's: 'class a'"),
    "a broken image": (
        lambda out: (out / "00004" / "class00004_id00000.png").write_bytes(b"x"),
        "rded",
        None,
        r"class00004_id00000.png: not an image",
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_does_not_fit_is_said(harm: str, letters: Path, tmp_path: Path) -> None:
    harmed, layout, mapping, message = HARM[harm]
    export(open_distilled(letters / "set"), "rded", tmp_path / "out")
    harmed(tmp_path / "out")
    with pytest.raises(AttarError, match=message):
        read(letters, tmp_path / "out", layout, mapping)


def test_a_part_of_the_classes_is_named(letters: Path, tmp_path: Path) -> None:
    some = LETTERS[4:6]
    made(tmp_path / "out", ["0", "1"])
    found = read(letters, tmp_path / "out", "d4m", classes=some)
    assert found.classes == some
    assert understood(found).endswith("0 = 'class e', 1 = 'class f'")


def test_folders_that_count_otherwise_than_they_sort_are_not_guessed(tmp_path: Path) -> None:
    """By label, D4M's folder 2 is the third of the classes 0, 1, 10, 11, 2; by name, it is the last."""
    numbers = [str(number) for number in range(12)]
    one = open_distilled(distilled(tmp_path, numbers))
    export(one, "d4m", tmp_path / "out")
    message = (
        r"the folder '\d+' is label .* but may also be named after its class '\d+': .*`class_map` FILE .*classes.json"
    )
    with pytest.raises(AttarError, match=message):
        read(tmp_path, tmp_path / "out", "d4m")
    found = read(tmp_path, tmp_path / "out", "d4m", read_class_map(tmp_path / "out" / "classes.json"))
    assert np.array_equal(images_of_set(found, QUICK).pixels, images_of_set(one, QUICK).pixels)
    assert read(tmp_path, tmp_path / "real", "folder").manifest["folders"] == sorted(numbers)
    agreeing = open_distilled(distilled(tmp_path / "agreeing", [f"{number:02d}" for number in range(12)]))
    export(agreeing, "d4m", tmp_path / "again")
    assert read(tmp_path / "agreeing", tmp_path / "again", "d4m").manifest["folders"] == numbers


def test_folders_that_differ_in_capitals_and_spaces_are_told_apart(tmp_path: Path) -> None:
    classes = ["CAT ", "Cat", "cat"]
    made(tmp_path / "real", classes)
    made(tmp_path / "same", classes)
    assert read(tmp_path, tmp_path / "same", "folder").manifest["folders"] == classes
    made(tmp_path / "other", ["CAT", "Cat", "cat"])
    with pytest.raises(AttarError, match=r"'CAT' may be any of its classes 'CAT ', 'Cat', 'cat': say which is which"):
        read(tmp_path, tmp_path / "other", "folder")
    assert read(tmp_path, tmp_path / "other", "folder", {"CAT": "CAT "}).manifest["folders"] == ["CAT", "Cat", "cat"]


def test_a_folder_that_is_one_class_by_number_and_another_by_name_is_not_guessed(tmp_path: Path) -> None:
    """Attar's own export calls the second class 001_dog; here the data's first is called so."""
    made(tmp_path / "real", ["001_dog", "dog"])
    made(tmp_path / "out", ["001_dog", "dog"])
    with pytest.raises(AttarError, match="'001_dog' may be any of its classes '001_dog', 'dog': say which is which"):
        read(tmp_path, tmp_path / "out", "folder")


def test_export_refuses(letters: Path, tmp_path: Path) -> None:
    one = open_distilled(letters / "set")
    with pytest.raises(AttarError, match=r"not ImageNet's.*choose another: rded, d4m, d3hr, folder$"):
        export(one, "minimax", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(AttarError, match="something is there already"):
        export(one, "rded", tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_evaluated_as_the_set_itself(tmp_path: Path) -> None:
    one = open_distilled(distill_sets_in(tmp_path, "digits", load_method("random"), 2))
    export(one, "d4m", tmp_path / "out")
    recipe = modified(QUICK, {"steps": "20", "batch": "8", "flip": "false"})
    found = open_layout(tmp_path / "out", "d4m", load_data("digits"), None, Store(tmp_path / "cache"))
    conditions = Conditions(("convnet3-bn-w16",), (0,), device="cpu")
    judged = partial(evaluate_sets, recipe=recipe, conditions=conditions)
    (own,) = judged([one.folder], store=Store(tmp_path / "a"))
    (again,) = judged([found], store=Store(tmp_path / "b"))
    assert again.accuracies == own.accuracies
    assert (again.baseline and again.baseline.accuracies) == (own.baseline and own.baseline.accuracies)
    assert (again.set, again.layout, again.method) == (str(tmp_path / "out"), "d4m", "d4m layout")
    assert own.baseline
    assert own.layout is None


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = distill_sets_in(tmp_path, "digits", load_method("random"), 1), tmp_path / "out"
    assert attar(monkeypatch, "export", folder, "--layout", "d3hr", "--out", out) == 0
    words = ["--set", "steps=2", "--set", "flip=false", "--network", "convnet3-bn-w16", "--seeds", "1", "--no-baseline"]
    assert attar(monkeypatch, "evaluate", out, "--layout", "d3hr", "--data", "digits", *words) == 0
    told = capsys.readouterr().out
    assert "layout d3hr, 1 image of each of 10 classes of digits@train: 000 = '0'" in told
    assert "d3hr layout  IPC 1" in told
    for wrong, message in (
        (["--layout", "d3hr"], "name real images"),
        (["--data", "digits"], "name its --layout"),
        ([], "sets that other codes wrote are read by `attar evaluate` with their --layout"),
    ):
        assert attar(monkeypatch, "evaluate", out, *wrong) == 2
        assert message in capsys.readouterr().err


def test_the_ddranking_example_gives_what_the_package_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a stand-in with the interface of ddranking 0.2.0."""
    asked: dict[str, Any] = {}

    class Score:
        def __init__(self, **settings: Any) -> None:
            asked.update(settings)

        def compute_metrics(self, **tensors: Any) -> str:
            asked.update(tensors)
            return "scored"

    metrics = SimpleNamespace(LabelRobustScoreHard=Score)
    monkeypatch.setitem(sys.modules, "ddranking", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ddranking.metrics", metrics)
    monkeypatch.setitem(sys.modules, "ddranking.utils", SimpleNamespace(REAL_DATA_ACC_CACHE={}))
    folder = distill_sets_in(tmp_path, "digits", load_method("random"), 3)
    example = Path(__file__).parent.parent / "examples" / "score_with_ddranking.py"
    monkeypatch.setattr("sys.argv", ["score_with_ddranking.py", str(folder)])
    with pytest.raises(SystemExit, match="for CIFAR10-ConvNet-3 give --full"):
        runpy.run_path(str(example), run_name="__main__")
    monkeypatch.setattr("sys.argv", ["score_with_ddranking.py", str(folder), "--full", "90", "--device", "cpu"])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out == "scored\n"
    assert (asked["ipc"], asked["im_size"]) == (3, (8, 8))
    assert asked["hard_labels"].tolist() == [label for label in range(10) for _ in range(3)]
    pixels = images_of_set(open_distilled(folder), QUICK).pixels
    back = asked["image_tensor"].permute(0, 2, 3, 1) * torch.tensor([0.2023, 0.1994, 0.2010])
    back = (back + torch.tensor([0.4914, 0.4822, 0.4465])) * 255
    assert np.array_equal(back.round().to(torch.uint8).numpy(), pixels)
