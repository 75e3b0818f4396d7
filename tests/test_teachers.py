"""Teachers: trained, resumed, opened from everywhere, and refused where their classes or input are not the data's."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from toys import attar, save_folder

from attar.core.config import changed
from attar.core.errors import AttarError
from attar.core.progress import duration, silent
from attar.core.store import Store
from attar.data import load_data, load_pixels
from attar.networks import build
from attar.networks.airbench import Whitening
from attar.priors.folder import publish
from attar.teachers import check
from attar.teachers import train as training
from attar.teachers.check import Examples, check_teacher
from attar.teachers.load import load_pretrained, read_classes
from attar.teachers.reference import TeacherReference
from attar.teachers.settings import TeacherTraining
from attar.teachers.teacher import Pretrained, SingleTeacher, digest_of
from attar.teachers.train import train_teacher
from attar.training.augment import STATISTICS, normalised
from attar.training.checkpoint import Checkpoint

SPEC = TeacherTraining("digits", "convnet3-bn-w16", flip=False, shift=1, epochs=6, batch=64, lr=0.25, device="cpu")
NAMES = tuple("0123456789")


def quiet(text: str) -> None:
    """Says nothing."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of the digits."""
    root = tmp_path_factory.mktemp("teacher")
    train_teacher(replace(SPEC, test="digits@test"), root / "out", store=Store(root / "cache"), say=quiet)
    return root / "out"


def held_out() -> tuple[Tensor, Tensor]:
    images = load_data("digits@test")
    return torch.tensor(load_pixels(images, np.arange(len(images)), 8, "resize-crop")), torch.tensor(images.labels)


def tried(teacher: Pretrained, classes: tuple[str, ...] = NAMES, labels: Tensor | None = None, n: int = 364) -> Any:
    images, own = held_out()
    examples = Examples(images[:n], (own if labels is None else labels)[:n], classes, "test images")
    return check_teacher(teacher, examples, "half")


def test_a_folder_says_what_a_teacher_is(folder: Path) -> None:
    about = json.loads((folder / "teacher.json").read_text())
    assert (about["network"], about["classes"], about["size"]) == ("convnet3-bn-w16", list(NAMES), 8)
    assert about["held_out"]["images"] == 141
    assert about["held_out"]["accuracy"] > 90
    assert about["test"]["images"] == 364
    teacher = load_pretrained(str(folder), None, 10, 8)
    images, labels = held_out()
    with torch.no_grad():
        found = 100 * float((teacher.network(normalised(images, "cifar")).argmax(1) == labels).float().mean())
    assert found == pytest.approx(about["test"]["accuracy"])


