"""Weights of images: kept with a set, carried wherever it goes, and equal to images that are repeated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_training import PLAIN, two_colours
from torch import Tensor, nn
from toys import save_world

import attar
from attar.core.errors import AttarError
from attar.core.store import Store
from attar.data import load_data
from attar.distillation.artefacts import artefacts, fit_artefact
from attar.distillation.pipeline import StoredLatents, weights
from attar.distillation.run import distill_sets
from attar.evaluation import named_recipe
from attar.evaluation.conditions import Conditions
from attar.evaluation.evaluator import LabelledImages, Students
from attar.evaluation.load_images import images_of_set
from attar.evaluation.records import Record
from attar.evaluation.run import evaluate_sets
from attar.job import Job, Spec
from attar.methods import load_method
from attar.methods.d4m import Prototypes
from attar.methods.prior_samples import PriorSamples
from attar.methods.tgdd import Anchors
from attar.sets.dataset import DistilledDataset, load_set
from attar.sets.distilled import DistilledSet, open_distilled, verify
from attar.sets.expand import expand
from attar.sets.layouts import export, open_layout
from attar.training import Plan, Shown, Supervision, train
from attar.training.loop import _loss

CLASSES = ["ant", "bee"]
SHORT: dict[str, Any] = {"sampler.steps": 5, "fit.algorithm": "full", "fit.posterior": "mean"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_world(tmp_path_factory.mktemp("world"), CLASSES)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("cache"))


def job_of(world: Path, store: Store, **spec: Any) -> Job:
    return Job(Spec(f"imagefolder:{world / 'data'}", prior=str(world / "dit"), device="cpu", **spec), store)


def made(world: Path, out: Path, store: Store, fields: dict[str, Any], **spec: Any) -> DistilledSet:
    method = load_method("d4m", {**SHORT, **fields})
    (folder,) = distill_sets(job_of(world, store, **spec), "d4m", method, (4,), out)
    assert verify(folder) == []
    return open_distilled(folder)


@pytest.fixture(scope="module")
def weighted(world: Path, cache: Store, tmp_path_factory: pytest.TempPathFactory) -> DistilledSet:
    return made(world, tmp_path_factory.mktemp("sets") / "weighted", cache, {"fit.weights": "share"})


# What networks learn


def linear() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.linspace(-0.01, 0.01, parameter.numel()).view_as(parameter))
    return network


def trained(images: Tensor, labels: Tensor, **supervision: Any) -> Tensor:
    """The weights after five steps on all images at once."""
    network, plan = linear(), Plan(epochs=5, batch=len(images), lr=0.1, schedule="constant")
    train(network, images, labels, plan, PLAIN, 0, supervision=Supervision(**supervision))
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_whole_weights_train_as_images_repeated_do() -> None:
    images, labels = two_colours(6)
    counts = torch.tensor([3, 1, 1, 2, 2, 3])
    repeated = trained(images.repeat_interleave(counts, 0), labels.repeat_interleave(counts))
    found = trained(images, labels, weights=counts * 6 / counts.sum())
    torch.testing.assert_close(found, repeated, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found, trained(images, labels), rtol=1e-3, atol=1e-5)


def test_so_they_do_with_a_teachers_labels() -> None:
    images, labels = two_colours(6)
    counts, teacher = torch.tensor([3, 1, 1, 2, 2, 3]), linear()
    plan = Plan(epochs=5, batch=12, lr=0.1, schedule="constant", temperature=2.0)

    def taught(images: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        layer = nn.Linear(192, 2)
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
        supervision = Supervision(teacher=teacher, weights=weights)
        train(nn.Sequential(nn.Flatten(), layer), images, labels, plan, PLAIN, 0, supervision=supervision)
        return layer.weight.detach()

    repeated = taught(images.repeat_interleave(counts, 0), labels.repeat_interleave(counts), None)
    found = taught(images, labels, counts * 6 / counts.sum())
    torch.testing.assert_close(found, repeated, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found, taught(images, labels, None), rtol=1e-3)


def test_equal_weights_change_no_bit() -> None:
    images, labels = two_colours(6)
    assert torch.equal(trained(images, labels, weights=torch.ones(6)), trained(images, labels))


def test_of_a_mixed_view_each_label_weighs_as_its_image() -> None:
    logits, labels = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1])
    weights, index = torch.tensor([0.5, 2.0, 4.0]), torch.tensor([0, 1])
    view = torch.zeros(2, 3, 1, 1)
    shown = Shown(view, view, torch.tensor([1, 2]), torch.tensor([[0.25], [0.75]]))
    surprise = -F.log_softmax(logits, 1)
    by_hand = (
        0.25 * 0.5 * surprise[0, 0] + 0.75 * 2 * surprise[0, 2] + 0.75 * 2 * surprise[1, 2] + 0.25 * 4 * surprise[1, 1]
    )
    torch.testing.assert_close(_loss(logits, labels, index, shown, None, Plan(), weights), by_hand / 2)
    taught = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    target = taught.softmax(1)
    divergence = (target * (target.log() - F.log_softmax(logits, 1))).sum(1)
    by_hand = (0.25 * 0.5 + 0.75 * 2) * divergence[0] + (0.75 * 2 + 0.25 * 4) * divergence[1]
    found = _loss(logits, labels, index, shown, taught, Plan(temperature=1.0), weights)
    torch.testing.assert_close(found, by_hand / 2)


# What images weigh


@pytest.mark.parametrize(
    ("kind", "expected"), [("share", [0.3, 0.0, 0.4, 0.3]), ("root", [0.6**0.5 / 2, 0, 0.4**0.5, 0.6**0.5 / 2])]
)
def test_images_of_a_prototype_share_its_weight(kind: Any, expected: list[float]) -> None:
    fit = Prototypes(count=3, weights=kind)
    found = fit.image_weights({"sizes": torch.tensor([6, 0, 4])}, 4)
    assert found is not None
    assert found.tolist() == pytest.approx(expected)
    assert Prototypes(count=3).image_weights({"sizes": torch.tensor([6, 0, 4])}, 4) is None


def test_kept_images_keep_their_own_weight_and_are_never_all_0() -> None:
    method = load_method("d4m", {"fit.weights": "share", "fit.count": 3, "select.pool": 3})
    fitted = {label: {"sizes": torch.tensor([6, 0, 4])} for label in (0, 1)}
    kept = {0: StoredLatents(None, torch.tensor([2, 0])), 1: StoredLatents(None, torch.tensor([1]))}  # type: ignore[arg-type]
    found = weights(method, fitted, kept, 2)  # type: ignore[arg-type]
    assert found[0] == pytest.approx([0.4, 0.6])
    assert found[1] == [1.0]


def test_a_set_keeps_the_share_of_each_cluster(world: Path, cache: Store, weighted: DistilledSet) -> None:
    job, fit = job_of(world, cache), Prototypes(count=4, algorithm="full", posterior="mean")
    from toys import learnt

    for label in range(2):
        sizes = learnt(job, fit, [label])["sizes"].double()
        assert weighted.manifest["weights"][label] == pytest.approx((sizes / sizes.sum()).tolist())
    every = weighted.weights()
    assert every is not None
    assert [sum(own) / 4 for own in every] == pytest.approx([1, 1])
    assert "| weights | each image has one, " in (weighted.folder / "README.md").read_text()


def test_weights_change_no_image_and_no_key_but_the_sets(
    world: Path, cache: Store, tmp_path: Path, weighted: DistilledSet
) -> None:
    plain = made(world, tmp_path / "plain", cache, {})
    assert plain.manifest["images"] == weighted.manifest["images"]
    assert plain.manifest["run"] != weighted.manifest["run"]
    assert "weights" not in plain.manifest
    assert plain.weights() is None
    job = job_of(world, cache)
    keys = [fit_artefact(job, Prototypes(count=4, weights=kind), [0]).key for kind in ("none", "share", "root")]
    assert len(set(keys)) == 1


@pytest.mark.parametrize("fields", [{}, {"fit.weights": "root"}])
def test_a_folder_of_other_weights_is_told_by_them(
    world: Path, cache: Store, weighted: DistilledSet, fields: dict[str, Any]
) -> None:
    with pytest.raises(AttarError) as error:
        made(world, weighted.folder, cache, fields)
    assert str(error.value).endswith("belongs to another run (other method.fit.weights); choose another `out`")


def test_fields_that_are_not_used_enter_no_key(world: Path, cache: Store) -> None:
    job = job_of(world, cache)
    old = {"is": "Prototypes", "count": 2, "algorithm": "minibatch", "expand": 1, "posterior": "sample", "seed": 0}
    assert job.to_config(Prototypes(count=2)) == old
    assert job.to_config(Anchors(count=2)) == {**old, "is": "Anchors", "anchors": 15}
    assert job.to_config(Prototypes(count=2, weights="root")) == {**old, "weights": "root"}
    assert artefacts(job, load_method("d4m", {"fit.count": 2}), 2).fits  # type: ignore[arg-type]


@dataclass(frozen=True)
class Loose(PriorSamples):
    """Learns clusters that its images do not begin from."""

    fit: Prototypes = Prototypes(count=2)  # type: ignore[assignment]


def test_images_that_stand_for_no_cluster_cannot_weigh_as_one(world: Path, cache: Store, tmp_path: Path) -> None:
    method = Loose(fit=Prototypes(count=2, weights="share"))
    words = "^`fit.weights`: images of loose stand for no cluster of their own; those of d4m, mgd3 and tgdd do$"
    with pytest.raises(AttarError, match=words):
        distill_sets(job_of(world, cache), "loose", method, (1,), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Where they go


def test_each_part_of_a_mosaic_has_its_own_and_expanding_keeps_them(world: Path, cache: Store, tmp_path: Path) -> None:
    mosaics = made(world, tmp_path / "mosaics", cache, {"fit.weights": "root", "fit.count": 5}, formation=2)
    every = mosaics.weights()
    assert every is not None
    assert [len(own) for own in every] == [16, 16]
    expand(mosaics, tmp_path / "parts", say=lambda _: None)
    parts = open_distilled(tmp_path / "parts")
    assert parts.weights() == every
    by_mosaic = [sum(own[begin : begin + 4]) / 4 for own in every for begin in (0, 4, 8, 12)]
    assert DistilledDataset(mosaics.folder, expanded=False).weights == pytest.approx(by_mosaic)
    assert DistilledDataset(mosaics.folder).weights == DistilledDataset(parts.folder).weights


def test_python_and_torch_are_given_them(weighted: DistilledSet, world: Path, cache: Store, tmp_path: Path) -> None:
    every = np.concatenate(weighted.weights() or [])
    loaded = load_set(weighted.folder)
    assert loaded.weights is not None
    assert loaded.weights.tolist() == DistilledDataset(weighted.folder).weights == every.tolist()
    assert load_set(made(world, tmp_path / "plain", cache, {}).folder).weights is None


@pytest.mark.parametrize("layout", ["rded", "d4m", "folder"])
def test_other_layouts_carry_them(weighted: DistilledSet, world: Path, tmp_path: Path, layout: str) -> None:
    out, real = tmp_path / "out", load_data(f"imagefolder:{world / 'data'}")
    said: list[str] = []
    export(weighted, layout, out, say=said.append)
    assert said[0].endswith("classes.json says which class each folder is, weights.json what each image weighs")
    found = open_layout(out, layout, real, None, Store(tmp_path / "cache")).weights()
    assert found is not None
    for own, other in zip(found, weighted.weights() or [], strict=True):
        assert own == pytest.approx(other)
    file = out / "weights.json"
    some = json.loads(file.read_text())
    name = next(iter(some))
    for changed, words in (
        ({**some, name: -1}, f"{name} is -1, not a number from 0 to 1e+09"),
        ({key: value for key, value in some.items() if key != name}, f"{name} is missing"),
        (dict.fromkeys(some, 0), "all files of a class weigh 0"),
    ):
        file.write_text(json.dumps(changed))
        with pytest.raises(AttarError) as error:
            open_layout(out, layout, real, None, Store(tmp_path / "cache"))
        assert str(error.value) == f"{file}: {words}; without weights.json all weigh the same"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ([[1.0] * 4], "weights are of 1 class, and the set has 2"),
        ([[1.0] * 4, [1.0] * 3], "weights of 'bee' are 3, for 4 images"),
        ([[1.0] * 4, [0.0] * 4], "weights of 'bee' are all 0"),
        ([[1.0] * 4, [1.0, 1.0, 1.0, -2]], "weights[1][3] is -2, not a number from 0 to 1e+09"),
        ([[1e308] * 4] * 2, "weights[0][0] is 1e+308, not a number from 0 to 1e+09"),
    ],
)
def test_damaged_weights_are_named(weighted: DistilledSet, tmp_path: Path, changed: Any, words: str) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({**weighted.manifest, "weights": changed}))
    with pytest.raises(AttarError) as error:
        open_distilled(tmp_path)
    assert f" is damaged: {words}; " in str(error.value)


# What is judged


def judged(folder: Path, store: Store, world: Path, **conditions: Any) -> Record:
    recipe = replace(named_recipe("quick"), steps=3, batch=8, flip=False)
    asked = Conditions(
        ("convnet3-w8",), (0,), f"imagefolder:{world / 'data'}", baseline=False, device="cpu", **conditions
    )
    (record,) = evaluate_sets([folder], recipe, asked, store=store)
    return record


def test_evaluation_uses_them_unless_it_is_told_not_to(
    weighted: DistilledSet, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, learnt_with = Store(tmp_path / "cache"), list[Any]()
    plain = made(world, tmp_path / "plain", store, {})
    run = Students.run

    def noting(self: Students, *args: Any) -> dict[str, float]:
        learnt_with.append(self.weights)
        return run(self, *args)

    monkeypatch.setattr(Students, "run", noting)
    usual = judged(weighted.folder, store, world)
    ignored = judged(weighted.folder, store, world, weights=False)
    assert len(learnt_with) == 2
    unweighted = judged(plain.folder, store, world)
    assert len(learnt_with) == 2, "a set whose weights are ignored is a set without weights: the third is in the cache"
    assert learnt_with[0].tolist() == pytest.approx(np.concatenate(weighted.weights() or []).tolist())
    assert learnt_with[1] is None
    assert (usual.weighted, ignored.weighted, unweighted.weighted) == (True, False, None)
    assert ("IPC 4, weighted  " in usual.row, "IPC 4, weights ignored  " in ignored.row) == (True, True)
    assert usual.identity != ignored.identity
    assert "weighted" not in unweighted.as_json()


def test_they_enter_the_key_of_a_training(weighted: DistilledSet) -> None:
    images = images_of_set(weighted, named_recipe("quick"))

    def key(weights: Sequence[float] | None) -> Any:
        one = replace(images, weights=None if weights is None else np.array(weights))
        students = Students(one, images, named_recipe("quick"), "convnet3-w8", "cpu")
        return list(students.trainings([0]))

    assert len({str(key(each)) for each in (None, [1.0] * 8, [1.0] * 7 + [2.0])}) == 3


@pytest.mark.parametrize("wrong", [[1.0], [0.0] * 8, [1.0] * 7 + [-1.0], [1.0] * 7 + [float("nan")]])
def test_bad_weights_are_refused_before_any_training(weighted: DistilledSet, wrong: list[float]) -> None:
    images = images_of_set(weighted, named_recipe("quick"))
    bad = LabelledImages(images.images, images.labels, images.classes, weights=np.array(wrong))
    with pytest.raises(AttarError, match=r"^the training set's weights are \(\d,\) for 8 images; it needs as many"):
        Students(bad, images, named_recipe("quick"), "convnet3-w8", "cpu").inputs([0])


def test_the_command_and_python_have_a_switch() -> None:
    import inspect

    from attar.cli.sets import evaluate

    assert "weights" in inspect.signature(attar.evaluate).parameters
    assert "weights" in inspect.signature(evaluate).parameters
