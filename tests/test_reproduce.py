"""A set made again from its manifest: the same bytes, or what differs and why."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_methods import CLASSES, FAST, TAUGHT
from toys import attar, save_folder, save_tiny_dit

from attar.core.errors import AttarError
from attar.core.store import Store, digest, file_digest, fingerprint
from attar.distillation.reproduce import MadeAgain, reproduce
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import METHODS, load_method
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reproduced")
    save_folder(root / "data", CLASSES, each=12)
    save_tiny_dit(root / "dit", CLASSES)
    teacher = TeacherTraining(
        str(root / "data"), "convnet3-bn-w16", flip=False, shift=0, epochs=30, batch=20, lr=0.25, device="cpu"
    )
    train_teacher(teacher, root / "teacher", store=Store(root / "cache"), say=lambda _: None)
    return root


def made(world: Path, out: Path, name: str, **changes: Any) -> Path:
    spec = Spec(
        data=str(world / "data"),
        prior=str(world / "dit"),
        classes=("bee", "dog"),
        seed=4,
        device="cpu",
        dtype="float32",
    )
    taught = {TAUGHT[name]: str(world / "teacher")} if name in TAUGHT else {}
    method = load_method(name, {**FAST.get(name, {}), **taught, **changes})
    return distill_sets(Job(spec, Store(out / "first")), name, method, (2,), out / "set")[0]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_the_same_bytes(world: Path, tmp_path: Path, store: Store, name: str) -> None:
    folder = made(world, tmp_path, name)
    fields = {"teacher": str(world / "teacher")} if name == "rded" else {}
    result = reproduce(folder, tmp_path / "again", MadeAgain(device="cpu"), fields, store=store)
    assert result is not None
    assert (result.differences, result.otherwise) == ((), ())
    assert str(result) == "reproduced: 4 images, the same bytes"


def test_exemplars_that_a_teacher_chose_are_chosen_again(world: Path, tmp_path: Path, store: Store) -> None:
    folder = made(world, tmp_path, "exemplars", **{"fit.select.teacher": str(world / "teacher")})
    result = reproduce(folder, tmp_path / "again", MadeAgain(device="cpu"), store=store)
    assert result is not None
    assert result.differences == ()


def edited(folder: Path, change: Any) -> None:
    """The set's manifest changed, and signed anew."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    manifest["card"] = digest((folder / "README.md").read_bytes())
    manifest["digest"] = fingerprint({key: value for key, value in manifest.items() if key != "digest"})
    file.write_text(json.dumps(manifest))


def test_what_differs_is_measured_and_explained(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, again = made(world, tmp_path, "prior"), ["--out", tmp_path / "again", "--device", "cpu"]
    picture = next(folder.glob("images/*/*.png"))
    pixels = np.asarray(Image.open(picture)).copy()
    pixels[0, 0, 0] ^= 8
    Image.fromarray(pixels).save(picture)
    name = picture.relative_to(folder).as_posix()

    def signed(manifest: dict[str, Any]) -> None:
        manifest["images"][name] = file_digest(picture)

    edited(folder, signed)
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    assert attar(monkeypatch, "reproduce", folder, *again) == 1
    told = capsys.readouterr().out
    assert (
        "1 of 4 images differ, by 0.01 of 255 on average and 8 at most, though nothing else is known to differ" in told
    )
    assert "the teacher" not in told
    edited(folder, lambda manifest: manifest["versions"].update(torch="2.0.0"))
    assert attar(monkeypatch, "reproduce", folder, *again) == 0
    assert "8 at most; here torch 2" in capsys.readouterr().out
    assert attar(monkeypatch, "reproduce", folder, *again, "--judge", tmp_path / "nobody") == 2
    assert "error: --judge " in capsys.readouterr().err
    Image.fromarray(255 - pixels).save(picture)
    edited(folder, signed)
    assert attar(monkeypatch, "reproduce", folder, *again, "--judge", world / "teacher") == 0
    said = (
        "the teacher gives [01] of 1 of these the same class, its probabilities ([0-9.]+) apart on average; here torch"
    )
    judged = re.search(said, capsys.readouterr().out)
    assert judged
    assert float(judged[1]) > 0


def test_data_and_prior_that_were_moved_are_named(world: Path, tmp_path: Path, store: Store) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(world / "data", moved / "data")
    shutil.copytree(world / "dit", moved / "dit")
    folder = made(world, tmp_path, "prior")
    places = MadeAgain(data=str(moved / "data"), prior=str(moved / "dit"), device="cpu")
    result = reproduce(folder, tmp_path / "again", places, store=store)
    assert result is not None
    assert result.differences == ()


def test_what_cannot_be_reproduced_is_refused(world: Path, tmp_path: Path, store: Store) -> None:
    folder = made(world, tmp_path, "prior")
    with pytest.raises(AttarError, match="is the set itself"):
        reproduce(folder, folder, store=store)
    edited(folder, lambda manifest: manifest["data"].update(regenerated_from="0" * 32))
    with pytest.raises(AttarError, match="without data: `attar regenerate` makes its like"):
        reproduce(folder, tmp_path / "again", store=store)
    edited(folder, lambda manifest: manifest["data"].pop("regenerated_from"))
    next(folder.glob("images/*/*.png")).write_bytes(b"other")
    with pytest.raises(AttarError, match="is damaged"):
        reproduce(folder, tmp_path / "again", store=store)
    assert not (tmp_path / "again").exists()


def test_a_dry_run_makes_nothing(world: Path, tmp_path: Path, store: Store) -> None:
    folder, said = made(world, tmp_path, "prior"), list[str]()
    again = tmp_path / "again"
    assert reproduce(folder, again, MadeAgain(device="cpu"), store=store, say=said.append, dry_run=True) is None
    assert "network passes" in said[-1]
    assert not again.exists()