def test_an_interrupted_training_ends_with_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Eager(Checkpoint):
        def __init__(self, scratch: Path, **more: Any) -> None:
            super().__init__(scratch, seconds=0.0, **more)

    def stop(text: str, fraction: float) -> None:
        if "step" in text and fraction > 0.5:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "Checkpoint", Eager)
    monkeypatch.setattr("attar.training.meters.SECONDS", 0.0)
    store, out = Store(tmp_path / "cache"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train_teacher(SPEC, out, store=store, progress=stop, say=quiet)
    assert not out.exists()
    told: list[float] = []
    train_teacher(SPEC, out, store=store, progress=lambda text, done: told.append(done) if "step" in text else None)
    assert min(told) > 0.4, "it went on where it was"
    whole, resumed = (load_file(where / "model.safetensors") for where in (folder, out))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_is_there_is_left_alone(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    train_teacher(SPEC, folder, store=Store(tmp_path), say=said.append)
    assert "nothing to do" in said[-1]
    with pytest.raises(AttarError, match="is another run's teacher"):
        train_teacher(replace(SPEC, epochs=7), folder, store=Store(tmp_path), say=quiet)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(AttarError, match="holds no teacher of ours"):
        train_teacher(SPEC, tmp_path / "mine", store=Store(tmp_path), say=quiet)
    train_teacher(SPEC, tmp_path / "new", store=Store(tmp_path), say=said.append, dry_run=True)
    assert "about" in said[-1]
    assert not (tmp_path / "new").exists()


def test_a_teacher_trained_in_bfloat16_on_a_cpu_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setenv("ATTAR_CPU_DTYPE", dtype)
        bench = training._Bench(SPEC, silent, Store())
        assert bench.plan(1).precision == dtype
        found[dtype] = bench.artefact
    assert found["float32"].key != found["bfloat16"].key
    assert found["bfloat16"].recorded == {**found["float32"].recorded, "dtype": "bfloat16"}, "older keys stay"


def test_a_key_says_how_a_gpu_makes_crops_where_there_are_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "device_class", lambda device: "a GPU")
    found = []
    for crop in (None, 0.5):
        bench = training._Bench(replace(SPEC, crop=crop), silent, Store())
        bench.device = torch.device("cuda")
        found.append(bench.artefact.recorded.get("views"))
    assert found == [None, "crops of a batch at once"]


def test_a_forecast_times_no_more_rows_than_fill_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole batch of large images would take minutes, and all of the memory."""
    rows, told = list[int](), list[str]()

    def watched(*words: Any) -> nn.Module:
        network = build(*words)
        network.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
        return network

    def timed(step: Callable[[], None], device: torch.device) -> float:
        step()
        return 3.0

    monkeypatch.setattr(training, "build", watched)
    monkeypatch.setattr(training, "timed_on", timed)
    monkeypatch.setattr("attar.core.batching.CPU_FILLED", 1)
    train_teacher(SPEC, tmp_path / "new", store=Store(tmp_path), say=told.append, dry_run=True)
    assert set(rows) == {2}
    steps = SPEC.epochs * ((load_data("digits").labels.size - 141) // SPEC.batch)
    assert f"about {duration(steps * 3.0 * SPEC.batch / 2)} on " in told[0]


def test_what_was_looked_at_in_two_parts_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where images may be left out, those to train on and those held out are looked at by themselves."""
    data, told = save_folder(tmp_path / "many", ["ant", "bee"], each=20), list[str]()
    (data / "bee" / "007.png").write_bytes(b"\x89PNG")
    monkeypatch.setattr("attar.data.integrity.GLANCE", 4)
    spec = TeacherTraining(str(data), "convnet3-w8", batch=8, epochs=1, on_bad_image="skip", device="cpu")
    common: dict[str, Any] = {"store": Store(tmp_path / "cache"), "say": told.append}
    train_teacher(spec, tmp_path / "dry", **common, dry_run=True)
    assert "; before that 40 images are looked at, " in told[-1]
    train_teacher(spec, tmp_path / "out", **common)
    train_teacher(replace(spec, seed=1), tmp_path / "dry", **common, dry_run=True)
    assert "before that" not in told[-1]


def test_whose_a_teacher_is_is_not_said_before_all_images_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, told = save_folder(tmp_path / "many", ["ant", "bee"], each=20), list[str]()
    (data / "bee" / "007.png").write_bytes(b"\x89PNG")
    monkeypatch.setattr("attar.data.integrity.GLANCE", 4)
    spec = TeacherTraining(str(data), "convnet3-w8", batch=8, epochs=1, on_bad_image="skip", device="cpu")
    train_teacher(spec, tmp_path / "out", store=Store(tmp_path / "cache"), say=told.append)
    train_teacher(spec, tmp_path / "out", store=Store(tmp_path / "empty"), say=told.append, dry_run=True)
    assert told[-1].endswith("out is there; whether this run made it is seen when all images are looked at")
    other = replace(spec, seed=1)
    with pytest.raises(AttarError, match="another run's teacher"):
        train_teacher(other, tmp_path / "out", store=Store(tmp_path / "cache"), say=told.append, dry_run=True)


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_damaged_teacher_is_not_there_already(folder: Path, tmp_path: Path, dry_run: bool) -> None:
    shutil.copytree(folder, tmp_path / "out")
    _altered(tmp_path / "out")
    with pytest.raises(AttarError, match=r"not what teacher\.json says: copy the teacher again, or remove .*out and"):
        train_teacher(SPEC, tmp_path / "out", store=Store(tmp_path / "cache"), say=print, dry_run=dry_run)


def test_fields_out_of_range() -> None:
    nan, inf = float("nan"), float("inf")
    wrong: dict[str, tuple[float, ...]] = {
        "epochs": (0,),
        "batch": (-1,),
        "size": (0, -8),
        "lr": (0.0, nan, inf),
        "shift": (-1,),
        "weight_decay": (-1e-3, nan, inf),
        "momentum": (1.0, -0.1, nan),
        "label_smoothing": (1.0, nan),
        "crop": (0.0, 1.1, nan),
    }
    for field, values in wrong.items():
        for value in values:
            with pytest.raises(AttarError, match=f"train-teacher: {field} = {value}: give"):
                changed(SPEC, {field: value}, "x")
    with pytest.raises(AttarError, match="no network is called"):
        replace(SPEC, network="convnet33")
    with pytest.raises(AttarError, match="choose one of adm, resize-crop, squash"):
        changed(SPEC, {"preprocess": "stretch"}, "train-teacher")


@pytest.mark.parametrize(
    ("size", "given", "network", "lr"),
    [
        (32, {}, "airbench-w32", 0.25),
        (8, {}, "convnet3-bn-w48", 0.05),
        (8, {"lr": 0.1}, "convnet3-bn-w48", 0.1),
        (16, {"network": "airbench-w8"}, "airbench-w8", 0.25),
    ],
)
def test_a_network_that_fits_the_images(
    size: int, given: dict[str, Any], network: str, lr: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, said = list[str](), list[str]()

    def earlier(out: Path, key: str, sure: bool) -> dict[str, Any]:
        keys.append(key)
        return {}

    monkeypatch.setattr(training, "_earlier", earlier)
    spec = TeacherTraining("digits", size=size, flip=False, batch=8, device="cpu", **given)
    for one in (spec, replace(spec, network=network, lr=lr)):
        train_teacher(one, tmp_path / "out", store=Store(tmp_path), say=said.append, dry_run=True)
    assert f"held out; {network}, " in said[0]
    assert keys[0] == keys[1], "the key holds what was settled"


@pytest.mark.parametrize(
    ("size", "network", "message"),
    [
        (8, "airbench-w32", "network airbench-w32 cannot take 8-pixel images; convnet3-bn-w48 can$"),
        (16, "convnet5-bn", "16 pixels are too few, 32 are needed; convnet4 would fit$"),
        (4, None, "4 pixels are too few, 8 are needed$"),
    ],
)
def test_a_network_that_cannot_take_the_images(size: int, network: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(AttarError, match=message):
        train_teacher(TeacherTraining("digits", network=network, size=size), tmp_path / "out", store=Store(tmp_path))


def test_a_training_that_diverges_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(AttarError, match=r"diverged.*lower lr = 1e\+30"):
        train_teacher(replace(SPEC, lr=1e30, epochs=1), tmp_path / "out", store=Store(tmp_path / "cache"), say=quiet)
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_is_there_is_tested_later(folder: Path, tmp_path: Path) -> None:
    whole = json.loads((folder / "teacher.json").read_text())
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out" / "teacher.json").write_text(json.dumps({k: v for k, v in whole.items() if k != "test"}))
    said: list[str] = []
    again = partial(train_teacher, replace(SPEC, test="digits@test"), tmp_path / "out", say=said.append)
    again(store=Store(tmp_path / "empty"))
    assert said[0] == "trained already: it is only tested"
    assert json.loads((tmp_path / "out" / "teacher.json").read_text()) == whole
    again(store=Store(tmp_path / "empty"))
    assert "nothing to do" in said[-1]


def test_a_folder_appears_with_its_whole_record(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "teacher.json").write_text("{}")
    publish(tmp_path / "made", tmp_path / "out", {"teacher.json": {"seconds": 3}})
    assert json.loads((tmp_path / "out" / "teacher.json").read_text()) == {"seconds": 3}


def test_a_teacher_of_the_same_classes_passes(folder: Path) -> None:
    found = tried(load_pretrained(str(folder), None, 10, 8))
    assert found.accuracy > 85
    assert found.matched == "by name, in the same order"


def test_names_in_another_order_are_put_in_order(folder: Path) -> None:
    teacher = load_pretrained(str(folder), None, 10, 8)
    _, labels = held_out()
    turned = tried(teacher, NAMES[::-1], 9 - labels)
    assert turned.accuracy == tried(teacher).accuracy
    assert "in another order" in turned.matched
    views = normalised(held_out()[0][:5], "half")
    torch.testing.assert_close(turned(views).flip(1), tried(teacher)(views))


def test_a_part_of_the_teachers_classes_is_enough(folder: Path) -> None:
    images, labels = held_out()
    some = labels < 4
    pretrained = load_pretrained(str(folder), None, 10, 8)
    found = check_teacher(pretrained, Examples(images[some], labels[some], NAMES[:4], "images"), "half")
    assert found(normalised(images[:2], "half")).shape == (2, 4)
    with pytest.raises(AttarError, match=r"does not know these classes.*zebra"):
        check_teacher(pretrained, Examples(images, labels, (*NAMES[:9], "zebra"), "images"), "half")


@pytest.mark.parametrize("order", [(9, 8, 7, 6, 5, 4, 3, 2, 1, 0), (0, 2, 1, 3, 4, 5, 6, 7, 8, 9)])
def test_a_wrong_order_of_the_classes_is_refused(folder: Path, order: tuple[int, ...]) -> None:
    wrong = tuple(NAMES[i] for i in order)
    teacher = load_pretrained(str(folder), None, 10, 8)
    for names in (wrong, None):
        columns = list(range(10)) if names else list(order)
        network = nn.Sequential(teacher.network, _Columns(columns))
        with pytest.raises(AttarError, match=r"in another order of its classes 9\d.*`teacher_classes`"):
            tried(replace(teacher, network=network, classes=names))


class _Columns(nn.Module):
    def __init__(self, columns: list[int]) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.columns]


@pytest.mark.parametrize("seed", range(4))
def test_chance_is_refused_as_such(folder: Path, seed: int) -> None:
    teacher = load_pretrained(str(folder), None, 10, 8)
    with pytest.raises(AttarError, match="which is chance"):
        tried(replace(teacher, network=build("convnet3-w8", 10, 8, seed)))


class _Reader(nn.Module):
    """Says the class that is written into an image: 20 levels of grey for each."""

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, :1, 0, 0] * 255 / 20 - torch.arange(10)).abs()


