"""Fixed soft labels: one an image, of the whole of it; what students are told of their views, and from where."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from toys import attar

import attar as house
from attar.core.errors import AttarError
from attar.core.progress import silent
from attar.core.store import Store
from attar.evaluation import RECIPES, LabelledImages, Students, evaluate, modified, named_recipe
from attar.evaluation.load_images import images_of_set
from attar.evaluation.relabel import Relabelling, relabel
from attar.evaluation.teaching import labelled_recipe
from attar.experiments import waterfall_steps as steps
from attar.experiments.spec import read_experiment
from attar.networks import build
from attar.sets.distilled import open_distilled
from attar.teachers import train as training
from attar.teachers.reference import TeacherReference
from attar.teachers.settings import TeacherTraining
from attar.teachers.soft_labels import StoredLabels, Views
from attar.teachers.teacher import Ensemble, Pretrained, SingleTeacher
from attar.teachers.train import train_teacher
from attar.training import Plan, Step, Supervision, train
from attar.training.augment import Augmentation, normalised
from attar.training.checkpoint import Checkpoint

CLASSES = tuple("abcde")
QUICK = named_recipe("quick", {"steps": 4, "warmup": 0, "scheme": "fixed"})
SPEC = TeacherTraining("digits", "convnet3-bn-w16", flip=False, shift=1, epochs=6, batch=64, lr=0.25, device="cpu")
EARLY = replace(SPEC, stop_at=0.7)


def quiet(text: str) -> None:
    """Says nothing."""


def pixels(n: int = 20, side: int = 8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def pictures(n: int = 20, side: int = 8) -> LabelledImages:
    return LabelledImages(pixels(n, side), np.arange(n) % 5, CLASSES)


def network(seed: int = 3) -> nn.Module:
    return build("convnet3-bn-w8", 5, 8, seed).eval()


def probabilities(n: int = 20) -> Tensor:
    return (3 * torch.randn(n, 5, generator=torch.Generator().manual_seed(2))).softmax(1)


class Noted:
    """The loss and the number of views named as they were taught, of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.correct: list[int] = []

    def __call__(self, step: Step) -> None:
        self.losses.append(float(step.loss))
        self.correct.append(int(step.correct))


def first_step(student: nn.Module, labels: Tensor, how: Augmentation, views: Views | None = None) -> Noted:
    noted, plan = Noted(), Plan(steps=1, batch=20, lr=0.01)
    train(student, torch.tensor(pixels()), labels, plan, how, 0, supervision=Supervision(views=views), after=noted)
    return noted


def test_the_loss_is_the_cross_entropy_with_the_images_own_probabilities() -> None:
    student, labels = build("convnet3-w8", 5, 8, 0), probabilities()
    with torch.no_grad():
        logits = student(normalised(torch.tensor(pixels()), "half")).double()
    expected = -(labels * logits.log_softmax(1)).sum(1).mean()
    noted = first_step(student, labels, Augmentation(8, normalise="half"))
    assert noted.losses[0] == pytest.approx(float(expected), rel=1e-5)
    assert noted.correct == [int((logits.argmax(1) == labels.argmax(1)).sum())]


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
def test_the_labels_of_mixed_views_are_mixed_by_the_same_weights(mix: Any) -> None:
    how, student, labels = Augmentation(8, normalise="half", mix=mix), build("convnet3-w8", 5, 8, 0), probabilities()
    views = Views(how, 20, epochs=1)
    shown = views(torch.tensor(pixels()), 0, torch.arange(20))
    assert shown.partner is not None
    assert shown.own is not None
    expected = 0.0
    for view, own, weight, partner in zip(shown.view, labels, shown.own[:, 0].tolist(), shown.partner, strict=True):
        with torch.no_grad():
            told = student(view[None]).double().log_softmax(1)[0]
        expected += float(-((weight * own + (1 - weight) * labels[partner]) * told).sum()) / 20
    assert first_step(student, labels, how, views).losses[0] == pytest.approx(expected, rel=1e-4)


def weights(labels: Tensor, how: Augmentation) -> Tensor:
    student, plan = build("convnet3-w8", 5, 8, 0), Plan(steps=8, batch=6, lr=0.05, label_smoothing=0.1)
    train(student, torch.tensor(pixels()), labels, plan, how, 0)
    return torch.cat([p.detach().flatten() for p in student.parameters()])


