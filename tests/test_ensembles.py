"""Several teachers as one: the mean of their logits, wherever a teacher labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import attar

from attar.core.errors import AttarError
from attar.core.portable_paths import portable
from attar.core.progress import quiet
from attar.core.store import Store
from attar.data import load_data, load_pixels
from attar.evaluation import LabelledImages, named_recipe
from attar.evaluation.teaching import recipe_teacher, summary
from attar.experiments.spec import read_experiment
from attar.teachers.reference import TeacherReference
from attar.teachers.settings import TeacherTraining
from attar.teachers.teacher import Ensemble, Teacher
from attar.teachers.train import train_teacher
from attar.training.augment import normalised

CLASSES = tuple("0123456789")
SOFT = replace(named_recipe("rded-soft-cifar"), size=8, flip=False)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two teachers of the digits, of other sizes of images and other statistics."""
    root = tmp_path_factory.mktemp("teachers")
    one = TeacherTraining("digits", "convnet3-bn-w8", flip=False, shift=0, epochs=4, batch=64, lr=0.25, device="cpu")
    train_teacher(one, root / "a", store=Store(root / "cache"), say=quiet)
    other = replace(one, network="convnet3-bn-w4", size=12, normalise="half")
    train_teacher(other, root / "b", store=Store(root / "cache"), say=quiet)
    return str(root / "a"), str(root / "b")


def digits(classes: tuple[str, ...] = CLASSES) -> LabelledImages:
    images = load_data("digits@test")
    pixels = load_pixels(images, np.arange(len(images)), 8, "resize-crop")
    return LabelledImages(pixels, images.labels.copy(), classes)


def test_logits_are_averaged(teachers: tuple[str, str]) -> None:
    """Each member sees images at its own size and by its own statistics."""
    one, other, both = (
        recipe_teacher(TeacherReference.of(names), digits(), (digits(), "images"), SOFT, "cpu")
        for names in (*teachers, teachers)
    )
    views = normalised(torch.from_numpy(digits().pixels[:9]), SOFT.normalise)
    with torch.no_grad():
        members = [teacher(views) for teacher in (one, other)]
        torch.testing.assert_close(both(views), (members[0] + members[1]) / 2)
    assert both.accuracy > 80
    assert both.matched == "by name, in the same order"
    about = summary(TeacherReference.of(teachers), both)
    assert about["source"] == list(teachers)
    assert (
        len(
            {
                about["digest"],
                *(summary(TeacherReference.of(teachers[0]), teacher)["digest"] for teacher in (one, other)),
            }
        )
        == 3
    )
    assert json.loads(json.dumps(about)) == about


def test_a_member_that_fails_is_named(teachers: tuple[str, str], tmp_path: Path) -> None:
    wrong = json.loads((Path(teachers[1]) / "teacher.json").read_text())
    (tmp_path / "wrong").mkdir()
    swapped = [*wrong["classes"][:8], wrong["classes"][9], wrong["classes"][8]]
    (tmp_path / "wrong" / "teacher.json").write_text(json.dumps({**wrong, "classes": swapped}))
    (tmp_path / "wrong" / "model.safetensors").write_bytes((Path(teachers[1]) / "model.safetensors").read_bytes())
    both = TeacherReference.of([teachers[0], str(tmp_path / "wrong")])
    with pytest.raises(AttarError, match=r"/wrong: .* it calls (most|some) '8' images '9', (most|some) '9' images '8'"):
        recipe_teacher(both, digits(), (digits(), "images"), SOFT, "cpu")


def test_several_are_a_teacher_too(teachers: tuple[str, str]) -> None:
    both = recipe_teacher(TeacherReference.of(teachers), digits(), (digits(), "images"), SOFT, "cpu")
    assert isinstance(both, Ensemble)
    assert isinstance(both, Teacher)
    assert len(list(both.networks.children())) == 2
    assert both.digest != both.network_digest


def test_digests_do_not_depend_on_the_names_of_classes(teachers: tuple[str, str]) -> None:
    """Stored labels hold the digest of their teacher, which is made of its layers as they are printed."""
    one = recipe_teacher(TeacherReference.of(teachers[0]), digits(), (digits(), "images"), SOFT, "cpu")
    assert str(one).startswith("Labeller(\n  size=8\n  (network): ConvNet(")
    assert str(Ensemble([one])).startswith("Ensemble(\n  (members): ModuleList(\n    (0): Labeller(")