@pytest.mark.parametrize(
    ("own", "next_one", "outcome"),
    [(0.3, 0.05, "passes"), (0.3, 0.45, "passes"), (0.08, 0.3, "which is chance"), (0.05, 0.7, "in another order")],
)
def test_a_poor_teacher_is_not_one_in_a_wrong_order(own: float, next_one: float, outcome: str) -> None:
    """It says an image's own class, or the next one, so often; else any."""
    rng, labels = np.random.default_rng(0), torch.arange(1000) % 10
    drawn = torch.tensor(rng.random(1000))
    any_one = torch.tensor(rng.integers(10, size=1000))
    said = torch.where(drawn < own, labels, torch.where(drawn < own + next_one, (labels + 1) % 10, any_one))
    images = (20 * said).to(torch.uint8)[:, None, None, None].expand(-1, 2, 2, 3)
    teacher = Pretrained("mine", _Reader(), NAMES, None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 10)
    if outcome == "passes":
        assert 25 < check_teacher(teacher, Examples(images, labels, NAMES, "images"), "half").accuracy < 45
        return
    with pytest.raises(AttarError, match=outcome):
        check_teacher(teacher, Examples(images, labels, NAMES, "images"), "half")


def called(labels: Tensor, order: Mapping[int, int], share: float = 1.0, seed: int = 0) -> Tensor:
    """What a teacher in that order says of images, right in so many of them; else it says any class."""
    rng = np.random.default_rng(seed)
    own = torch.tensor([order.get(label, label) for label in range(int(labels.max()) + 1)])
    any_one = torch.tensor(rng.integers(len(own), size=len(labels)))
    return torch.where(torch.tensor(rng.random(len(labels)) < share), own[labels], any_one)


