"""Recipes as data, and the evaluator: determinism, resuming, sizes, errors."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from attar import training
from attar.core.config import by_ipc, by_network
from attar.core.errors import AttarError
from attar.core.progress import silent
from attar.core.store import Store, canonical
from attar.evaluation import RECIPES, LabelledImages, Recipe, Record, Students, changes, evaluate, evaluator, modified
from attar.evaluation.conditions import Conditions
from attar.evaluation.evaluator import training_plan
from attar.evaluation.labelled_images import resized
from attar.evaluation.records import ALL_DATA
from attar.evaluation.records_file import read_records, write_record
from attar.networks import build

TINY = modified(RECIPES.open("quick"), {"steps": 6, "warmup": 2, "flip": False, "batch": 16})


def digits(n: int, size: int = 8, first: int = 0) -> LabelledImages:
    """`n` digits, ten classes, grey as RGB, 8 pixels wide or enlarged by repeating pixels."""
    data = load_digits()
    grey = (data.images[first : first + n] * 255 / 16).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, -1).repeat(size // 8, 1).repeat(size // 8, 2)
    return LabelledImages(pixels, data.target[first : first + n].astype(np.int64), tuple("0123456789"))


TRAIN, TEST = digits(40), digits(90, first=400)


def run(
    recipe: Recipe = TINY, train: LabelledImages = TRAIN, test: LabelledImages = TEST, seeds: Any = (0,), **more: Any
) -> Any:
    more = {"network": "convnet3-w8", "device": "cpu", "progress": silent, **more}
    progress = more.pop("progress")
    return evaluate(Students(train, test, recipe, **more), seeds, progress)


@pytest.mark.slow
def test_quick_learns_the_digits() -> None:
    recipe = modified(RECIPES.open("quick"), {"flip": False, "steps": 150})
    found = run(recipe, digits(800), digits(600, first=1000), seeds=(0, 1), network="convnet3-bn-w32")
    assert found.mean > 85
    assert found.ipc == 80


def test_a_result_carries_its_terms() -> None:
    found = run(seeds=(3, 4, 5))
    assert (found.n_train, found.n_test, found.ipc) == (40, 90, 4.0)
    assert len(found.accuracies) == len(found.best) == 3
    assert found.mean == pytest.approx(statistics.fmean(found.accuracies))
    assert found.std == pytest.approx(float(np.std(found.accuracies, ddof=1)))
    assert found.recipe == "quick (modified)"
    entry = Record.of(found, set="", method="all data").as_json()
    assert json.loads(json.dumps(entry)) == entry
    assert run().std == 0.0


def test_a_network_that_did_not_learn_its_training_set_is_said(store: Store) -> None:
    recipe = replace(TINY, steps=60, mix="none", crop=None)
    alike = LabelledImages(np.full_like(TRAIN.pixels, 100), TRAIN.labels, TRAIN.classes)
    found = run(recipe, alike, seeds=(0, 1), store=store)
    assert found.unlearnt.startswith("2 of 2 networks did not learn their training set (")
    assert run(recipe, alike, seeds=(0, 1), store=store) == found, "the same is said of stored outcomes"
    assert run(recipe, network="convnet3-bn-w32").unlearnt == "", "10 digits, 4 images each, 60 steps"
    one = LabelledImages(TRAIN.pixels[:10], TRAIN.labels[:10], TRAIN.classes)
    assert run(replace(TINY, steps=30), one, network="convnet3-bn-w32").unlearnt == "", "an image a class, mixed"


def test_one_seed_one_accuracy() -> None:
    torch.manual_seed(1)
    one = run(seeds=(7, 8))
    torch.manual_seed(2)
    assert run(seeds=(8, 7)).accuracies == one.accuracies[::-1]


def test_best_is_beside_and_never_below_the_last() -> None:
    found = run(replace(TINY, steps=12, test_every="10%"), seeds=(0, 1))
    last_only = run(replace(TINY, steps=12), seeds=(0, 1))
    assert found.accuracies == last_only.accuracies == last_only.best
    assert all(best >= last for best, last in zip(found.best, found.accuracies, strict=True))


def test_a_result_keeps_all_tests_of_a_training_and_its_file_too(tmp_path: Path) -> None:
    recipe = replace(TINY, steps=12, test_every="25%")
    found, last_only = run(recipe, seeds=(0, 1)), run(replace(TINY, steps=12), seeds=(0, 1))
    assert [[step for step, _ in curve] for curve in found.curves] == [[3, 6, 9, 12]] * 2
    assert tuple(curve[-1][1] for curve in found.curves) == found.accuracies
    assert tuple(max(accuracy for _, accuracy in curve) for curve in found.curves) == found.best
    assert last_only.curves == ()
    for number, result in enumerate((found, last_only)):
        for alone in (Record.of(result, set="", method=ALL_DATA), Record.of(result, set="a", method="b", ipc=2)):
            write_record(tmp_path / f"alone-{number}.json", alone)
        assert len(read_records(tmp_path / f"alone-{number}.json")) == 2
        record = Record.of(result, set="", method=ALL_DATA, baseline=result)
        write_record(tmp_path / f"{number}.json", record)
        assert read_records(tmp_path / f"{number}.json") == [record]
        (entry,) = json.loads((tmp_path / f"{number}.json").read_text())
        assert ("curves" in entry, "curves" in entry["baseline"]) == (result is found,) * 2


@pytest.mark.parametrize("curves", [[[]], [[[1]]], [[[1, 140.0]]], [[[1, 5.0]], [[2, 5.0]]], [[[1, 5.0]]]])
def test_damaged_curves_are_named(tmp_path: Path, curves: list[Any]) -> None:
    file = tmp_path / "results.json"
    write_record(file, Record.of(run(replace(TINY, steps=2), seeds=(0, 1)), set="", method=ALL_DATA))
    (entry,) = json.loads(file.read_text())
    file.write_text(json.dumps([{**entry, "curves": curves}]))
    with pytest.raises(AttarError, match=r"entry 0 is not a result \(.*curves"):
        read_records(file)


def test_tests_fall_where_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[float] = []

    def counting(*_: Any, **__: Any) -> float:
        counts.append(50.0)
        return 50.0

    monkeypatch.setattr(evaluator, "top1", counting)
    epochs = replace(TINY, steps=None, epochs=10, warmup=0)
    for recipe, expected in [
        (epochs, 1),
        (replace(epochs, test_every=3), 4),
        (replace(epochs, test_every=1, test_from=0.8), 2),
        (replace(epochs, test_every=1, test_from=7), 3),
        (replace(epochs, test_every=1, test_from="3:0, 4:6, 9"), 4),
        (replace(epochs, test_every="20%"), 5),
    ]:
        counts.clear()
        run(recipe)
        assert len(counts) == expected


def test_finished_seeds_are_never_repeated(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(seeds=(0, 1), store=store)
    trained: list[int] = []

    def counting(*arguments: Any, **options: Any) -> None:
        trained.append(arguments[5])
        training.train(*arguments, **options)

    monkeypatch.setattr(evaluator, "train", counting)
    again = run(seeds=(0, 1, 2), store=store)
    assert trained == [2]
    assert again.accuracies[:2] == first.accuracies
    run(replace(TINY, name="another name"), seeds=(0,), store=store)
    assert trained == [2]
    run(replace(TINY, lr=0.001), seeds=(0,), store=store)
    run(test=digits(91, first=400), seeds=(0,), store=store)
    run(train=LabelledImages(TRAIN.pixels, TRAIN.labels[::-1].copy(), TRAIN.classes), seeds=(0,), store=store)
    assert trained == [2, 0, 0, 0]


@pytest.mark.usefixtures("ticking")
def test_an_interrupted_seed_leaves_no_result(store: Store) -> None:
    def stop(text: str, fraction: float) -> None:
        if fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(seeds=(0, 1), store=store, progress=stop)
    assert run(seeds=(0, 1), store=store).accuracies == run(seeds=(0, 1)).accuracies


def test_progress_rises_to_one() -> None:
    told: list[tuple[str, float]] = []
    run(seeds=(0, 1), progress=lambda text, fraction: told.append((text, fraction)))
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert "images/s" in told[-1][0]
    assert "loss" in told[-1][0]


@pytest.mark.parametrize("size", [None, 16])
@pytest.mark.parametrize("crop", [None, 0.5])
def test_train_and_test_sizes_may_differ(size: int | None, crop: float | None) -> None:
    found = run(replace(TINY, size=size, crop=crop), digits(20, 24), digits(30, 40, first=200))
    assert 0 <= found.mean <= 100


def test_test_images_are_resized_as_pil_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 60, 50, 3), dtype=np.uint8)
    found = resized(pixels, 28, 32)
    for image, expected in zip(found, pixels, strict=True):
        small = Image.fromarray(expected).resize((32, 38), Image.Resampling.BILINEAR)
        theirs = np.asarray(small.crop((2, 5, 30, 33)), dtype=int)
        assert abs(image.astype(int) - theirs).max() <= 1
    assert resized(pixels[:, :50], 50) is not None
    assert np.array_equal(resized(pixels[:, :50], 50), pixels[:, :50])


@pytest.mark.parametrize("recipe", [RECIPES.open(name) for name in RECIPES], ids=list(RECIPES))
@pytest.mark.parametrize("classes", [10, 100])
def test_every_recipe_runs(recipe: Recipe, classes: int) -> None:
    short = replace(recipe, epochs=recipe.epochs and 2, steps=recipe.steps and 2, size=16, warmup=0, test_every=None)
    pixels = np.random.default_rng(0).integers(0, 256, (classes, 16, 16, 3), dtype=np.uint8)
    images = LabelledImages(pixels, np.arange(classes), tuple(map(str, range(classes))))
    teacher = build("convnet3-bn-w8", classes, 16, 0) if recipe.labels == "soft" else None
    assert 0 <= run(short, images, images, teacher=teacher).mean <= 100


def settled(recipe: str, ipc: int, classes: int, network: str = "resnet18", size: int = 224) -> Any:
    n = ipc * classes
    images = LabelledImages(
        np.zeros((n, size, size, 3), np.uint8), np.arange(n) % classes, tuple(map(str, range(classes)))
    )
    return training_plan(RECIPES.open(recipe), images, network)[0]


@pytest.mark.parametrize(
    ("ipc", "classes", "epochs", "batch", "lr"),
    [(1, 10, 3000, 64, 0.01), (10, 10, 2000, 64, 0.01), (20, 10, 1500, 64, 0.01), (100, 10, 1000, 64, 0.01),
     (1, 100, 2000, 64, 0.01), (10, 100, 1300, 64, 0.01), (50, 100, 1000, 64, 0.01), (1, 200, 3000, 128, 0.1)],
)  # fmt: skip
def test_minimax_hard(ipc: int, classes: int, epochs: int, batch: int, lr: float) -> None:
    plan = settled("minimax-hard", ipc, classes, "resnetap10", size=57)
    assert (plan.epochs, plan.batch, plan.lr) == (epochs, batch, lr)
    assert plan.weight_decay == (5e-4 if classes <= 100 else 1e-4)


@pytest.mark.parametrize(
    ("recipe", "ipc", "classes", "epochs", "batch"),
    [("rded-soft", 1, 10, 300, 10), ("rded-soft", 10, 10, 300, 50), ("rded-soft", 50, 10, 300, 100),
     ("rded-soft", 10, 100, 300, 100), ("rded-soft", 1, 1000, 300, 20), ("d3hr-soft", 1, 10, 300, 15),
     ("d3hr-soft", 10, 100, 300, 100), ("d3hr-soft", 1, 1000, 300, 15), ("d3hr-soft-cifar", 50, 10, 400, 100),
     ("d3hr-hard", 10, 10, 2000, 50), ("d3hr-hard", 50, 10, 1500, 100), ("d3hr-hard", 100, 10, 1000, 100)],
)  # fmt: skip
def test_soft_and_mixup_recipes(recipe: str, ipc: int, classes: int, epochs: int, batch: int) -> None:
    plan = settled(recipe, ipc, classes, size=57)
    assert (plan.epochs, plan.batch, plan.lr, plan.decay_vectors) == (epochs, batch, 1e-3, False)


def test_tables() -> None:
    assert [by_ipc("9:15, 49:50, 100", ipc, "batch") for ipc in (1, 9, 9.5, 49, 50)] == [15, 15, 50, 50, 100]
    rates = RECIPES.open("rded-soft").lr
    networks = ("torchvision/mobilenet_v2", "efficientnet_b0", "swin_tiny_patch4_window7_224", "vit_b_16", "convnet3")
    assert [by_network(rates, name, "lr") for name in networks] == [2.5e-3, 2e-3, 1e-4, 1e-4, 1e-3]


def test_modified() -> None:
    quick = RECIPES.open("quick")
    other = modified(quick, {"lr": "0.1", "flip": "false", "batch": 32, "size": "none", "epochs": "1:3, 5"})
    assert (other.lr, other.flip, other.batch, other.size, other.epochs) == (0.1, False, 32, None, "1:3, 5")
    assert other.name == modified(other, {"lr": 0.2}).name == "quick (modified)"
    assert modified(quick, {"flip": True}) is not None
    assert modified(quick, {"flip": True}).name == "quick"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda: modified(RECIPES.open("quick"), {"rate": 1}), "rate.*lr"),
        (lambda: modified(RECIPES.open("quick"), {"flip": "perhaps"}), "flip"),
        (lambda: modified(RECIPES.open("quick"), {"schedule": "steep"}), "schedule.*half-cosine"),
        (lambda: modified(RECIPES.open("quick"), {"name": "mine"}), "name"),
        (lambda: run(seeds=()), "seeds"),
        (lambda: run(RECIPES.open("rded-soft-cifar")), "rded-soft-cifar.*`teacher`.*`labels`"),
        (lambda: modified(RECIPES.open("rded-soft"), {"scheme": "int8"}), "scheme = int8.*views = image"),
        (lambda: modified(RECIPES.open("fkd-soft"), {"scheme": "int7"}), "int7.*int8.*top5-int8"),
        (
            lambda: run(modified(RECIPES.open("fkd-soft-cifar"), {"epochs": None, "steps": 5})),
            "views = image needs epochs",
        ),
        (lambda: run(RECIPES.open("minimax-hard")), "minimax-hard-cifar"),
        (lambda: run(modified(RECIPES.open("rded-soft"), {"labels": "hard"})), "the recipe rded-soft-cifar"),
        (lambda: run(modified(TINY, {"epochs": 3})), "epochs.*steps"),
        (lambda: run(modified(TINY, {"batch": "many"})), "batch.*many"),
        (lambda: run(modified(TINY, {"batch": "2:10"})), "batch.*nothing for 4 images"),
        (lambda: run(modified(TINY, {"test_every": "often"})), "test_every"),
        (lambda: run(test=replace(TEST, classes=TEST.classes[::-1])), "another order"),
        (lambda: run(test=replace(TEST, classes=(*TEST.classes[:9], "x"))), "classes: 9, x"),
        (lambda: run(test=replace(TEST, labels=TEST.labels + 1)), "test labels"),
        (lambda: run(train=replace(TRAIN, images=TRAIN.pixels / 255)), "uint8"),
        (lambda: run(train=replace(TRAIN, images=TRAIN.pixels[:0])), "0 images"),
    ],
)
def test_bad_input(what: Callable[[], Any], message: str) -> None:
    with pytest.raises(AttarError, match=message):
        what()


@pytest.mark.parametrize(
    ("field", "values"),
    [("steps", (0, -1)), ("size", (0,)), ("shuffle", (0,)), ("crop", (0, 2, float("nan"))), ("batch", (0, "9:0, 5")),
     ("epochs", (0, "5, 1.5")), ("lr", (-1, "vit: -1, 1", "inf")), ("momentum", (2,)), ("weight_decay", (-1,)),
     ("label_epochs", (0,)), ("warmup", (-1,)), ("jitter", (1.5,)), ("lighting", (-1,)),
     ("mix_probability", (-0.1, 1.1)), ("temperature", (0,)), ("test_from", (-1, "9:-1, 5")),
     ("mix_alpha", (0,)), ("accumulate", (0, 1.5)), ("test_every", (0, "0%", "often"))],
)  # fmt: skip
def test_fields_out_of_range(field: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(AttarError, match=f"{field}`? = "):
            replace(RECIPES.open("quick"), **{field: value})


def test_a_network_that_cannot_take_the_images_is_found_before_training(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator, "train", lambda *_, **__: pytest.fail("was trained"))
    with pytest.raises(AttarError, match="network torchvision/alexnet cannot take 16-pixel images"):
        run(train=digits(40, 16), network="torchvision/alexnet", store=store)


def test_seeds_are_trained_again_with_other_libraries(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []

    def counting(*arguments: Any, **options: Any) -> None:
        trained.append(arguments[5])
        training.train(*arguments, **options)

    monkeypatch.setattr(evaluator, "train", counting)
    monkeypatch.setattr(evaluator, "version", lambda _: "9")
    run(store=store)
    for library in ("timm", "torchvision"):
        monkeypatch.setattr(evaluator, "version", lambda name, own=library: "0.1" if name == own else "9")
        run(store=store)
        run(store=store)
    assert trained == [0, 0, 0]


def test_changes_are_what_makes_a_recipe_of_its_original() -> None:
    assert [changes(recipe) for recipe in map(RECIPES.open, RECIPES)] == [{}] * len(RECIPES.names())
    other = modified(RECIPES.open("rded-soft"), {"batch_doubled_at": "7,8", "size": None, "lr": 0.5, "flip": True})
    assert changes(other) == {"batch_doubled_at": [7, 8], "size": None, "lr": 0.5}
    assert modified(RECIPES.open("rded-soft"), json.loads(json.dumps(changes(other)))) == other
    assert changes(Recipe("mine", "me", epochs=3)) == {"epochs": 3}


def test_every_field_can_be_shown() -> None:
    for recipe in map(RECIPES.open, RECIPES):
        assert recipe.source
        assert all(isinstance(getattr(recipe, f.name), str | int | float | bool | tuple | None) for f in fields(recipe))


def test_conditions_say_what_is_missing() -> None:
    conditions = Conditions(("convnet3-w8", "convnet3-w16"), (0,))
    assert replace(conditions, networks=("convnet3-w8",)).network == "convnet3-w8"
    with pytest.raises(AttarError, match="`network` convnet3-w8,convnet3-w16: name one"):
        _ = conditions.network
    with pytest.raises(AttarError, match="`seeds` 0: at least 1"):
        replace(conditions, seeds=())
    with pytest.raises(AttarError, match="name the teacher with `teacher`"):
        conditions.check(RECIPES.open("fkd-soft"))
    with pytest.raises(AttarError, match="learns from hard labels, without `labels`"):
        replace(conditions, labels=Path("labels")).check(RECIPES.open("quick"))


def test_a_compiled_network_learns_nearly_the_same_under_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled for torch's own kernels: the usual ones would take a C++ compiler and half a minute."""
    plain, calls = torch.compile, []

    def compiled(*args: Any, **settings: Any) -> Any:
        calls.append(settings)
        return plain(*args, **settings, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setenv("CXX", "python")
    recipes = (TINY, modified(TINY, {"compile": True}))
    ways = [Students(TRAIN, TEST, recipe, "convnet3-w8", "cpu") for recipe in recipes]
    one, other = (evaluate(way, (0,)).learnt for way in ways)
    assert calls == [{"dynamic": False}]
    assert other == pytest.approx(one, abs=0.2)
    assert ways[0].trainings((0,)).keys() != ways[1].trainings((0,)).keys()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(AttarError, match=r"C\+\+ compiler no-such-compiler"):
        ways[1].inputs((0,))


def test_a_key_says_how_a_gpu_makes_crops_where_there_are_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attar.evaluation.evaluator.device_class", lambda device: "a GPU")
    monkeypatch.setattr(Students, "place", torch.device("cuda"))
    recipes = [modified(TINY, {"crop": crop}) for crop in (None, 0.5)]
    keys = [Students(TRAIN, TEST, recipe, "convnet3-w8", "cpu").inputs((0,))[0] for recipe in recipes]
    assert [key.get("views") for key in keys] == [None, "crops of a batch at once"]


def test_recipes_of_before_that_are_not_compiled_keep_their_keys() -> None:
    quick = RECIPES.open("quick")
    assert "compile" not in canonical(quick)
    assert canonical(modified(quick, {"compile": True}))["compile"] is True


def test_networks_are_compiled_however_many_were_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, made = torch.compile, list[Any]()

    def counted(graph: Any, _: Any) -> Any:
        made.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda *args, **settings: plain(*args, **settings, backend=counted))
    monkeypatch.setenv("CXX", "python")
    recipe, found = modified(TINY, {"compile": True}), list[int]()
    for width in range(2, 8):
        before = len(made)
        evaluate(Students(TRAIN, TEST, recipe, f"convnet3-w{width}", "cpu"), (0,))
        found.append(len(made) - before)
    assert found == [found[0]] * 6
    assert found[0] > 1