def test_certain_labels_are_hard_labels() -> None:
    how = Augmentation(8, crop=0.5, flip=True, mix="cutmix", mix_probability=0.5)
    hard = torch.arange(20) % 5
    torch.testing.assert_close(weights(F.one_hot(hard).float(), how), weights(hard, how), rtol=0, atol=1e-5)
    assert (weights(probabilities(), how) - weights(hard, how)).abs().max() > 1e-3


def test_a_label_is_the_teachers_for_the_whole_image(store: Store) -> None:
    students = Students(pictures(), pictures(), QUICK, "convnet3-w8", "cpu", network(), store=store)
    found = evaluate(students, (0, 1))
    assert found.labels is not None
    assert (found.labels["scheme"], found.labels["epochs"], found.labels["bytes"]) == ("fixed", 1, 20 * 5 * 2)
    (folder,) = [path for path in (store.root / "soft-labels").iterdir() if path.is_dir()]
    stored = StoredLabels(folder)
    assert (stored.fixed, stored.count) == (True, 20)
    with torch.no_grad():
        logits = network()(normalised(torch.tensor(pixels()), "imagenet"))
    assert students.soft is not None
    torch.testing.assert_close(students.soft.of_images(stored), (logits / 2).softmax(1), rtol=1e-3, atol=1e-4)


def test_labels_depend_on_no_recipe(store: Store) -> None:
    common: dict[str, Any] = {"network": "convnet3-w8", "device": "cpu", "store": store}
    found = []
    for recipe in ("quick", "rded-soft-cifar", "fkd-soft-cifar", "minimax-hard-cifar"):
        length = {"steps": 2} if recipe == "quick" else {"epochs": 2}
        asked = named_recipe(recipe, {**length, "warmup": 0, "size": None, "scheme": "fixed", "test_every": None})
        assert (asked.labels, asked.temperature) == ("soft", 2.0)
        evaluate(Students(pictures(), pictures(), asked, teacher=network(), **common), (0,))
        (folder,) = [path for path in (store.root / "soft-labels").iterdir() if path.is_dir()]
        given = Students(pictures(), pictures(), asked, labels=StoredLabels(folder), **common)
        found.append(evaluate(given, (0,)).labels)
    assert len({labels["bytes"] for labels in found if labels is not None}) == 1


def test_bytes_of_the_schemes() -> None:
    common: dict[str, Any] = {"network": "convnet3-w8", "device": "cpu", "teacher": network()}
    for scheme, row in (("fixed", 10), ("fixed-int8", 7), ("fixed-int4", 5), ("fixed-top2-int8", 2 + 2 + 2 + 2)):
        students = Students(pictures(), pictures(), modified(QUICK, {"scheme": scheme}), **common)
        assert students.soft is not None
        assert students.soft.record()["bytes"] == 20 * row
        assert students.soft.labelling is not None
        assert students.soft.labelling.scheme.fixed_name == scheme


def single(side: int | None) -> SingleTeacher:
    known = Pretrained("one", network(), None, side, None, None, 5)
    return SingleTeacher(known, "imagenet", range(5)).eval()


def test_images_are_asked_at_the_size_that_the_teacher_knows() -> None:
    for teacher, side in ((single(16), 16), (single(None), 8), (Ensemble([single(12), single(16)]), 16)):
        students = Students(pictures(), pictures(), QUICK, "convnet3-w8", "cpu", teacher.eval())
        assert students.soft is not None
        assert students.soft.views is not None
        assert students.soft.views.how.size == side
        asked = students.labelled
        assert isinstance(asked, Tensor)
        assert asked.shape == (20, side, side, 3)


def test_labels_of_something_else_are_refused(store: Store) -> None:
    common: dict[str, Any] = {"network": "convnet3-w8", "device": "cpu"}
    evaluate(Students(pictures(), pictures(), QUICK, teacher=network(), store=store, **common), (0,))
    (folder,) = [path for path in (store.root / "soft-labels").iterdir() if path.is_dir()]
    given = StoredLabels(folder)
    fkd = named_recipe("fkd-soft-cifar", {"epochs": 2})
    for train_set, recipe, teacher, message in (
        (pictures(19), QUICK, None, r"of other views \(count 19 here, 20 there\) and of other images"),
        (pictures(), QUICK, network(4), "by another teacher"),
        (pictures(), modified(QUICK, {"scheme": "fixed-int8"}), None, "in another scheme"),
        (pictures(), fkd, None, "holds a label an image: set scheme = fixed of recipe fkd-soft-cifar"),
    ):
        students = Students(train_set, pictures(), recipe, teacher=teacher, labels=given, **common)
        with pytest.raises(AttarError, match=message):
            evaluate(students, (0,))
    other = Store(store.root / "other")
    evaluate(Students(pictures(), pictures(), fkd, teacher=network(), store=other, **common), (0,))
    (folder,) = [path for path in (other.root / "soft-labels").iterdir() if path.is_dir()]
    with pytest.raises(AttarError, match="holds labels of views, and recipe quick"):
        evaluate(Students(pictures(), pictures(), QUICK, labels=StoredLabels(folder), **common), (0,))


