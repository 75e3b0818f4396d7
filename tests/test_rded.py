"""RDED: crops, scores and mosaics held against a loop of their own; one store for all IPCs; what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop
from toys import save_folder

from attar import cli
from attar.core.errors import AttarError
from attar.core.store import Store
from attar.distillation.pipeline import compose, prepare
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import load_method
from attar.methods.rded.crops import random_squares
from attar.methods.rded.method import RDED
from attar.teachers.load import load_pretrained
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

SPEC = Spec("digits", device="cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A teacher of the digits."""
    out = tmp_path_factory.mktemp("rded") / "teacher"
    spec = TeacherTraining(
        "digits", network="convnet3-bn-w16", flip=False, shift=1, epochs=6, batch=64, lr=0.25, device="cpu"
    )
    train_teacher(spec, out, say=lambda text: None)
    return str(out)


def distilled(store: Store, out: Path, teacher: str | None, ipcs: list[int], spec: Spec = SPEC, **fields: Any) -> Any:
    method = RDED(teacher=teacher, **{"pool": 12, "crops": 3, **fields})
    return distill_sets(Job(spec, store), "rded", method, ipcs, out)


def pictures(folder: Path) -> dict[str, np.ndarray]:
    files = sorted((folder / "images").rglob("*.png"))
    return {f"{file.parent.name[4:]}/{file.stem}": np.asarray(Image.open(file)) for file in files}


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 5), (8, 8), (64, 48), (300, 20)])
def test_squares_lie_in_the_image(width: int, height: int) -> None:
    left, top, side = random_squares(width, height, 500, "squares", width).T
    assert side.min() >= 1
    assert left.min() >= 0
    assert top.min() >= 0
    assert int((left + side).max()) <= width
    assert int((top + side).max()) <= height


@pytest.mark.parametrize(("width", "height"), [(64, 48), (90, 40)])
def test_squares_are_those_of_random_resized_crop(width: int, height: int) -> None:
    ours = random_squares(width, height, 4000, "squares").T.tolist()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draw = partial(RandomResizedCrop.get_params, torch.empty(3, height, width), [0.08, 1.0], [1.0, 1.0])
        top, left, side, _ = zip(*(draw() for _ in range(4000)), strict=True)
    for own, theirs in zip(ours, (left, top, side), strict=True):
        assert ks_2samp(own, theirs).pvalue > 0.01


def test_the_size_is_the_datas_not_that_of_one_image(tmp_path: Path, store: Store) -> None:
    """Among 48-pixel images the first is tiny, one is huge and one cannot be read; large ones come to 224."""
    save_folder(tmp_path / "data", ["ant", "bee"], each=20, size=48)
    save_folder(tmp_path / "large", ["ant"], each=3, size=300)
    for name, side in (("000", 5), ("007", 400)):
        Image.new("RGB", (side, side)).save(tmp_path / "data" / "ant" / f"{name}.png")
    (tmp_path / "data" / "bee" / "003.png").write_bytes(b"no image")
    job = Job(Spec(f"imagefolder:{tmp_path / 'data'}", on_bad_image="skip"), store)
    assert (RDED().side(job), RDED().grid(job)) == (48, 1)
    assert Job(replace(job.spec, classes=("bee",)), store).side == 48
    assert RDED(size=128).side(job) == 128
    large = Job(Spec(f"imagefolder:{tmp_path / 'large'}"), store)
    assert (RDED().side(large), RDED().grid(large)) == (224, 2)


@pytest.mark.parametrize(("factor", "size"), [(1, 8), (2, 8), (2, 13)])
def test_the_best_crops_are_found_and_stitched(store: Store, teacher: str, factor: int, size: int) -> None:
    """A plain loop over images and crops, and the network itself: the same order, the same pictures."""
    label, ipc = 3, 2
    job, method = Job(SPEC, store), RDED(teacher=teacher, pool=12, crops=3, factor=factor, size=size)
    found, part = method.prepare(job, label), size // factor
    asked = load_pretrained(teacher, None, 10, size)
    best = []
    for place in found["image"].tolist():
        image = job.images.open(int(job.images.of_class(label)[place]))
        losses = {}
        for left, top, side in random_squares(8, 8, 3, 0, "rded", "3", place).tolist():
            crop = image.crop((left, top, left + side, top + side)).resize((part, part), Image.Resampling.BILINEAR)
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in (asked.mean, asked.std))
            x = (torch.from_numpy(np.array(crop)).permute(2, 0, 1) / 255 - mean) / std
            before = (size - part) // 2
            x = F.pad(x, (before, size - part - before, before, size - part - before))[None]
            if size != 8:
                x = F.interpolate(x, (8, 8), mode="bilinear", antialias=True)
            with torch.no_grad():
                logits = asked.network(x)
            losses[left, top, side] = (float(F.cross_entropy(logits, torch.tensor([label]))), crop)
        box = min(losses, key=lambda key: losses[key][0])
        best.append((losses[box][0], box, losses[box][1]))
    of_images = [[int(found["image"][k * ipc + index]) for k in range(factor**2)] for index in range(ipc)]
    assert list(method.real_places(job, found, ipc)) == of_images
    assert sorted(found["image"].tolist()) == sorted(set(found["image"].tolist()))
    assert len(best) == 12
    assert found["loss"].tolist() == sorted(found["loss"].tolist())
    close = 0.02 if size == 8 else 0.5  # the padding is rounded to 8 bits, and so is what is resized
    assert found["loss"].tolist() == pytest.approx([loss for loss, _, _ in best], rel=close, abs=close)
    if size == 8:
        assert [tuple(box) for box in found["box"].tolist()] == [box for _, box, _ in best]
        made = list(method.images(job, label, found, ipc))
        for index in range(ipc):
            mosaic = np.concatenate(
                [
                    np.concatenate([np.asarray(best[(row * factor + k) * ipc + index][2]) for k in range(factor)], 1)
                    for row in range(factor)
                ]
            )
            assert np.array_equal(made[index], mosaic)
    else:
        assert [picture.shape for picture in method.images(job, label, found, ipc)] == [(13, 13, 3)] * ipc


