"""Fixed soft labels that a set holds itself: made at distillation, copied with it, learnt from without a flag."""

from __future__ import annotations

import html
import itertools
import json
import re
import runpy
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from test_hub import Hub
from toys import attar, save_folder

import attar as house
from attar.core.errors import AttarError
from attar.core.progress import silent
from attar.core.store import Store
from attar.core.whole_command import StageForecast, WholeCommand
from attar.distillation.cost import tell
from attar.evaluation.records_file import read_records
from attar.experiments.compare import compare
from attar.experiments.spec import Experiment, read_experiment
from attar.report import write_report
from attar.report.manifest_rows import distill_command, settings
from attar.report.tables import heading
from attar.sets.distilled import find_distilled, open_distilled, stored, verify
from attar.sets.expand import expand
from attar.sets.hub import Publication, pull, push
from attar.sets.urls import pull_from_url, push_to_url
from attar.teachers import soft_labels
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

LOGITS = "labels/labels-00000.safetensors"
JUDGED: dict[str, Any] = {"network": "convnet3-w8", "seeds": 1, "device": "cpu"}
SHORT = {"steps": 4, "warmup": 0}


def quiet(text: str) -> None:
    """Says nothing."""


def made(out: Path, **more: Any) -> Path:
    """A set of random digits."""
    return house.distill("digits", **{"method": "random", "ipc": 2, "out": out, "device": "cpu", **more})[0]