def test_what_a_fixed_scheme_brings_along_and_cannot_be_with() -> None:
    recipe = named_recipe("quick", {"scheme": "fixed-int8"})
    assert (recipe.labels, recipe.temperature, recipe.fixed) == ("soft", 2.0, True)
    assert modified(recipe, {"temperature": 4}).temperature == 4.0
    assert modified(modified(recipe, {"temperature": 4}), {"scheme": "fixed"}).temperature == 4.0
    assert named_recipe("rded-soft", {"scheme": "fixed", "temperature": "1.5"}).temperature == 1.5
    for changes in ({"labels": "hard"}, {"label_epochs": 2}):
        with pytest.raises(AttarError, match="fixed labels need labels = soft, and are the same in every epoch"):
            named_recipe("quick", {"scheme": "fixed", **changes})
    with pytest.raises(AttarError, match="fixed, or fixed-int8"):
        named_recipe("quick", {"scheme": "fixed-int9"})


def test_steps_of_a_waterfall_to_fixed_labels() -> None:
    quick, rded = RECIPES.open("quick"), RECIPES.open("rded-soft-cifar")
    (_, step) = steps.around(quick, [{"scheme": "fixed"}])
    assert step.changes.keys() == {"scheme", "labels", "temperature"}
    hot = modified(rded, {"scheme": "fixed", "temperature": 20.0, "crop": 0.5, "batch": 10})
    assert all(one.recipe.temperature == 20.0 for one in steps.steps_between(rded, hot))