def test_every_ipc_uses_the_same_scores(store: Store, tmp_path: Path, teacher: str) -> None:
    distilled(store, tmp_path / "one", teacher, [1])
    kept = sorted(path.name for path in (store.root / "prepared").glob("[!.]*"))
    assert len(kept) == 10
    distilled(store, tmp_path / "more", teacher, [2, 3], factor=1)
    assert sorted(path.name for path in (store.root / "prepared").glob("[!.]*")) == kept
    distilled(store, tmp_path / "other", teacher, [1], crops=2)
    assert len(list((store.root / "prepared").glob("[!.]*"))) == 20


def test_classes_alone_and_after_a_kill_come_out_alike(store: Store, tmp_path: Path, teacher: str) -> None:
    distilled(store, tmp_path / "all", teacher, [2], factor=2)
    whole = pictures(tmp_path / "all")
    some = replace(SPEC, classes=("3", "7"))
    distilled(Store(tmp_path / "fresh"), tmp_path / "some", teacher, [2], some, factor=2)
    for name, picture in pictures(tmp_path / "some").items():
        assert np.array_equal(picture, whole[name])
    job = Job(SPEC, store)
    method = RDED(teacher=teacher, pool=12, crops=3, factor=2)
    after = list(compose(job, method, prepare(job, method), 2, done=range(8)))
    assert [(label, index) for label, index, _ in after] == [(8, 0), (8, 1), (9, 0), (9, 1)]
    assert np.array_equal(after[0][2], whole["8/0000"])


def test_the_teacher_is_part_of_a_sets_identity(store: Store, tmp_path: Path, teacher: str) -> None:
    distilled(store, tmp_path / "set", teacher, [1])
    other = tmp_path / "other"
    spec = TeacherTraining(
        "digits", network="convnet3-bn-w16", flip=False, shift=1, epochs=7, batch=64, lr=0.25, device="cpu"
    )
    train_teacher(spec, other, say=lambda text: None)
    moved = tmp_path / "teacher"
    Path(other).rename(moved)
    job, again = Job(SPEC, store), Job(SPEC, store)
    assert RDED(teacher=teacher).inputs(job)["teacher"] != RDED(teacher=str(moved)).inputs(again)["teacher"]


@pytest.mark.parametrize(
    ("fields", "ipc", "message"),
    [
        ({"teacher": None}, 1, "name the teacher"),
        ({"teacher": "nowhere"}, 1, "there is no such folder"),
        ({"pool": 7, "factor": 2}, 2, r"8 crops of as many images, but pool = 7; set `pool=8`"),
        ({"factor": 9, "pool": 100}, 1, "9 crops do not fit into 8 pixels"),
        ({"factor": 12, "size": 24, "pool": 300}, 1, "too few"),
    ],
)
def test_what_cannot_be_is_said_first(
    fields: dict[str, Any], ipc: int, message: str, store: Store, tmp_path: Path, teacher: str
) -> None:
    with pytest.raises(AttarError, match=message):
        distilled(store, tmp_path / "out", **{"teacher": teacher, **fields}, ipcs=[ipc])
    assert not (tmp_path / "out").exists()
    assert not (store.root / "prepared").exists()


def test_fields_are_checked() -> None:
    with pytest.raises(AttarError, match="rded: crops = 0: give a whole number of 1 or more"):
        load_method("rded", {"crops": "0"})


def test_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, teacher: str
) -> None:
    words = ["distill", "--data", "digits", "--method", "rded", "--set", f"teacher={teacher}", "--set", "pool=12"]
    monkeypatch.setattr("sys.argv", ["attar", *words, "--ipc", "1", "--out", str(tmp_path / "set"), "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert not (tmp_path / "set").exists()
    assert "600 crops of 120 images to score, about" in capsys.readouterr().out