def reading(said: Tensor, labels: Tensor, classes: tuple[str, ...]) -> SingleTeacher:
    """The check of a teacher that says that of images."""
    images = (20 * said).to(torch.uint8)[:, None, None, None].expand(-1, 2, 2, 3)
    teacher = Pretrained("mine", _Reader(), classes, None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 10)
    return check_teacher(teacher, Examples(images, labels, classes, "images"), "half")


ANIMALS = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.mark.parametrize(
    ("order", "each", "share", "words"),
    [
        ({3: 5, 5: 3}, 6, 1.0, "80.0 % right on 60 .* it calls most 'cat' images 'dog', most 'dog' images 'cat'"),
        ({3: 5, 5: 3}, 50, 0.7, "it calls most 'cat' images 'dog', most 'dog' images 'cat'"),
        ({3: 5, 5: 4, 4: 3}, 6, 1.0, "most 'cat' images 'dog', most 'deer' images 'cat', most 'dog' images 'deer'"),
        ({3: 5, 5: 3, 0: 1, 1: 0}, 6, 1.0, "most 'plane' images 'car', most 'car' images 'plane', most 'cat' images"),
        ({k: (k + 1) % 10 for k in range(10)}, 6, 0.8, "and 7 more: its classes are shifted by 1"),
        ({k: (k - 1) % 10 for k in range(10)}, 50, 0.6, "its classes are shifted by 9"),
        ({k: sorted(ANIMALS).index(name) for k, name in enumerate(ANIMALS)}, 6, 1.0, "are in alphabetical order"),
        ({k: sorted(ANIMALS).index(name) for k, name in enumerate(ANIMALS)}, 50, 0.6, "are in alphabetical order"),
    ],
)
def test_classes_that_are_called_by_each_others_names(
    order: dict[int, int], each: int, share: float, words: str
) -> None:
    labels = torch.arange(10 * each) % 10
    with pytest.raises(AttarError, match=f"{words}.* `teacher_classes` FILE"):
        reading(called(labels, order, share), labels, ANIMALS)