def taught(data: str, out: Path, **more: Any) -> Path:
    how: dict[str, Any] = {"network": "convnet3-bn-w8", "flip": False, "epochs": 1, "device": "cpu", **more}
    train_teacher(TeacherTraining(data, **how), out, store=Store(out.parent / "cache"), say=quiet)
    return out


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of the digits, and the same random images as a set without labels and as one with."""
    root = tmp_path_factory.mktemp("own-labels")
    taught("digits", root / "teacher", epochs=8, batch=64, lr=0.25)
    made(root / "plain")
    made(root / "set", labels="fixed", label_teacher=str(root / "teacher"))
    return root


@pytest.fixture
def teacher(world: Path) -> str:
    return str(world / "teacher")


def written(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text()))


def test_a_set_holds_its_labels_and_says_whose_they_are(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, plain = written(world / "set"), written(world / "plain")
    assert verify(world / "set") == []
    assert set(manifest) - set(plain) == {"labels", "label_scheme", "label_teacher", "labelled_by"}
    assert (manifest["images"], plain["format"], manifest["format"]) == (plain["images"], 1, 3)
    assert manifest["run"] != plain["run"]
    assert manifest["label_scheme"] == "fixed"
    assert manifest["labelled_by"]["teacher"] == str(world / "teacher")
    assert manifest["seconds"]["labels"] >= 0
    assert "| soft labels | fixed, by " in (world / "set" / "README.md").read_text()
    words = ["relabel", world / "plain", "--teacher", world / "teacher", "--scheme", "fixed", "--device", "cpu"]
    assert attar(monkeypatch, *words, "--out", tmp_path / "labels") == 0
    apart, own = (
        load_file(file)["values"] for file in (tmp_path / "labels" / "labels-00000.safetensors", world / "set" / LOGITS)
    )
    assert torch.equal(apart, own)


def test_parts_of_mosaics_have_the_labels_of_the_images_that_they_were_reduced_from(
    teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"formation": 2, "labels": "fixed", "label_teacher": teacher, "ipc": 2}
    folder = made(tmp_path / "mosaics", **asked)
    whole = made(tmp_path / "whole", **{**asked, "formation": 1, "ipc": 8})
    assert written(folder)["labelled_by"]["looked_at"].startswith("the real images")
    assert "looked_at" not in written(whole)["labelled_by"]
    own, expected = (load_file(of / LOGITS)["values"] for of in (folder, whole))
    assert torch.equal(own, expected), "the same images, in parts or each by itself"
    words = ["relabel", folder, "--teacher", teacher, "--scheme", "fixed", "--device", "cpu"]
    assert attar(monkeypatch, *words, "--out", tmp_path / "labels") == 0
    parts = soft_labels.StoredLabels(tmp_path / "labels")
    assert not torch.equal(load_file(parts.folder / "labels-00000.safetensors")["values"], own)
    assert parts.key != soft_labels.StoredLabels(folder / "labels").key, "what is learnt from either is kept apart"
    (record,) = house.evaluate(folder, **JUDGED, fields=SHORT, baseline=False)
    assert record["n_train"] == 80


def test_the_methods_own_teacher_labels_where_no_other_is_named(world: Path, teacher: str, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"method": "herding", "fields": {"select.teacher": teacher}, "labels": "fixed-int8"}
    own = written(made(tmp_path / "own", **chosen))
    assert own["labelled_by"]["teacher"] == teacher
    assert own["label_scheme"] == "fixed-int8"
    other = taught("digits", tmp_path / "other", epochs=6, batch=64, lr=0.25, seed=1)
    named = written(made(tmp_path / "named", **chosen, label_teacher=str(other)))
    assert named["labelled_by"]["teacher"] == str(other)
    assert named["label_teacher"] != own["label_teacher"]
    rded = {"method": "rded", "fields": {"teacher": teacher}, "labels": "fixed", "ipc": 1}
    assert written(made(tmp_path / "rded", **rded))["labelled_by"]["teacher"] == teacher


def test_what_is_wrong_is_said_before_there_are_images(world: Path, teacher: str, tmp_path: Path) -> None:
    save_folder(tmp_path / "data", ["ant", "bee"], each=40, size=8)
    elsewhere = taught(f"imagefolder:{tmp_path / 'data'}", tmp_path / "elsewhere", shift=0)
    cases: list[tuple[Mapping[str, Any], str]] = [
        ({"labels": "fixed"}, "the method names no teacher; name one as `label_teacher`"),
        ({"labels": "fixed", "label_teacher": "nobody"}, "`label_teacher` nobody: there is no such folder; give"),
        ({"labels": "fixed", "label_teacher": str(elsewhere)}, "does not know these classes of the set"),
        ({"labels": "fixed", "label_teacher": str(tmp_path / "none")}, "there is no such folder"),
        ({"label_teacher": teacher}, "ask for them with `labels` fixed"),
        ({"labels": "int8", "label_teacher": teacher}, "a set holds one an image: choose fixed, fixed-int8"),
        ({"labels": "fixed-int9", "label_teacher": teacher}, "scheme 'fixed-int9'"),
    ]
    for words, message in cases:
        with pytest.raises(AttarError, match=message):
            made(tmp_path / "out", **words)
        assert not list(tmp_path.glob("*out*")), words


def test_a_dry_run_says_what_labels_take(teacher: str, tmp_path: Path) -> None:
    said: list[str] = []
    asked = {"labels": "fixed-int8", "label_teacher": teacher, "formation": 2}
    made(tmp_path / "out", ipc=[1, 2], dry_run=True, say=said.append, **asked)
    assert any("; 120 images to label as fixed-int8, " in line for line in said)
    assert any(line.startswith(f"{teacher}: ") and " % right, classes by name" in line for line in said)
    assert not (tmp_path / "out").exists()


def test_a_weak_teacher_that_chooses_and_labels_is_told_of_once(
    teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = itertools.count(1)
    monkeypatch.setattr("attar.teachers.check._weakness", lambda *about: f"weak at trial {next(tried)}")
    chosen: dict[str, Any] = {"method": "herding", "fields": {"select.teacher": teacher}, "labels": "fixed"}
    for name, asked in (("herding", chosen), ("random", {"labels": "fixed", "label_teacher": teacher})):
        said: list[str] = []
        made(tmp_path / name, dry_run=True, say=said.append, **asked)
        assert sum("weak at trial" in line for line in said) == 1, name


def test_labelling_is_not_taken_for_a_round_of_the_fit() -> None:
    fit = StageForecast(10.0, rounds=(1.0, 1.0))
    whole = WholeCommand(silent, {"the fit": fit})
    tell(whole, "fitting 'cat'", 0.5)
    tell(whole, "labelling, 4/20 views", 0.2)
    assert fit.share == 0.25


def test_sets_are_labelled_once_and_those_without_labels_left_alone(
    world: Path, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, plain = tmp_path / "own", tmp_path / "plain"
    for name in ("own", "plain"):
        shutil.copytree(world / ("set" if name == "own" else "plain"), tmp_path / name)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def again(*words: object) -> None:
        raise AssertionError("labelled again")

    monkeypatch.setattr(soft_labels, "write_shard", again)
    said: list[str] = []
    made(own, labels="fixed", label_teacher=teacher, say=said.append)
    assert f"{own} is already there" in said
    for folder, words in ((plain, {"labels": "fixed", "label_teacher": teacher}), (own, {})):
        with pytest.raises(AttarError, match=r"another run \(other label_scheme and label_teacher\)"):
            made(folder, **words)
    with pytest.raises(AttarError, match=r"another run \(other label_scheme\)"):
        made(own, labels="fixed-int8", label_teacher=teacher)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_run_goes_on_between_images_labels_and_manifest(
    world: Path, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the labels, and again before the set appears: images are there, then labels are, and no set is."""
    out, asked = tmp_path / "out", {"labels": "fixed", "label_teacher": teacher}
    shard, column, calls = soft_labels.write_shard, "attar.sets.distilled.add_column", list[str]()

    def killed(*words: object) -> None:
        raise KeyboardInterrupt

    def counted(*words: Any) -> None:
        calls.append("labelled")
        shard(*words)

    with monkeypatch.context() as patch:
        patch.setattr(soft_labels, "write_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            made(out, **asked)
    (half,) = tmp_path.glob(".out.*.partial")
    assert len(list(half.rglob("*.png"))) == 20
    assert not (half / LOGITS).exists()
    assert not out.exists()
    monkeypatch.setattr(soft_labels, "write_shard", counted)
    with monkeypatch.context() as patch:
        patch.setattr(column, killed)
        with pytest.raises(KeyboardInterrupt):
            made(out, **asked)
    assert (half / LOGITS).exists()
    assert not out.exists()
    made(out, **asked)
    assert calls == ["labelled"]
    assert verify(out) == []
    assert not half.exists()
    assert (out / LOGITS).read_bytes() == (world / "set" / LOGITS).read_bytes()


def test_they_are_learnt_from_without_a_flag(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def judged(name: str, fields: Mapping[str, Any] = SHORT, **more: Any) -> dict[str, Any]:
        how = {"baseline": False, "say": said.append, **JUDGED, **more}
        (record,) = house.evaluate(world / name, fields=dict(fields), **how)
        return record

    own = judged("set")
    assert own["labels"]["scheme"] == "fixed"
    assert any(line.startswith("learnt from: the sets' own soft labels, by ") for line in said)
    given = judged("plain", labels=world / "set" / "labels")
    assert (given["accuracies"], given["changes"]) == (own["accuracies"], own["changes"])
    hard = judged("set", {**SHORT, "labels": "hard"})
    assert hard["labels"] is None
    assert hard["accuracies"] == judged("plain")["accuracies"]
    rded = judged("set", {"epochs": 1}, recipe="rded-soft-cifar")
    assert (rded["recipe"], rded["labels"]["scheme"]) == ("rded-soft-cifar (modified)", "fixed")
    views = judged("set", {"epochs": 1}, recipe="rded-soft-cifar", teacher=str(world / "teacher"))
    assert views["labels"]["scheme"] == "online"
    both = judged("set", baseline=True)
    assert both["baseline"]["labels"]["scheme"] == "fixed"
    assert both["teacher"]["source"] == str(world / "teacher")
    other = taught("digits", tmp_path / "other", epochs=6, batch=64, lr=0.25, seed=1)
    words = ["relabel", world / "set", "--teacher", other, "--scheme", "fixed", "--device", "cpu"]
    assert attar(monkeypatch, *words, "--out", tmp_path / "labels") == 0
    assert judged("set", labels=tmp_path / "labels")["labels"]["teacher"] != own["labels"]["teacher"]


def test_a_report_says_how_they_were_made_and_learnt_from(
    world: Path, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, plain = open_distilled(world / "set"), open_distilled(world / "plain")
    assert distill_command(own).endswith(f"--labels fixed --label-teacher {teacher} --out {own.folder}")
    hostile = replace(own, manifest={**own.manifest, "label_scheme": "fixed; true"})
    assert "--labels 'fixed; true' --label-teacher" in distill_command(hostile)
    assert "--label" not in distill_command(plain)
    assert dict(settings(own.manifest)["Soft labels"])["teacher"] == teacher
    assert "Soft labels" not in settings(plain.manifest)
    common = ["--network", "convnet3-w8", "--seeds", 1, "--device", "cpu", "--no-baseline", "--set", "steps=4"]
    common += ["--set", "warmup=0", "--json", tmp_path / "r.json"]
    taught = ["--teacher", teacher, "--set", "scheme=fixed"]
    kinds = ([own.folder], [own.folder, "--set", "labels=hard"], [own.folder, *taught], [plain.folder])
    for words in (*kinds, [plain.folder, *taught]):
        assert attar(monkeypatch, "evaluate", *words, *common) == 0
    records = read_records(tmp_path / "r.json")
    write_report([own.folder, plain.folder], records, tmp_path / "page.html")
    page = html.unescape((tmp_path / "page.html").read_text())
    asking = r"attar evaluate \S+/(set|plain) --recipe quick((?: --set \S+)*) --network \S+ --seeds 1( --teacher \S+)?"
    judged = {
        (name, tuple(re.findall(r"(?:labels|scheme)=\w+", fields)), bool(by))
        for name, fields, by in re.findall(asking, page)
    }
    assert judged == {
        ("set", ("labels=soft", "scheme=fixed"), False),
        ("set", ("labels=hard",), False),
        ("set", ("labels=soft", "scheme=fixed"), True),
        ("plain", (), False),
        ("plain", ("labels=soft", "scheme=fixed"), True),
    }
    assert "fixed in the set, by " in page


def test_of_several_sets_all_must_hold_labels(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    made(tmp_path / "both", ipc=[1, 2], labels="fixed", label_teacher=str(world / "teacher"))
    common = ["--network", "convnet3-w8", "--seeds", 1, "--device", "cpu", "--no-baseline", "--set", "steps=2"]
    common += ["--set", "warmup=0", "--json", tmp_path / "r.json"]
    assert attar(monkeypatch, "evaluate", tmp_path / "both", *common) == 0
    said = capsys.readouterr().out
    assert "the sets' own soft labels" in said
    assert "(their classes alone: set labels = hard)" in said
    first, second = json.loads((tmp_path / "r.json").read_text())
    assert (first["labels"]["bytes"], second["labels"]["bytes"]) == (200, 400)
    assert attar(monkeypatch, "evaluate", world / "set", world / "plain", *common, "--dry-run") == 0
    assert "holds soft labels, and not all of these sets do" in capsys.readouterr().out


def test_python_reads_them(world: Path) -> None:
    loaded, own = house.load_set(world / "set"), house.DistilledDataset(world / "set")
    values = load_file(world / "set" / LOGITS)["values"].float().numpy()
    assert loaded.logits is not None
    assert np.array_equal(loaded.logits, values)
    assert own.logits is not None
    assert np.array_equal(own.logits, values)
    assert (loaded.logits.argmax(1) == loaded.labels).mean() > 0.5
    assert house.load_set(world / "plain").logits is None
    assert house.DistilledDataset(world / "plain").logits is None


def test_parts_of_mosaics_have_labels_of_their_own(world: Path, teacher: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    cached = {"split": "train", "cache_dir": str(tmp_path / "hf")}
    mosaics = made(tmp_path / "mosaics", ipc=1, formation=2, labels="fixed", label_teacher=teacher)
    loaded = house.load_set(mosaics)
    assert loaded.logits is not None
    assert loaded.logits.shape == (40, 10)
    assert house.DistilledDataset(mosaics, expanded=False).logits is None
    read = datasets.load_dataset("imagefolder", data_dir=str(mosaics), **cached)
    assert np.array_equal(np.array(read["logits"], np.float32), loaded.logits.reshape(10, 4, 10))
    expand(open_distilled(mosaics), tmp_path / "parts")
    assert verify(tmp_path / "parts") == []
    parts = house.load_set(tmp_path / "parts")
    assert parts.logits is not None
    assert np.array_equal(parts.logits, loaded.logits)
    how = {"baseline": False, "say": quiet, "fields": SHORT, **JUDGED}
    (whole,), (apart,) = (house.evaluate(folder, **how) for folder in (mosaics, tmp_path / "parts"))
    assert apart["accuracies"] == whole["accuracies"]


def test_a_pushed_set_is_read_with_its_labels(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    cached = {"split": "train", "cache_dir": str(tmp_path / "hf")}
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(Hub, "root", tmp_path / "hub", raising=False)
    said, logits = list[str](), house.load_set(world / "set").logits
    assert logits is not None
    push(open_distilled(world / "set"), Publication("me/digits"), say=said.append)
    assert str(world / "teacher") in said[0], "labels.json names it"
    plain = datasets.load_dataset("imagefolder", data_dir=str(world / "plain"), **cached)
    for name, words in (("card", [str(tmp_path / "hub" / "me" / "digits")]), ("folder", ["imagefolder"])):
        more = {} if name == "card" else {"data_dir": str(world / "set")}
        read = datasets.load_dataset(*words, **more, **cached)
        assert read.column_names == ["image", "label", "logits"]
        assert read.features["label"] == plain.features["label"]
        assert np.array_equal(np.array(read["logits"], np.float32), logits)
        assert read["label"] == plain["label"]
        for row, other in zip(read, plain, strict=True):
            assert np.array_equal(np.asarray(row["image"]), np.asarray(other["image"]))
    pull("me/digits", tmp_path / "pulled")
    push_to_url(open_distilled(world / "set"), f"file://{tmp_path / 'bucket'}")
    pull_from_url(f"file://{tmp_path / 'bucket'}", tmp_path / "fetched")
    for back in ("pulled", "fetched"):
        assert (tmp_path / back / LOGITS).read_bytes() == (world / "set" / LOGITS).read_bytes()
    push(open_distilled(world / "plain"), Publication("me/digits"))
    assert not (tmp_path / "hub" / "me" / "digits" / LOGITS).exists()
    assert not (tmp_path / "hub" / "me" / "digits" / "images" / "metadata.parquet").exists()


def test_a_set_with_labels_is_told_from_a_folder_of_classes(world: Path) -> None:
    with pytest.raises(AttarError, match="is a distilled set: its class folders are in"):
        house.load_data(f"imagefolder:{world / 'set'}")


def test_the_plain_loop_learns_from_them(
    world: Path, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = str(Path(__file__).parent.parent / "examples" / "train_on_a_set.py")
    learnt_from = runpy.run_path(file)["learnt_from"]
    classes = torch.arange(10).repeat_interleave(2)
    logits = torch.from_numpy(house.load_set(world / "set").logits)
    assert torch.equal(learnt_from(world / "set")[1], (logits / 2).softmax(1))
    assert torch.equal(learnt_from(world / "plain")[1], F.one_hot(classes).float())
    for said, targets in ((0.5, (logits / 0.5).softmax(1)), ("none", F.one_hot(classes).float())):
        manifest = written(world / "set")
        manifest["labelled_by"]["advice"] = {"temperature": said}
        shutil.copytree(world / "set", tmp_path / str(said))
        (tmp_path / str(said) / "manifest.json").write_text(json.dumps(manifest))
        assert torch.equal(learnt_from(tmp_path / str(said))[1], targets)
    coarse = made(tmp_path / "coarse", labels="fixed-int8", label_teacher=teacher)
    held = torch.from_numpy(house.load_set(coarse).logits)
    assert torch.equal(learnt_from(coarse)[1], (held / 2).softmax(1))
    mosaics = made(tmp_path / "mosaics", formation=2, labels="fixed", label_teacher=teacher)
    words = [mosaics, world / "set" / "images", "--steps", "2", "--no-flip"]
    monkeypatch.setattr("sys.argv", ["train_on_a_set.py", *map(str, words)])
    runpy.run_path(file, run_name="__main__")
    assert capsys.readouterr().out.startswith("80 images: ")


def test_several_schemes_are_refused(world: Path, teacher: str, tmp_path: Path) -> None:
    made(tmp_path / "sets" / "coarse", labels="fixed-int8", label_teacher=teacher)
    shutil.copytree(world / "set", tmp_path / "sets" / "fine")
    with pytest.raises(AttarError, match=r"several schemes \(.*coarse as fixed-int8, .*fine as fixed\)"):
        list(house.evaluate(tmp_path / "sets", **JUDGED))
    assert len(list(house.evaluate(tmp_path / "sets", **JUDGED, fields={"labels": "hard", **SHORT}))) == 2


EXPERIMENT = """data = "digits"
ipc = 2
seeds = 1
out = "{out}"
device = "cpu"
{head}
[methods.random]
[methods.herding]
{own}
[evaluations.hard]
{more}
recipe = "quick"
networks = ["convnet3-w8"]
set = {{steps = 4, warmup = 0}}
[evaluations.soft]
recipe = "quick"
networks = ["convnet3-w8"]
set = {{steps = 4, warmup = 0, scheme = "fixed", temperature = 3}}
"""


def experiment(folder: Path, head: str = "", own: str = "", more: str = "") -> Experiment:
    file = folder / "file.toml"
    file.write_text(EXPERIMENT.format(out=folder / "out", head=head, own=own, more=more))
    return read_experiment(file)


def test_an_experiment_learns_from_the_labels_of_its_sets(teacher: str, tmp_path: Path) -> None:
    asked = experiment(tmp_path, f'labels = "fixed"\nlabel_teacher = "{teacher}"')
    assert not compare(asked, dry_run=True).panels[0].cells
    said: list[str] = []
    summary = compare(asked, say=said.append)
    assert [len(panel.cells) for panel in summary.panels] == [2, 2]
    assert [line.split(":")[0] for line in said if " % (n = 1" in line] == ["hard", "hard", "soft", "soft"]
    assert heading(asked, summary.panels[1]).endswith(f"warmup=0, the labels of the sets, by {teacher}")
    records = {record.trial.judged: record for record in read_records(asked.out / "results.json") if record.trial}
    hard, soft = sorted(records.values(), key=lambda record: record.teacher is not None)
    assert hard.teacher is None
    assert soft.teacher
    (by_hand,) = house.evaluate(soft.set, **JUDGED, fields={"steps": 4, "warmup": 0, "temperature": 3})
    assert by_hand["accuracies"] == list(soft.accuracies)
    assert by_hand["teacher"] == soft.teacher


@pytest.mark.parametrize(
    ("head", "own", "wrong"),
    [
        ("", "", r"soft\]: recipe quick .*: name a teacher, .*; those of random hold none"),
        ("", 'labels = "fixed"\nlabel_teacher = "x"', r"those of random hold none"),
        ('labels = "fixed"\nlabel_teacher = "x"', 'labels = "fixed-int8"', r"those of herding hold fixed-int8"),
        ('label_temperature = "2"', "", r"label_temperature in the file: all sets are judged at one; name it in"),
        ("", 'label-temperature = "2"', r"label_temperature in \[methods\.herding\]"),
        ('label_teacher = "x"', "", r"label_teacher in the file: gives labels: ask for them with labels = "),
        ('labels = "fixed"\nlabel_teacher = "x"', 'labels = "none"', r"those of herding hold none"),
        ('labels = "fixed"', "", r"\[methods\.random\]: `labels` fixed: the method names no teacher"),
    ],
)
def test_labels_that_sets_will_not_hold_are_missed_at_once(tmp_path: Path, head: str, own: str, wrong: str) -> None:
    with pytest.raises(AttarError, match=wrong):
        experiment(tmp_path, head, own)


def test_a_label_teacher_that_is_not_there_is_told_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(AttarError, match=r" label_teacher = nobody: .*\n.*edit label_teacher in the file"):
        compare(experiment(tmp_path, 'labels = "fixed"\nlabel_teacher = "nobody"'))


def test_what_says_more_of_a_teacher_needs_one(tmp_path: Path) -> None:
    with pytest.raises(AttarError, match=r"hard\]: teacher_classes and teacher_normalise say more of a teacher"):
        experiment(tmp_path, more='teacher_classes = "x"')


def test_results_of_other_labels_are_kept_apart(teacher: str, tmp_path: Path) -> None:
    other = str(taught("digits", tmp_path / "other", epochs=8, batch=64, lr=0.25, seed=1))
    seen: list[dict[int, float]] = []
    for labelled_by in (teacher, other, teacher):
        asked = experiment(tmp_path, f'labels = "fixed"\nlabel_teacher = "{labelled_by}"')
        shutil.rmtree(asked.out / "sets", ignore_errors=True)
        only = ["herding"] if labelled_by == other else []
        panel = compare(asked, only=only).panels[1]
        assert [label for label, _ in panel.cells] == only or not only
        seen.append({number: cell.mean for number, cell in enumerate(panel.cells.values())})
    assert seen[0] == seen[2]
    assert seen[0] != seen[1]


def test_own_labels_and_those_of_their_teacher_stand_side_by_side(
    teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = (
        f'[evaluations.taught]\nrecipe = "quick"\nnetworks = ["convnet3-w8"]\nteacher = "{teacher}"\n'
        'set = {steps = 4, warmup = 0, scheme = "fixed", temperature = 3}'
    )
    head = f'labels = "fixed"\nlabel_teacher = "{teacher}"\nformation = 2'
    asked = experiment(tmp_path, head, f"{more}\n")
    panels = compare(asked).panels
    assert [len(panel.cells) for panel in panels] == [2, 2, 2]
    said: list[str] = []
    again = compare(experiment(tmp_path, head.replace(teacher, f"{teacher}/"), f"{more}\n"), say=said.append)
    assert any(line.startswith("0 trainings left") for line in said)
    assert [panel.cells for panel in again.panels] == [panel.cells for panel in panels]
    records = read_records(asked.out / "results.json")
    assert len(records) == 6
    own, others = (next(one for one in records if one.teacher and one.own_labels == wanted) for wanted in (True, False))
    assert f", own labels of {teacher}, fixed, " in own.protocol
    assert f", labels of {teacher}, fixed, " in others.protocol
    assert stored(open_distilled(Path(own.set))).bytes > sum(
        file.stat().st_size for file in Path(own.set).rglob("*.png")
    )

    capsys.readouterr()
    assert attar(monkeypatch, "report", asked.out, "--out", tmp_path / "page.html") == 0
    assert f"with the results in {asked.out}/results.json" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert "own labels of " in page
    assert "herding" in page
    (asked.out / "results.json").write_text('{"acc": 1}')
    shutil.rmtree(Path(own.set) / "labels")
    assert attar(monkeypatch, "report", asked.out, "--out", tmp_path / "again.html") == 0
    assert f"note: {asked.out}/results.json is left out: " in capsys.readouterr().out
    assert "missing: labels/labels.json" in (tmp_path / "again.html").read_text()


def test_an_experiment_beside_other_sets_hides_none(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "set", tmp_path / "mine")
    shutil.copytree(world / "plain", tmp_path / "sets" / "random" / "seed-0" / "ipc-002")
    found = [distilled.folder for distilled in find_distilled(tmp_path)]
    assert found == [tmp_path / "sets" / "random" / "seed-0" / "ipc-002", tmp_path / "mine"]


def test_several_teachers_label_the_sets_of_an_experiment(teacher: str, tmp_path: Path) -> None:
    other = str(taught("digits", tmp_path / "other", epochs=8, batch=64, lr=0.25, seed=1))
    asked = experiment(tmp_path, f'labels = "fixed"\nlabel_teacher = "{teacher},{other}"')
    said: list[str] = []
    compare(asked, dry_run=True, say=said.append)
    checked = next(line for line in said if line.startswith("random, seed 0: "))
    assert ": 20 of them will be copied; " in checked
    assert "20 images to label as fixed, " in checked
    assert any(line.endswith(", their labels not counted") for text in said for line in text.splitlines())


def test_altered_labels_are_found(world: Path, tmp_path: Path) -> None:
    for name in (LOGITS, "labels/labels.json", "images/metadata.parquet"):
        harmed = tmp_path / Path(name).name
        shutil.copytree(world / "set", harmed)
        (harmed / name).write_bytes(b"other")
        assert verify(harmed) == [f"altered: {name}"]
        (harmed / name).unlink()
        assert verify(harmed) == [f"missing: {name}"]
        manifest = written(harmed)
        del manifest["labels"][name]
        (harmed / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(AttarError, match="labels lists other files than"):
            open_distilled(harmed)
        del manifest["labelled_by"]
        (harmed / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(AttarError, match="labelled_by is missing, and labels are there"):
            open_distilled(harmed)