def test_names() -> None:
    assert TeacherReference.from_text(["a, b", "c"], None, "half") == TeacherReference(("a", "b", "c"), None, "half")
    assert TeacherReference.from_text(["a"]) == TeacherReference("a")
    assert TeacherReference.of("a") == TeacherReference.of(["a"]) == TeacherReference("a")
    assert str(TeacherReference.of(["a", "b"])) == "a, b"
    assert TeacherReference.of(["timm/a", "timm/b"]).anywhere == TeacherReference(("timm/a", "timm/b"))
    with pytest.raises(AttarError, match="`teacher` a: is named twice"):
        TeacherReference.of(["a", "b", "a"])
    for nothing in ([], ["a", ""]):
        with pytest.raises(AttarError, match="`teacher`: a name is missing"):
            TeacherReference.of(nothing)


def test_from_the_command_line(
    teachers: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert attar(monkeypatch, "distill", "--data", "digits", "--method", "random", "--ipc", 1, "--out", "set") == 0
    fkd = ["--recipe", "fkd-soft-cifar", "--set", "flip=false", "--set", "epochs=1"]
    common = ["--network", "convnet3-bn-w4", "--seeds", 1, "--device", "cpu", "--json", "r.json"]
    evaluated = ["evaluate", "set", *fkd, *common]
    assert attar(monkeypatch, *evaluated, "--teacher", ",".join(teachers)) == 0
    repeated = [word for name in teachers for word in ("--teacher", name)]
    assert attar(monkeypatch, *evaluated, *repeated) == 0
    assert attar(monkeypatch, "relabel", "set", *fkd, *repeated, "--out", "labels", "--device", "cpu") == 0
    assert f"{teachers[0]}, {teachers[1]}: " in capsys.readouterr().out
    assert attar(monkeypatch, "evaluate", "set", "--labels", "labels", *common) == 0
    (record,) = json.loads(Path("r.json").read_text())
    assert record["teacher"]["source"] == list(teachers)
    assert attar(monkeypatch, "report", "set", "--results", "r.json", "--out", "page.html") == 0
    assert f"labels of {', '.join(map(portable, map(str, teachers)))}" in Path("page.html").read_text()
    assert attar(monkeypatch, *evaluated, "--teacher", teachers[0]) == 0
    one, two = sorted(json.loads(Path("r.json").read_text()), key=lambda of: isinstance(of["teacher"]["source"], list))
    assert one["teacher"]["digest"] != two["teacher"]["digest"]
    capsys.readouterr()
    select = ["distill", "--data", "digits", "--method", "confident", "--ipc", 1, "--out", "x", "--set"]
    errors: list[tuple[list[Any], str]] = [
        ([*evaluated, "--teacher", f"{teachers[0]},{teachers[0]}"], "is named twice"),
        ([*evaluated, "--teacher", f"{teachers[0]},"], "--teacher: a name is missing"),
        ([*evaluated, "--teacher", f"{teachers[0]},nobody"], "--teacher nobody: there is no such folder"),
        (["nearest", "set", "--teacher", ",".join(teachers)], "are those of one network; name one teacher"),
        ([*select, f"select.teacher={','.join(teachers)}"], "there is no such folder of one teacher"),
        (["evaluate", "set", "--labels", "labels", "--teacher", teachers[0]], "labels by another teacher than"),
    ]
    for words, message in errors:
        assert attar(monkeypatch, *words) == 2, words
        assert message in " ".join(capsys.readouterr().err.split()), words


EXPERIMENT = """
title = "Digits"
data = "digits"
ipc = [1]
seeds = 1
device = "cpu"
out = "{out}"
[methods.random]
[evaluations.soft]
recipe = "rded-soft-cifar"
networks = ["convnet3-bn-w4"]
teacher = {teacher}
set = {{epochs = 1, flip = false}}
"""


def test_in_an_experiment(
    teachers: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = tmp_path / "e.toml"
    file.write_text(EXPERIMENT.format(out=tmp_path / "out", teacher=json.dumps(teachers)))
    assert read_experiment(file).evaluations[0].teacher == TeacherReference.of(teachers)
    assert attar(monkeypatch, "compare", file) == 0
    assert f"teacher {teachers[0]}, {teachers[1]}" in (tmp_path / "out" / "table.md").read_text()
    capsys.readouterr()
    for teacher, said in (
        ([teachers[0], "nobody"], "teacher = nobody: there is no such file or folder"),
        ([teachers[0]] * 2, "is named twice"),
        ([3], "[evaluations.soft] teacher = [3]: a list of texts"),
        ([], "`teacher`: a name is missing"),
    ):
        file.write_text(EXPERIMENT.format(out=tmp_path / "other", teacher=json.dumps(teacher)))
        assert attar(monkeypatch, "compare", file) == 2
        assert said in " ".join(capsys.readouterr().err.split())