def test_errors_that_do_not_come_back_are_no_wrong_order() -> None:
    """A weak teacher calls half of the cats, and of every odd class, by the name of one that it mostly knows."""
    for seed in range(100):
        labels = torch.arange(200) % 10
        rng = np.random.default_rng(seed)
        known = torch.tensor(rng.random(200)) < torch.where(labels % 2 == 0, 0.45, 0.3)
        similar = torch.where(labels % 2 == 0, torch.tensor(rng.integers(10, size=200)), labels - 1)
        said = torch.where(known, labels, similar)
        assert 25 < reading(said, labels, ANIMALS).accuracy < 55


def test_few_false_alarms_where_pairs_cannot_be_told_apart() -> None:
    """The worst case of the head of check.py: five pairs, of each of which both names are as likely."""
    labels = torch.arange(60) % 10
    alarms = 0
    for seed in range(2000):
        either = torch.tensor(np.random.default_rng(seed).integers(2, size=60))
        alarms += bool(check._rings(torch.where(either == 1, labels ^ 1, labels), labels, 10))
    assert alarms <= 2000 / 740 + 4


def test_logits_that_are_no_numbers_are_refused(folder: Path) -> None:
    teacher = load_pretrained(str(folder), None, 10, 8)
    with torch.no_grad():
        next(teacher.network.parameters()).fill_(float("nan"))
    with pytest.raises(AttarError, match="its logits are not finite numbers; its weights are broken"):
        tried(teacher)


def test_a_wrong_normalisation_is_refused() -> None:
    class Threshold(nn.Module):
        """Tells black from white images by the sign of their normalised mean: right for "half" alone."""

        def forward(self, x: Tensor) -> Tensor:
            grey = x.mean((1, 2, 3))
            return torch.stack([-grey.abs(), grey.abs() - 0.3], 1)

    images = torch.full((60, 8, 8, 3), 127, dtype=torch.uint8)
    images[30:] = torch.tensor([175, 170, 165], dtype=torch.uint8)
    labels = (torch.arange(60) >= 30).long()
    teacher = Pretrained("mine", Threshold(), ("grey", "light"), None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 2)
    examples = Examples(images, labels, ("grey", "light"), "pictures")
    with pytest.raises(AttarError, match=r"50.0 % right on 60 pictures; with its input .* `teacher_normalise`"):
        check_teacher(teacher, examples, "imagenet")
    mean, std = STATISTICS["half"]
    fine = check_teacher(replace(teacher, mean=mean, std=std), examples, "imagenet")
    assert fine.accuracy == 100