def test_squares_and_whole_images_have_the_same_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number, size in enumerate([(12, 16), (16, 12), (14, 20)]):
            shown = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(shown).save(tmp_path / "data" / name / f"{number}.png")
    assert attar(monkeypatch, "distill", "--data", "data", "--method", "random", "--ipc", 3, "--out", "set") == 0
    distilled = open_distilled(Path("set"))
    squares, whole = images_of_set(distilled, QUICK), images_of_set(distilled, modified(QUICK, {"size": 8}))
    assert squares.digest != whole.digest
    assert squares.whole.digest == whole.whole.digest


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of the digits that was stopped early."""
    root = tmp_path_factory.mktemp("early")
    train_teacher(EARLY, root / "out", store=Store(root / "cache"), say=quiet)
    return root / "out"


def test_a_teacher_stops_as_soon_as_it_knows_enough(taught: Path) -> None:
    about = json.loads((taught / "teacher.json").read_text())
    assert 70 <= about["held_out"]["accuracy"] < 99
    assert about["stopped"]["of"] == 6 * 20
    assert about["stopped"]["step"] % 5 == 0
    assert 0 < about["stopped"]["step"] < 60
    assert about["settings"]["stop_at"] == 0.7


def test_what_is_said_of_a_teacher_that_may_stop_early(taught: Path, tmp_path: Path) -> None:
    said: list[str] = []
    never = replace(SPEC, stop_at=1.0, epochs=1)
    train_teacher(never, tmp_path / "out", store=Store(tmp_path), say=said.append, dry_run=True)
    assert ": at most " in said[-1]
    assert said[-1].endswith("it ends when 100 % of those held out are right, looked at every 5 steps")
    train_teacher(never, tmp_path / "out", store=Store(tmp_path), say=said.append)
    assert said[-1].endswith("it never reached 100 %, and was trained to the end")
    assert "stopped" not in json.loads((tmp_path / "out" / "teacher.json").read_text())
    train_teacher(EARLY, tmp_path / "again", store=Store(taught.parent / "cache"), say=said.append)
    assert "; stopped after " in said[-1]
    for wrong in (0.0, 56.0):
        with pytest.raises(AttarError, match="stop_at"):
            replace(SPEC, stop_at=wrong)


def test_a_stop_that_was_interrupted_comes_at_the_same_step(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Eager(Checkpoint):
        def __init__(self, scratch: Path, **more: Any) -> None:
            super().__init__(scratch, seconds=0.0, **more)

    step = json.loads((taught / "teacher.json").read_text())["stopped"]["step"]

    def stop(text: str, fraction: float) -> None:
        if "step" in text and fraction > (step - 2) / 120:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "Checkpoint", Eager)
    monkeypatch.setattr("attar.training.meters.SECONDS", 0.0)
    store, out, spec = Store(tmp_path / "cache"), tmp_path / "out", EARLY
    with pytest.raises(KeyboardInterrupt):
        train_teacher(spec, out, store=store, progress=stop, say=quiet)
    train_teacher(spec, out, store=store, say=quiet)
    whole, resumed = (load_file(where / "model.safetensors") for where in (taught, out))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert json.loads((out / "teacher.json").read_text())["stopped"]["step"] == step


def test_teachers_that_do_not_stop_keep_their_key() -> None:
    recorded = [training._Bench(spec, silent, Store()).artefact.recorded["settings"] for spec in (SPEC, EARLY)]
    assert "stop_at" not in recorded[0]
    assert recorded[1] == {**recorded[0], "stop_at": 0.7}


def test_from_the_command_line_and_python(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for out, seed in (("set", 1), ("other", 2)):
        words = ["distill", "--data", "digits", "--method", "random", "--ipc", 2, "--seed", seed, "--out", out]
        assert attar(monkeypatch, *words) == 0
    before = (tmp_path / "set" / "manifest.json").read_bytes()
    relabelled = ["relabel", "set", "--teacher", taught, "--scheme", "fixed", "--out", "labels", "--device", "cpu"]
    assert attar(monkeypatch, *relabelled, "--dry-run") == 0
    assert "labels of 20 images, 400 bytes as fixed" in capsys.readouterr().out
    assert attar(monkeypatch, *relabelled) == 0
    assert attar(monkeypatch, *relabelled) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (tmp_path / "set" / "manifest.json").read_bytes() == before
    manifest = json.loads((tmp_path / "labels" / "labels.json").read_text())
    assert manifest["labelling"]["views"]["count"] == 20
    assert "recipe" not in manifest
    harmed = tmp_path / "harmed"
    shutil.copytree(tmp_path / "labels", harmed)
    for part, name, value in (("labelling", "temperature", "warm"), ("views", "how", {"size": -1})):
        edited = json.loads(json.dumps(manifest))
        (edited["labelling"] if part == "labelling" else edited["labelling"][part])[name] = value
        (harmed / "labels.json").write_text(json.dumps(edited))
        with pytest.raises(AttarError, match=r"labels.json is damaged: labelling\.(temperature|views.how.size) is"):
            StoredLabels(harmed)

    common = ["--network", "convnet3-w8", "--seeds", 1, "--device", "cpu", "--json", "r.json"]
    quick, short = ["--set", "steps=4", "--set", "warmup=0"], ["--recipe", "rded-soft-cifar", "--set", "epochs=2"]
    assert attar(monkeypatch, "evaluate", "set", "--labels", "labels", *quick, *common) == 0
    asked = ["--teacher", taught, "--set", "scheme=fixed"]
    assert attar(monkeypatch, "evaluate", "set", *asked, *quick, *common, "--dry-run") == 0
    assert "1 in the cache, 0 to be done" in capsys.readouterr().out, "labels made on the way are the stored ones"
    assert attar(monkeypatch, "evaluate", "set", "--labels", "labels", *short, *common, "--no-baseline") == 0
    stored, rded = json.loads((tmp_path / "r.json").read_text())
    assert stored["changes"] == {"labels": "soft", "temperature": 2.0, "scheme": "fixed", "steps": 4, "warmup": 0}
    assert stored["labels"]["bytes"] == stored["baseline"]["labels"]["bytes"] == 400
    assert (rded["recipe"], rded["labels"]["scheme"]) == ("rded-soft-cifar (modified)", "fixed")
    (record,) = house.evaluate(
        "set",
        labels="labels",
        network="convnet3-w8",
        seeds=1,
        fields={"steps": 4, "warmup": 0},
        device="cpu",
        say=quiet,
    )
    assert record["accuracies"] == stored["accuracies"]

    capsys.readouterr()
    errors: list[tuple[list[Any], str]] = [
        (["evaluate", "other", "--labels", "labels"], "holds labels of other images"),
        (["evaluate", "set", "--labels", "labels", "--teacher", stronger(tmp_path)], "by another teacher than"),
        (
            ["evaluate", "set", "--labels", "labels", "--set", "scheme=online"],
            "holds a label an image: set scheme = fixed",
        ),
        (["evaluate", "set", "--set", "scheme=fixed"], "name the teacher with --teacher"),
        (["evaluate", "set", "--teacher", taught], "or set scheme = fixed"),
        (
            [*relabelled[:4], "--scheme", "fixed-int8", "--out", "labels"],
            "in another scheme: choose another folder, or",
        ),
    ]
    for words, message in errors:
        assert attar(monkeypatch, *words) == 2, words
        assert message in " ".join(capsys.readouterr().err.split()), words


def stronger(where: Path) -> Path:
    """A teacher of the digits that was not stopped early."""
    train_teacher(replace(SPEC, epochs=2), where / "stronger", store=Store(where / "cache"), say=quiet)
    return where / "stronger"


def test_the_largest_logits_keep_their_temperature(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert attar(monkeypatch, "distill", "--data", "digits", "--method", "random", "--ipc", 1, "--out", "set") == 0
    words = ["--teacher", taught, "--scheme", "fixed-top3-int8", "--set", "temperature=3", "--device", "cpu"]
    assert attar(monkeypatch, "relabel", "set", *words, "--out", "labels") == 0
    recipe = labelled_recipe(Path("labels"), None)
    assert (recipe.name, recipe.scheme, recipe.temperature) == ("quick (modified)", "fixed-top3-int8", 3.0)


def test_labels_stand_in_the_order_of_the_images_that_datasets_reads(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    assert attar(monkeypatch, "distill", "--data", "digits", "--method", "random", "--ipc", 3, "--out", "set") == 0
    words = ["relabel", "set", "--teacher", taught, "--scheme", "fixed", "--out", "labels", "--device", "cpu"]
    assert attar(monkeypatch, *words) == 0
    read = datasets.load_dataset("imagefolder", data_dir="set", split="train", cache_dir=str(tmp_path / "hf"))
    logits = load_file("labels/labels-00000.safetensors")["values"].float().numpy()
    read = read.add_column("logits", logits.tolist())
    ours = images_of_set(open_distilled(Path("set")), QUICK)
    for row, image, label, own in zip(read, ours.pixels, ours.labels, logits, strict=True):
        assert np.array_equal(np.asarray(row["image"].convert("RGB")), image)
        assert row["label"] == label
        assert row["logits"] == own.tolist()


def test_an_experiment_makes_them_on_the_way(taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"""
data = "digits"
ipc = 1
seeds = 1
out = "out"
device = "cpu"
[methods.random]
[evaluations.fixed]
recipe = "quick"
networks = ["convnet3-w8"]
teacher = "{taught}"
set = {{scheme = "fixed", steps = 2, warmup = 0}}
"""
    Path("e.toml").write_text(text)
    experiment = read_experiment(Path("e.toml"))
    assert experiment.evaluations[0].recipe.fixed
    assert attar(monkeypatch, "compare", "e.toml") == 0
    (record,) = json.loads(Path("out/results.json").read_text())
    assert record["labels"]["scheme"] == "fixed"
    Path("e.toml").write_text(text.replace("teacher =", "# teacher ="))
    with pytest.raises(AttarError, match="learns from soft labels: name a teacher"):
        read_experiment(Path("e.toml"))


def test_labels_that_another_process_wrote_meanwhile_are_kept(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attar(monkeypatch, "distill", "--data", "digits", "--method", "random", "--ipc", 2, "--out", "set")
    reference = TeacherReference(str(taught))
    asked = Relabelling(Path("set"), reference, named_recipe("fkd-soft", {"scheme": "fixed"}), "cpu")
    said = list[str]()

    def overtaken(ready: Any) -> float:
        with monkeypatch.context() as alone:
            alone.setattr("attar.evaluation.relabel._seconds", lambda ready: 1.0)
            relabel(asked, Path("labels"), say=quiet)
        return 1.0

    monkeypatch.setattr("attar.evaluation.relabel._seconds", overtaken)
    relabel(asked, Path("labels"), say=said.append)
    assert said[-1] == "labels is already there, and holds these labels: nothing to do"
    assert not list(tmp_path.glob(".*.partial"))
