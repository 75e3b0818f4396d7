"""Soft labels: views by image and epoch whatever the batches, schemes held to a second implementation, resuming."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attar.core.errors import AttarError
from attar.core.progress import silent
from attar.core.store import Artefact, Store
from attar.evaluation import RECIPES, LabelledImages, Students, evaluate, modified
from attar.evaluation.conditions import Conditions
from attar.evaluation.labels import SoftLabels
from attar.evaluation.teaching import labelled_recipe, open_label_source
from attar.networks import build
from attar.teachers import soft_labels
from attar.teachers.label_schemes import Scheme
from attar.teachers.soft_labels import Labelling, StoredLabels, Views, write_labels
from attar.training import Plan, Supervision, batches, train
from attar.training.augment import Augmentation, normalised

HOW = Augmentation(8, crop=0.3, flip=True, jitter=0.2, mix="cutmix", normalise="half")
VIEWS = Views(HOW, 23, epochs=3)
RECIPE = modified(RECIPES.open("fkd-soft-cifar"), {"epochs": 3, "crop": 0.3})


def images(n: int = 23, height: int = 10, width: int = 12) -> Tensor:
    shape, generator = (n, height, width, 3), torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def teacher(classes: int = 5) -> nn.Module:
    return build("convnet3-bn-w8", classes, 8, 3).eval()


def labelling(views: Views = VIEWS, scheme: str = "fp16", classes: int = 5) -> Labelling:
    return Labelling(views, "images", "teacher", classes, Scheme.named(scheme), 4.0)


def shown(views: Views, epoch: int, batch: int, order: Tensor) -> Tensor:
    """All views of an epoch, seen in this order in batches, put back into the order of the images."""
    seen = torch.cat([views(images(), epoch, index).view for index in order.split(batch)])
    return seen[order.argsort()]


def centred(logits: Tensor) -> Tensor:
    return logits - logits.amax(1, keepdim=True)


@pytest.mark.parametrize("box", ["image", "batch"])
def test_views_do_not_depend_on_the_students_batches(box: Any) -> None:
    views = replace(VIEWS, box=box, batch=6)
    straight = torch.arange(23)
    shuffled = torch.randperm(23, generator=torch.Generator().manual_seed(0))
    for epoch in range(3):
        one, other = shown(views, epoch, 7, straight), shown(views, epoch, 64, shuffled)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert not torch.allclose(shown(views, 0, 23, straight), shown(views, 1, 23, straight))
    assert torch.equal(shown(views, 1, 23, straight), shown(views, 4, 23, straight)), "three epochs, used again"


def test_a_view_is_its_image_with_a_box_of_its_partners_own_view() -> None:
    drawn = VIEWS.drawn(1)
    assert drawn.partner is not None
    assert drawn.cut is not None
    assert drawn.own is not None
    assert sorted(drawn.partner.tolist()) == list(range(23)), "the partners are a permutation"
    assert len({tuple(cut) for cut in drawn.cut.tolist()}) > 15, "each image has a box of its own"
    found = VIEWS(images(), 1, torch.arange(23))
    for i, (top, bottom, left, right) in enumerate(drawn.cut.tolist()):
        expected = found.plain[i].clone()
        expected[:, top:bottom, left:right] = found.plain[drawn.partner[i]][:, top:bottom, left:right]
        torch.testing.assert_close(found.view[i], expected)
        assert float(drawn.own[i]) == pytest.approx(1 - (bottom - top) * (right - left) / 64)


def test_the_batch_form_has_one_box_for_a_batch_and_partners_within_it() -> None:
    drawn = replace(VIEWS, box="batch", batch=6).drawn(0)
    assert drawn.partner is not None
    assert drawn.cut is not None
    groups: dict[tuple[int, ...], set[int]] = {}
    for i, cut in enumerate(drawn.cut.tolist()):
        groups.setdefault(tuple(cut), set()).add(i)
    assert sorted(len(members) for members in groups.values()) == [5, 6, 6, 6]
    for members in groups.values():
        assert {int(drawn.partner[i]) for i in members} == members


def test_a_student_of_the_batch_form_is_shown_the_batches_that_were_mixed() -> None:
    views, plan = replace(VIEWS, box="batch", batch=6), Plan(epochs=4, batch=6)
    found = list(batches(23, plan, 0, order=views.order))
    for epoch, _, index in found:
        cuts = views.drawn(epoch % 3).cut
        assert cuts is not None
        assert len({tuple(cut) for cut in cuts[index].tolist()}) == 1
    orders = [torch.cat([index for epoch, _, index in found if epoch == own]) for own in range(4)]
    assert torch.equal(orders[0], orders[3]), "three epochs, used again"
    assert not torch.equal(orders[0], orders[1])
    assert VIEWS.order(0) is None
    seen: list[Tensor] = []

    def labelled(epoch: int, index: Tensor) -> Tensor:
        seen.append(index)
        return torch.zeros(len(index), 5)

    train(build("convnet3-w8", 5, 8, 0), images(), torch.zeros(23, dtype=torch.int64), replace(plan, temperature=4.0),
          views.how, 0, supervision=Supervision(views=views, labelled=labelled))  # fmt: skip
    assert torch.equal(torch.cat(seen), torch.cat(orders))


def test_some_images_stay_unmixed_and_mixup_mixes_by_weight() -> None:
    some = Views(replace(HOW, mix_probability=0.5), 200, epochs=1)(images(200, 8, 8), 0, torch.arange(200))
    unmixed = (some.plain == some.view).flatten(1).all(1)
    assert 60 < int(unmixed.sum()) < 140
    found = replace(VIEWS, how=replace(HOW, mix="mixup"))(images(), 0, torch.arange(23))
    assert found.own is not None
    assert found.partner is not None
    expected = torch.lerp(found.plain[found.partner], found.plain, found.own[:, :, None, None])
    torch.testing.assert_close(found.view, expected)
    plain = replace(VIEWS, how=replace(HOW, mix="none"))(images(), 0, torch.arange(3))
    assert torch.equal(plain.plain, plain.view)


def rows(n: int, classes: int) -> Tensor:
    return 6 * torch.randn(n, classes, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("name", "levels"), [("int8", 255), ("int4", 15)])
@pytest.mark.parametrize("classes", [5, 10, 300])
def test_whole_multiples_of_a_step(name: str, levels: int, classes: int) -> None:
    logits = rows(40, classes)
    scheme = Scheme.named(name)
    found = scheme.decode(scheme.encode(logits, 20.0), classes)
    below = centred(logits).double().numpy()
    step = np.ptp(below, axis=1, keepdims=True) / levels
    theirs = np.round(below / step) * step  # a second implementation, with steps that are not rounded to fp16
    assert np.abs(found.numpy() - theirs).max() < 1.01 * step.max()
    assert (np.abs(found.numpy() - below) <= 0.51 * step + 1e-6).all()
    assert (found.gather(1, logits.argmax(1, keepdim=True)) == 0).all()


def test_half_precision_and_equal_logits() -> None:
    logits = rows(40, 10)
    scheme = Scheme.named("fp16")
    torch.testing.assert_close(scheme.decode(scheme.encode(logits, 20.0), 10), centred(logits), rtol=1e-3, atol=1e-4)
    for name in ("fp16", "int8", "int4", "top2-int8"):
        same = Scheme.named(name)
        assert torch.allclose(
            same.decode(same.encode(torch.full((3, 10), 7.0), 20.0), 10), torch.zeros(3, 10), atol=0.01
        )


@pytest.mark.parametrize("values", ["fp16", "int8", "int4"])
@pytest.mark.parametrize("classes", [10, 300])
def test_the_largest_keep_their_probability_and_the_rest_share_theirs(values: str, classes: int) -> None:
    logits, temperature = rows(30, classes), 4.0
    scheme = Scheme.named(f"top4-{values}")
    found = F.softmax(scheme.decode(scheme.encode(logits, temperature), classes) / temperature, 1)
    exact = F.softmax(logits / temperature, 1)
    top = exact.topk(4, 1).indices
    tolerance = {"fp16": 2e-3, "int8": 0.02, "int4": 0.2}[values]
    torch.testing.assert_close(found.gather(1, top), exact.gather(1, top), rtol=tolerance, atol=1e-4)
    others = torch.ones_like(exact, dtype=torch.bool).scatter(1, top, False)
    for i in range(30):
        rest = found[i][others[i]]
        assert rest.std() < 1e-6
        torch.testing.assert_close(rest.sum(), exact[i][others[i]].sum(), rtol=tolerance, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [("fp16", 10, 20), ("int8", 10, 12), ("int4", 10, 7), ("int4", 7, 6), ("fp16", 1000, 2000),
     ("top5-int8", 100, 5 + 2 + 5 + 2), ("top20-int8", 1000, 20 + 2 + 40 + 2)],
)  # fmt: skip
def test_bytes(name: str, classes: int, expected: int) -> None:
    assert Scheme.named(name).row_bytes(classes) == expected


@pytest.mark.parametrize("name", ["int9", "top0-int8", "top5", "online", "TOP5-int8", ""])
def test_unknown_schemes(name: str) -> None:
    with pytest.raises(AttarError, match="choose online, fp16, int8, int4"):
        Scheme.named(name)


def test_broken_logits_and_too_many_of_the_largest() -> None:
    with pytest.raises(AttarError, match="not finite"):
        Scheme.named("int8").encode(torch.tensor([[1.0, math.nan]]), 1.0)
    for name in ("int8", "int4"):
        with pytest.raises(AttarError, match=f"too far apart for {name}: store them as fp16"):
            Scheme.named(name).encode(torch.tensor([[0.0, 1e8]]))
    with pytest.raises(AttarError, match="only 4 classes; use int8"):
        Scheme.named("top4-int8").encode(torch.zeros(1, 4), 1.0)


def test_stored_labels_are_the_teachers_on_the_views_that_the_student_sees(tmp_path: Path) -> None:
    write_labels(tmp_path, labelling(), images(), teacher())
    stored = StoredLabels(tmp_path)
    index = torch.tensor([5, 0, 22, 7])
    for epoch in (0, 2, 5):
        online = teacher()(VIEWS(images(), epoch, index).view).detach()
        torch.testing.assert_close(stored(epoch, index), centred(online), rtol=2e-3, atol=2e-3)


def test_a_student_of_stored_labels_is_the_student_of_the_teacher(tmp_path: Path) -> None:
    write_labels(tmp_path, labelling(), images(), teacher())
    weights = []
    for taught in ({"teacher": teacher()}, {"labelled": StoredLabels(tmp_path)}):
        student = build("convnet3-w8", 5, 8, 0)
        plan = Plan(epochs=6, batch=7, lr=0.05, temperature=4.0)
        train(
            student,
            images(),
            torch.zeros(23, dtype=torch.int64),
            plan,
            HOW,
            0,
            supervision=Supervision(views=VIEWS, **taught),
        )
        weights.append(torch.cat([p.detach().flatten() for p in student.parameters()]))
    untrained = torch.cat([p.detach().flatten() for p in build("convnet3-w8", 5, 8, 0).parameters()])
    assert (weights[0] - untrained).abs().max() > 1e-2
    torch.testing.assert_close(*weights, rtol=0, atol=1e-4)


def test_an_interrupted_labelling_goes_on_at_its_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_labels, "SHARD_VIEWS", 40)
    write_labels(tmp_path / "whole", labelling(), images(), teacher())
    network, calls = teacher(), [0]

    def dying(views: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return network(views)

    with pytest.raises(KeyboardInterrupt):
        write_labels(tmp_path / "broken", labelling(), images(), dying)
    with pytest.raises(AttarError, match="no finished soft labels"):
        StoredLabels(tmp_path / "broken")
    write_labels(tmp_path / "broken", labelling(), images(), dying)
    assert calls[0] == 4, "an epoch a shard: only the third was made again"
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "broken" / file.name).read_bytes()
    stored = StoredLabels(tmp_path / "broken")
    online = teacher()(VIEWS(images(), 2, torch.arange(23)).view).detach()
    torch.testing.assert_close(stored(2, torch.arange(23)), centred(online), rtol=2e-3, atol=2e-3)


def test_a_teacher_in_half_precision_labels_about_the_same_under_a_key_of_its_own(tmp_path: Path) -> None:
    half = replace(labelling(), precision="bfloat16")
    write_labels(tmp_path / "whole", labelling(), images(), teacher())
    write_labels(tmp_path / "half", half, images(), teacher())
    whole, coarse = (StoredLabels(tmp_path / name) for name in ("whole", "half"))
    assert (whole.precision, coarse.precision) == ("float32", "bfloat16")
    of_whole, of_half = (stored(1, torch.arange(23)) for stored in (whole, coarse))
    assert 1e-4 < (of_whole - of_half).abs().max() < 0.05 * of_whole.abs().max()
    assert half.key != labelling().key
    assert "precision" not in whole.manifest["labelling"], "keys of labels that were made before stay"
    assert whole.differences(half) == coarse.differences(labelling()) == ["with another precision"]


def test_a_key_says_how_a_gpu_makes_crops_where_there_are_crops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Artefact]()

    def made_already(_: Store, artefact: Artefact, __: object) -> Path:
        asked.append(artefact)
        return tmp_path

    write_labels(tmp_path, labelling(), images(), teacher())
    monkeypatch.setattr(Store, "once", made_already)
    monkeypatch.setattr("attar.evaluation.labels.device_class", lambda device: "a GPU")
    for crop in (None, 0.3):
        views = replace(VIEWS, how=replace(HOW, crop=crop))
        soft = SoftLabels(RECIPE, views, "images", 5, teacher(), store=Store(tmp_path))
        soft.stored(images, torch.device("cuda"), silent)
    assert [artefact.recorded.get("views") for artefact in asked] == [None, "crops of a batch at once"]


def test_stored_labels_are_taken_in_whatever_precision_they_were_made(tmp_path: Path) -> None:
    write_labels(tmp_path, replace(labelling(), temperature=None), images(), teacher())
    given = SoftLabels(RECIPE, VIEWS, "images", 5, None, StoredLabels(tmp_path), precision="bfloat16")
    assert given.labelling is not None
    assert given.labelling.precision == "float32"


def test_labels_of_views_are_made_in_the_precision_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attar.evaluation.precision.multiplies_bfloat16", lambda device: True)
    for changes, precision in (({}, "float32"), ({"precision": "bfloat16"}, "bfloat16")):
        for scheme, made in (("int8", precision), ("fixed", "float32")):
            recipe = modified(RECIPE, {"scheme": scheme, **changes})
            students = Students(digits(23), digits(5), recipe, "convnet3-w8", "cpu", teacher(10))
            assert students.soft is not None
            assert students.soft.labelling is not None
            assert students.soft.labelling.precision == made


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(labelling(), images="others"), "of other images"),
        (replace(labelling(), teacher="another"), "by another teacher"),
        (labelling(scheme="int8"), "in another scheme"),
        (labelling(replace(VIEWS, epochs=4)), r"of other views \(epochs 4 here, 3 there\)"),
        (labelling(replace(VIEWS, how=replace(HOW, crop=0.5))), r"of other views \(crop 0.5 here, 0.3 there\)"),
    ],
)
def test_foreign_labels_are_refused(other: Labelling, message: str, tmp_path: Path) -> None:
    write_labels(tmp_path, labelling(), images(), teacher())
    StoredLabels(tmp_path).check(labelling())
    with pytest.raises(AttarError, match=message):
        StoredLabels(tmp_path).check(other)


def _cut_off(folder: Path) -> None:
    (folder / "labels-00000.safetensors").unlink()


def _altered(folder: Path) -> None:
    file = folder / "labels-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")


def _newer(folder: Path) -> None:
    manifest = json.loads((folder / "labels.json").read_text())
    (folder / "labels.json").write_text(json.dumps({**manifest, "format": 99}))


def _older(folder: Path) -> None:
    manifest = json.loads((folder / "labels.json").read_text())
    (folder / "labels.json").write_text(json.dumps({**manifest, "format": 1}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [(_cut_off, "missing"), (_altered, "altered"), (_newer, "a newer Attar"), (_older, "an older Attar.*relabel")],
)
def test_damaged_labels(harm: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    write_labels(tmp_path, labelling(), images(), teacher())
    harm(tmp_path)
    with pytest.raises(AttarError, match=message):
        StoredLabels(tmp_path)(0, torch.arange(2))


def test_labels_say_how_many_epochs_a_shard_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_labels(tmp_path / "one", labelling(), images(), teacher())
    monkeypatch.setattr(soft_labels, "SHARD_VIEWS", 50)
    write_labels(tmp_path / "two", labelling(), images(), teacher())
    index = torch.tensor([5, 0, 22, 7])
    one, two = StoredLabels(tmp_path / "one"), StoredLabels(tmp_path / "two")
    assert [len(labels.manifest["shards"]) for labels in (one, two)] == [1, 2]
    for epoch in range(3):
        assert torch.equal(one(epoch, index), two(epoch, index))


def test_labels_written_from_python_do_not_say_their_recipe(tmp_path: Path) -> None:
    write_labels(tmp_path, labelling(), images(), teacher())
    with pytest.raises(AttarError, match="was not written by `attar relabel`, and does not say its recipe"):
        labelled_recipe(tmp_path, None)
    conditions = Conditions(("convnet3-w8",), (0,), labels=tmp_path, device="cpu")
    with pytest.raises(AttarError, match="does not say its teacher"):
        open_label_source(RECIPE, digits(23), conditions, lambda: (digits(5), "images"))


def test_the_temperature_is_of_the_largest_alone(store: Store) -> None:
    common: dict[str, Any] = {"network": "convnet3-w8", "device": "cpu", "teacher": teacher()}
    for changes in ({"scheme": "int8"}, {"scheme": "top2-int8"}):
        for temperature in (4.0, 20.0):
            recipe = modified(RECIPE, {**changes, "temperature": temperature, "epochs": 1})
            evaluate(Students(digits(20), digits(30), recipe, store=store, **common), (0,))
    found = [StoredLabels(folder).scheme.top for folder in (store.root / "soft-labels").iterdir() if folder.is_dir()]
    assert sorted(found, key=str) == [2, 2, None], "int8 once, and the two largest at each temperature"


def digits(n: int) -> LabelledImages:
    pixels = images(n, 8, 8).numpy()
    return LabelledImages(pixels, np.arange(n) % 5, tuple("abcde"))


def test_evaluation_stores_labels_once_and_students_share_them(store: Store) -> None:
    common: dict[str, Any] = {"network": "convnet3-w8", "device": "cpu", "teacher": teacher()}
    found = evaluate(Students(digits(20), digits(30), RECIPE, store=store, **common), (0, 1))
    assert found.labels is not None
    assert (found.labels["scheme"], found.labels["epochs"], found.labels["bytes"]) == ("fp16", 3, 3 * 20 * 10)
    (folder,) = [path for path in (store.root / "soft-labels").iterdir() if path.is_dir()]
    stored = StoredLabels(folder)
    before = (folder / "labels-00000.safetensors").stat().st_mtime_ns
    common["teacher"] = None
    again = evaluate(Students(digits(20), digits(30), RECIPE, store=store, labels=stored, **common), (0, 1, 2))
    assert again.accuracies[:2] == found.accuracies
    assert (folder / "labels-00000.safetensors").stat().st_mtime_ns == before
    with pytest.raises(AttarError, match="of other images"):
        evaluate(Students(digits(21), digits(30), RECIPE, labels=stored, **common), (0,))
    with pytest.raises(AttarError, match="uses no stored labels"):
        evaluate(Students(digits(20), digits(30), RECIPES.open("rded-soft-cifar"), labels=stored, **common), (0,))


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up")  # labels without a store end with what asked for them
def test_online_and_stored_students_agree_and_fewer_epochs_are_smaller() -> None:
    common: dict[str, Any] = {"network": "convnet3-w8", "device": "cpu", "teacher": teacher()}
    sizes = []
    for changes in ({"scheme": "online"}, {}, {"scheme": "int4"}, {"scheme": "int8", "label_epochs": 1}):
        found = evaluate(Students(digits(20), digits(200), modified(RECIPE, changes), **common), (0,))
        assert found.labels is not None
        sizes.append(found.labels["bytes"])
    assert sizes == [0, 3 * 20 * 10, 3 * 20 * (3 + 2), 20 * (5 + 2)]


def test_normalised_views_reach_the_student_as_without_soft_labels() -> None:
    plain = Views(Augmentation(8, normalise="half"), 4, epochs=1)
    x = images(4, 8, 8)
    torch.testing.assert_close(plain(x, 0, torch.arange(4)).view, normalised(x, "half"))