def test_views_are_normalised_and_resized_for_the_teacher() -> None:
    class Same(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    images = torch.randint(0, 256, (3, 4, 4, 3), dtype=torch.uint8)
    mean, std = STATISTICS["imagenet"]
    labeller = SingleTeacher(Pretrained("x", Same(), None, None, mean, std, 48), "cifar", range(48))
    torch.testing.assert_close(labeller(normalised(images, "cifar")), normalised(images, "imagenet").flatten(1))
    smaller = SingleTeacher(Pretrained("x", Same(), None, 2, mean, std, 12), "cifar", range(12))
    assert smaller(normalised(images, "cifar")).shape == (3, 12)
    assert smaller.digest != SingleTeacher(smaller.pretrained, "half", range(12)).digest


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_checkpoints(folder: Path, tmp_path: Path, suffix: str, wrapped: bool) -> None:
    state = load_file(folder / "model.safetensors")
    file = tmp_path / f"weights.{suffix}"
    if wrapped:
        state = {f"module.{name}": value for name, value in state.items()}
    if suffix == "pth":
        torch.save({"state_dict": state} if wrapped else state, file)
    else:
        save_file(state, file)
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    teacher = load_pretrained(f"convnet3-bn-w16:{file}", tmp_path / "classes.txt", 3, 8, "cifar")
    assert tried(teacher).accuracy == tried(load_pretrained(str(folder), None, 10, 8)).accuracy
    with pytest.raises(AttarError, match="not the weights of this network"):
        load_pretrained(f"convnet3-bn-w8:{file}", None, 10, 8)


class _Published(nn.Module):
    """RDED's ConvNet (synthesize/models.py, and D3HR's validation/models/convnet.py): lists of layers by their kind."""

    def __init__(self, classes: int, size: int, depth: int, width: int = 128) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width if block else 3, width, 3, padding=1) for block in range(depth)]
        norms = [nn.BatchNorm2d(width) for _ in range(depth)]
        self.layers = nn.ModuleDict({"conv": nn.ModuleList(convolutions), "norm": nn.ModuleList(norms)})
        self.classifier = nn.Linear(width * (size >> depth) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        for convolution, norm in zip(
            *(cast("nn.ModuleList", self.layers[kind]) for kind in ("conv", "norm")), strict=True
        ):
            x = nn.functional.avg_pool2d(norm(convolution(x)).relu(), 2)
        return cast("Tensor", self.classifier(x.flatten(1)))


@pytest.mark.parametrize("depth", [3, 4, 5, 6])
def test_published_convnets(depth: int, tmp_path: Path) -> None:
    size = max(16, 2**depth)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, images = _Published(7, size, depth).eval(), torch.randn(2, 3, size, size)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean = torch.randn_like(norm.weight)
    torch.save({"model": network.state_dict(), "epoch": 3}, tmp_path / "conv.pth")
    teacher = load_pretrained(f"convnet{depth}-bn:{tmp_path / 'conv.pth'}", None, 7, size)
    with torch.no_grad():
        torch.testing.assert_close(teacher.network(images), network(images))
    with pytest.raises(
        AttarError, match=r"conv.pth as convnet3-bn-w8 for 7 classes and 16-pixel images: these are not"
    ):
        load_pretrained(f"convnet3-bn-w8:{tmp_path / 'conv.pth'}", None, 7, 16)


def test_a_published_resnet(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    network = resnet18(weights=None)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    network.fc.weight.data, network.fc.bias.data = network.fc.weight.data[:10], network.fc.bias.data[:10]
    torch.save({"model": network.state_dict()}, tmp_path / "resnet.pth")
    teacher = load_pretrained(f"resnet18-modified:{tmp_path / 'resnet.pth'}", None, 10, 32)
    images = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(teacher.network(images), network.eval()(images))


class _Alien:
    """A class of its own."""


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_checkpoints_with_the_arguments_of_their_training(prefix: str, folder: Path, tmp_path: Path) -> None:
    state = {prefix + name: value for name, value in load_file(folder / "model.safetensors").items()}
    told = argparse.Namespace(lr=0.1, data="/data", layers=[1, 2])
    for place, whole in enumerate(({"state_dict": state, "args": told}, {**state}, {"model": state, "epoch": 9})):
        torch.save(whole, tmp_path / f"{place}.pth")
        teacher = load_pretrained(f"convnet3-bn-w16:{tmp_path / f'{place}.pth'}", None, 10, 8, "cifar")
        assert digest_of(teacher.network) == digest_of(load_pretrained(str(folder), None, 10, 8).network)
    torch.save({"state_dict": state, "args": _Alien()}, tmp_path / "alien.pth")
    with pytest.raises(AttarError, match="without running code in it"):
        load_pretrained(f"convnet3-bn-w16:{tmp_path / 'alien.pth'}", None, 10, 8)
    torch.save({"args": told}, tmp_path / "none.pth")
    with pytest.raises(AttarError, match=r"none\.pth: holds no state dict"):
        load_pretrained(f"convnet3-bn-w16:{tmp_path / 'none.pth'}", None, 10, 8)


def test_a_local_timm_model_with_its_label_names(tmp_path: Path) -> None:
    import timm

    network = timm.create_model("resnet10t", num_classes=3)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architecture": "resnet10t",
        "num_classes": 3,
        "pretrained_cfg": {"num_classes": 3, "mean": [0.5] * 3, "std": [0.4] * 3, "input_size": [3, 64, 64]},
        "label_names": ["ant", "bee", "cat"],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    teacher = load_pretrained(f"timm/local-dir:{tmp_path}", None, 3, 64)
    assert (teacher.outputs, teacher.size, teacher.mean, teacher.std) == (3, 64, (0.5,) * 3, (0.4,) * 3)
    assert teacher.classes == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "ant\n bee \n\ncat\n"),
        ("a.json", '["ant", "bee", "cat"]'),
        ("a.toml", 'classes = ["ant", "bee", "cat"]'),
    ],
)
def test_class_lists(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_classes(tmp_path / name) == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("name", "text"), [("a.txt", ""), ("a.json", '{"ant": 0}'), ("a.toml", "x"), ("b.txt", "a\na")]
)
def test_bad_class_lists(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(AttarError, match="`teacher_classes`"):
        read_classes(tmp_path / name)


def _altered(folder: Path) -> str:
    (folder / "model.safetensors").write_bytes(b"x")
    return str(folder)


def _emptied(folder: Path) -> str:
    (folder / "teacher.json").unlink()
    return str(folder)


def _cut_short(folder: Path) -> str:
    about = json.loads((folder / "teacher.json").read_text())
    (folder / "teacher.json").write_text(json.dumps({**about, "size": "8"}))
    return str(folder)


def _pickled(folder: Path) -> str:
    torch.save({"network": build("convnet3-w8", 10, 8, 0)}, folder / "whole.pth")
    return f"convnet3-w8:{folder / 'whole.pth'}"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_altered, "not what teacher.json says"),
        (_emptied, "holds no teacher"),
        (_cut_short, 'teacher.json is damaged: size is "8", not a whole number'),
        (_pickled, "without running code"),
        (lambda folder: "nowhere", "no such folder"),
        (lambda folder: "convnet3:nowhere.pth", "no file nowhere.pth"),
        (lambda folder: "convnet33:nowhere.pth", "no network is called"),
        (lambda folder: "timm/no_such_network", "timm has no network"),
        (lambda folder: "timm/resnet18x", r"did you mean 'timm/resnet18'"),
        (lambda folder: "torchvision/resnet18x", r"did you mean 'torchvision/resnet18'"),
        (lambda folder: "torchvision/no_such_network", "torchvision has no network"),
    ],
)
def test_no_such_teacher(harm: Callable[[Path], str], message: str, folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(AttarError, match=message):
        load_pretrained(harm(tmp_path), None, 10, 8)


def test_whitening_whitens_smooth_colours() -> None:
    """Patches with the table's own deviations come out with about unit deviation, in every direction."""
    layer = Whitening()
    assert layer.weight.shape == (24, 3, 2, 2)
    assert not list(layer.parameters())
    directions = layer.weight[:12].flatten(1)
    inverse = torch.linalg.inv(directions)
    patches = (torch.randn(20_000, 12, generator=torch.Generator().manual_seed(0)) @ inverse.T).view(-1, 3, 2, 2)
    found = layer(patches)[:, :, 0, 0]
    torch.testing.assert_close(found[:, :12].std(0), torch.ones(12), rtol=0.03, atol=0)
    torch.testing.assert_close(found[:, 12:], -found[:, :12])


def test_from_the_command_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        attar(
            monkeypatch,
            *["distill", "--data", "digits", "--method", "random", "--ipc", "2", "--seed", "1", "--out", "set"],
        )
        == 0
    )
    fkd = ["--recipe", "fkd-soft-cifar", "--set", "flip=false", "--set", "epochs=4"]
    common = ["--network", "convnet3-w8", "--seeds", 1, "--device", "cpu", "--json", "r.json"]
    relabelled = [
        "relabel",
        "set",
        "--teacher",
        folder,
        *fkd,
        "--scheme",
        "int8",
        "--label-epochs",
        2,
        "--out",
        "labels",
    ]
    assert attar(monkeypatch, *relabelled, "--device", "cpu") == 0
    assert "40 views (2 epochs), 480 bytes as int8" in capsys.readouterr().out
    assert attar(monkeypatch, *relabelled, "--device", "cpu") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert attar(monkeypatch, "evaluate", "set", "--labels", "labels", *common) == 0
    assert attar(monkeypatch, "evaluate", "set", "--teacher", folder, *fkd, *common) == 0
    assert attar(monkeypatch, "evaluate", "set", "--teacher", folder, *fkd, *common) == 0
    stored, fp16 = json.loads((tmp_path / "r.json").read_text())
    assert stored["changes"] == {"scheme": "int8", "label_epochs": 2, "epochs": 4, "flip": False}
    assert stored["labels"]["bytes"] == stored["baseline"]["labels"]["bytes"] == 480
    assert stored["teacher"] == fp16["teacher"]
    assert stored["teacher"]["accuracy"] > 85
    assert (fp16["labels"]["scheme"], fp16["labels"]["bytes"]) == ("fp16", 4 * 20 * 20)
    rded = ["--recipe", "rded-soft-cifar", "--set", "flip=false", "--set", "epochs=2", "--no-baseline"]
    assert attar(monkeypatch, "evaluate", "set", "--teacher", folder, *rded, *common) == 0
    assert (
        attar(monkeypatch, *["distill", "--data", "digits", "--method", "random", "--ipc", "3", "--out", "other"]) == 0
    )
    capsys.readouterr()
    errors: list[tuple[list[Any], str]] = [
        (["evaluate", "other", "--labels", "labels"], "of other images"),
        (["evaluate", "set", "--recipe", "fkd-soft-cifar"], "name the teacher with --teacher"),
        (["evaluate", "set", "--teacher", folder], "learns from hard labels, without --teacher"),
        (["evaluate", "set", "--labels", "labels", "--recipe", "rded-soft-cifar"], "views = image"),
        (["evaluate", "set", "--teacher-normalise", "half"], "a --teacher, which is missing"),
        (["relabel", "set", "--out", "new"], "--teacher is missing"),
        (["relabel", "set", "--teacher", folder, "--recipe", "rded-soft-cifar", "--out", "new"], "stores no labels"),
        (
            ["relabel", "other", "--teacher", folder, *fkd, "--out", "labels"],
            "in another scheme: choose another folder, or",
        ),
        (["relabel", "set", "--teacher", "nobody", *fkd, "--out", "set"], "--out set is not empty, and holds no whole"),
        (["evaluate", "set", "other", "--labels", "labels"], "labels are of one set, and 2 were given"),
        (["evaluate", "set", "--labels", "labels", "--set", "normalise=half"], "another normalise or class order"),
    ]
    for words, message in errors:
        assert attar(monkeypatch, *words) == 2, words
        assert message in " ".join(capsys.readouterr().err.split()), words


def test_labels_find_their_teacher_from_another_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "teacher")
    (tmp_path / "elsewhere").mkdir()
    fkd = ["--recipe", "fkd-soft-cifar", "--set", "flip=false", "--set", "epochs=1", "--device", "cpu"]
    assert attar(monkeypatch, *["distill", "--data", "digits", "--method", "random", "--ipc", 1, "--out", "set"]) == 0
    assert attar(monkeypatch, *["relabel", "set", "--teacher", "teacher", *fkd, "--out", "labels"]) == 0
    monkeypatch.chdir("elsewhere")
    quick = ["--network", "convnet3-w8", "--seeds", 1, "--device", "cpu"]
    evaluated = ["evaluate", "../set", "--labels", "../labels", *quick]
    assert attar(monkeypatch, *evaluated) == 0
    shutil.rmtree(tmp_path / "teacher")
    assert attar(monkeypatch, *evaluated) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"the labels' teacher {tmp_path / 'teacher'} is not here" in told
    assert attar(monkeypatch, *evaluated, "--no-baseline") == 0


def test_a_teachers_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert TeacherReference("mine").anywhere == TeacherReference(str(tmp_path / "mine"))
    assert TeacherReference("timm/resnet18", "a.txt", "half").anywhere == TeacherReference(
        "timm/resnet18", str(tmp_path / "a.txt"), "half"
    )
    assert TeacherReference("convnet3:w.pth").anywhere == TeacherReference(f"convnet3:{tmp_path / 'w.pth'}")


def test_a_weak_teacher_is_told_of() -> None:
    labels = torch.arange(500) % 10
    weak = reading(called(labels, {}, 0.3), labels, ANIMALS)
    share = f"{weak.accuracy:.1f} % right on 500 images, 10.0 % by chance"
    assert weak.weak == f"mine is a weak teacher: {share}; it calls most images by another class's name"
    assert weak.restricted([1, 2]).weak == weak.weak
    assert reading(called(labels, {}, 0.6), labels, ANIMALS).weak == ""


def test_a_weak_teacher_is_told_of_once_before_the_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("attar.teachers.check._weakness", lambda *_: "it is weak")
    herded = ["--method", "herding", "--set", f"select.teacher={folder}", "--ipc", "1,2", "--out", "sets"]
    soft = ["--recipe", "fkd-soft-cifar", "--set", "flip=false", "--set", "epochs=1"]
    labelled, trained = ["--out", "labels"], ["--network", "convnet3-w8", "--seeds", "1", "--no-baseline"]
    commands: list[tuple[list[str], str]] = [
        (["distill", "--data", "digits", *herded], "copied"),
        (["evaluate", "sets", "--teacher", str(folder), *soft, *trained], "n = 1"),
        (["relabel", "sets/ipc-001", "--teacher", str(folder), *soft, *labelled], "labelling takes"),
    ]
    for words, work in commands:
        assert attar(monkeypatch, *words, "--device", "cpu") == 0
        told = capsys.readouterr().out
        assert told.count("note: it is weak") == 1, told
        assert told.index("note: it is weak") < told.index(work)
    assert "and so do its labels: train it for longer, or name a better one" in told
    assert attar(monkeypatch, *commands[0][0], "--device", "cpu") == 0
    assert "note" not in capsys.readouterr().out, "nothing is left to do"
