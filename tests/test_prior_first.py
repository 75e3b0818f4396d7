"""A run that asks for a prior of its own: everything tried first, trained once, gone on with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from toys import attar as command
from toys import save_folder, save_tiny_dit

import attar
from attar.core.errors import AttarError
from attar.core.store import file_digest
from attar.distillation import prior_first
from attar.distillation.prior_first import prior_of
from attar.distillation.run_without_method import suited_teacher, teacher_of
from attar.experiments.compare import compare
from attar.experiments.spec import read_experiment
from attar.job import Job, Spec
from attar.priors.training import run as training
from attar.priors.training.settings import NewPrior, Report
from attar.sets.distilled import open_distilled
from attar.teachers import train as teachers
from attar.teachers.maps import TeacherMaps

CLASSES = ["ant", "bee", "cat"]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A run on tiny photographs, whose prior takes few steps."""
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    planned, report = prior_first._plan, Report(samples=6, steps=2, judge_steps=2)

    def small(job: Job) -> NewPrior:
        plan = planned(job)
        return replace(plan, report=report, training=replace(plan.training, steps=3, batch=4, hidden=32, layers=1))

    monkeypatch.setattr(prior_first, "_plan", small)
    data = save_folder(tmp_path / "data", CLASSES, each=6)
    return {"data": str(data), "prior": "train", "ipc": 2, "out": tmp_path / "runs" / "set"}


def test_a_prior_is_trained_first_and_once(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    how: dict[str, Any] = {"method": "prior", "fields": {"sampler.steps": 3}, "say": said.append}
    attar.distill(**asked, **how)
    place = prior_of(asked["out"])
    made = open_distilled(asked["out"])
    assert made.manifest["prior"]["source"] == str(place)
    assert said[0].startswith(f"a prior of the images is trained first, in {place}")
    assert said[0].endswith("; 18 images are few for a prior, of thousands it learns more")
    assert sum("network passes" in line for line in said) == 1
    assert json.loads((place / "training.json").read_text())["settings"]["align"] == str(teacher_of(asked["out"]))
    monkeypatch.setattr(training, "produce", None)
    said.clear()
    attar.distill(**asked, **how)
    assert said[0] == f"{place} is already there, and is this prior: nothing to do"
    assert "nothing left to do" in said[-1]
    said.clear()
    attar.distill(**asked, **how, dry_run=True)
    assert "nothing left to do" in said[-1]


@pytest.mark.parametrize(
    ("method", "fields", "foretold"),
    [
        ("prior", None, "network passes"),
        (None, None, "the images are chosen when"),
        ("herding", {"select.features": "prior"}, "for the prior to look at"),
    ],
)
def test_a_dry_run_foretells_both_and_writes_nothing(
    asked: dict[str, Any], method: str | None, fields: dict[str, Any] | None, foretold: str
) -> None:
    said: list[str] = []
    attar.distill(**asked, method=method, fields=fields, dry_run=True, say=said.append)
    text = "\n".join(said)
    assert "a DiT of " in text
    assert foretold in text
    assert text.count(" parameters; ") == 1, "the teacher's forecast, once"
    assert " for the teacher's maps" in text
    assert not asked["out"].parent.exists()


@pytest.mark.parametrize(("method", "told"), [("exemplars", True), ("prior", False), (None, False)])
def test_exemplars_that_choose_without_the_teacher_are_told_of_it(
    asked: dict[str, Any], method: str | None, told: bool
) -> None:
    said: list[str] = []
    attar.distill(**asked, method=method, dry_run=True, say=said.append)
    assert f", aligned with a small teacher of them, {teacher_of(asked['out'])}; " in said[0]
    assert ("`method` chooses without a teacher: leave it out, and this one chooses, too" in said[0]) == told


def test_a_prior_that_is_there_needs_its_teacher_no_more(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"method": "prior", "fields": {"sampler.steps": 3}}
    attar.distill(**asked, **how)
    shutil.rmtree(teacher_of(asked["out"]))
    monkeypatch.setattr(training, "produce", None)
    monkeypatch.setattr(teachers, "_train", None)
    for dry in (True, False):
        said: list[str] = []
        attar.distill(**asked, **how, dry_run=dry, say=said.append)
        assert "is already there, and is this prior" in said[0]
    assert not teacher_of(asked["out"]).exists()


def test_a_teacher_of_other_bits_makes_no_other_prior(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = {"method": "prior", "fields": {"sampler.steps": 3}}
    attar.distill(**asked, **how)
    monkeypatch.setattr(training, "produce", None)
    shutil.rmtree(asked["out"])
    weights = teacher_of(asked["out"]) / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    attar.distill(**asked, **how)
    assert open_distilled(asked["out"])


def test_another_prior_in_its_place_is_refused_before_the_teacher(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "_train", None)
    place = prior_of(asked["out"])
    for wrong, content in (("another run's prior", '{"key": "another"}'), ("holds no prior of ours", "{}")):
        place.mkdir(parents=True, exist_ok=True)
        (place / "training.json").write_text(content)
        with pytest.raises(AttarError, match=f"`out` {asked['out']}: {place} is .*{wrong}"):
            attar.distill(**asked, method="prior")
    assert sorted(path.name for path in place.parent.iterdir()) == [place.name]


def test_a_prior_that_is_gone_is_made_again_for_a_set_that_is_there(asked: dict[str, Any]) -> None:
    how: dict[str, Any] = {"method": "prior", "fields": {"sampler.steps": 3}}
    attar.distill(**asked, **how)
    shutil.rmtree(prior_of(asked["out"]))
    said: list[str] = []
    attar.distill(**asked, **how, dry_run=True, say=said.append)
    assert f"{asked['out']} is there; whether this run made it is seen when its prior is trained" in said
    with pytest.raises(AttarError, match=r"belongs to another run \(other seed\)"):
        attar.distill(**asked, **how, seed=1)
    attar.distill(**asked, **how, say=said.append)
    assert said[-1].endswith("nothing left to do")


def test_a_prior_that_is_damaged_or_no_folder_says_what_helps(asked: dict[str, Any]) -> None:
    how: dict[str, Any] = {"method": "prior", "fields": {"sampler.steps": 3}}
    attar.distill(**asked, **how)
    place = prior_of(asked["out"])
    (weights,) = (place / "transformer").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AttarError, match=f"of a prior that was trained for this run: remove {place}, and run again"):
        attar.distill(**asked, **how)
    shutil.rmtree(place)
    place.touch()
    with pytest.raises(AttarError, match=f"{place} is there, and is no folder"):
        attar.distill(**asked, **how)


def test_a_damaged_teacher_is_refused(asked: dict[str, Any]) -> None:
    how: dict[str, Any] = {"method": "prior", "fields": {"sampler.steps": 3}}
    attar.distill(**asked, **how)
    for folder in (asked["out"], prior_of(asked["out"])):
        shutil.rmtree(folder)
    (teacher_of(asked["out"]) / "model.safetensors").write_bytes(b"")
    with pytest.raises(AttarError, match=r"model\.safetensors is missing or not what teacher\.json says"):
        attar.distill(**asked, **how)


def test_one_class_is_told_of_no_teacher(asked: dict[str, Any], tmp_path: Path) -> None:
    said: list[str] = []
    one = {**asked, "data": str(save_folder(tmp_path / "one", ["ant"], each=6))}
    attar.distill(**one, method="prior", fields={"sampler.steps": 3}, dry_run=True, say=said.append)
    assert "small teacher" not in said[0]
    assert not any(".teacher" in line or ("network passes" in line and "teacher's maps" in line) for line in said)
    assert "5 images of 1 class, " in said[-1]


def test_a_folder_called_train_is_passed_over_and_said(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    said: list[str] = []
    attar.distill(**asked, method="prior", fields={"sampler.steps": 3}, dry_run=True, say=said.append)
    assert said[0].endswith("; the folder train is not looked at: a prior in it is ./train")


@pytest.mark.parametrize(
    ("other", "wrong"),
    [
        ({"method": "random"}, r"`prior` train: the method looks at nothing with it"),
        ({"method": "herding"}, r"`prior` train: the method looks at nothing with it"),
        ({"method": "prior", "ipc": 0}, r"`ipc` 0"),
        ({"method": "prior", "prompt": "a {name}"}, r"`prior` train: knows its classes by label"),
        ({"method": "cao2"}, r"select.teacher"),
        ({"method": "prior", "imbalance_factor": 10.0}, r"`imbalance_factor` 10: "),
        ({"method": "prior", "codec": "train"}, r"`codec` train: "),
        ({"method": "prior", "formation": 3}, r"formation"),
        ({"method": "prior", "data": "single"}, r"`prior` train: class 'ant' has a single image"),
    ],
)
def test_what_is_wrong_is_said_before_the_training(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, other: dict[str, Any], wrong: str
) -> None:
    monkeypatch.setattr(training, "produce", None)
    if other.get("data") == "single":
        other["data"] = str(save_folder(asked["out"].parent.parent / "single", CLASSES, each=1))
    with pytest.raises(AttarError, match=wrong):
        attar.distill(**{**asked, **other})
    assert not asked["out"].parent.exists()


def test_a_tenth_is_held_out_once(asked: dict[str, Any], tmp_path: Path) -> None:
    two = {**asked, "data": str(save_folder(tmp_path / "two", CLASSES, each=2)), "ipc": 1}
    attar.distill(
        **two, method="prior", fields={"sampler.steps": 3}, hold_out=True, dry_run=True, say=list[str]().append
    )


def test_a_dry_run_that_has_not_seen_all_images_calls_no_prior_anothers(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(asked["data"]) / "bee" / "003.png").write_bytes(b"no image")
    how: dict[str, Any] = {**asked, "method": "prior", "fields": {"sampler.steps": 3}, "on_bad_image": "skip"}
    attar.distill(**how)
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("attar.data.integrity.GLANCE", 4)
    said: list[str] = []
    attar.distill(**how, dry_run=True, say=said.append)
    unsure = "is there; whether this run made it is seen when all images are looked at"
    assert said[:2] == [f"{prior_of(asked['out'])} {unsure}", f"{asked['out']} {unsure}"]


def test_maps_are_known_by_the_weights_that_make_them(asked: dict[str, Any]) -> None:
    attar.distill(**asked, method="prior", fields={"sampler.steps": 3})
    shutil.rmtree(prior_of(asked["out"]))
    job, folder = Job(Spec(asked["data"])), teacher_of(asked["out"])

    def opened() -> TeacherMaps:
        return prior_first._maps(job, suited_teacher(job), asked["out"], list[str]().append)

    before, weights = opened(), folder / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    record = json.loads((folder / "teacher.json").read_text())
    (folder / "teacher.json").write_text(json.dumps({**record, "weights": file_digest(weights)}))
    assert opened().key != before.key
    assert opened().named == before.named


def test_the_command_takes_it(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for name in ("data", "prior", "ipc", "out") for word in (f"--{name}", asked[name])]
    assert command(monkeypatch, "distill", *words, "--method", "prior", "--set", "sampler.steps=3") == 0
    assert f"wrote {asked['out']}, made in " in capsys.readouterr().out


@pytest.mark.parametrize(("size", "classes"), [(4, CLASSES), (16, ["ant"])])
def test_images_too_small_for_a_teacher_and_one_class_make_a_prior_without(
    tmp_path: Path, size: int, classes: list[str]
) -> None:
    job = Job(Spec(str(save_folder(tmp_path / "data", classes, each=6, size=size))))
    assert prior_first._teacher(job) is None


def test_a_folder_called_tilde_is_where_the_prior_is_looked_for(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked["out"] = Path("~/set")
    attar.distill(**asked, method="prior", fields={"sampler.steps": 3})
    assert open_distilled(tmp_path / "~" / "set").manifest["prior"]["source"] == "./~/set.prior"


@pytest.mark.parametrize(
    "words",
    [("distill", "--method", "prior", "--ipc", "1", "--out", "set", "--explain", "--prior"), ("describe-prior",)],
)
def test_what_trains_no_prior_says_so(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert command(monkeypatch, *words, "train", "--data", asked["data"]) == 2
    assert "`attar distill` alone trains one first" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("epochs", "steps"), [(300, 2_000), (30_000, 18 * 30_000 // 128), (300_000, 10_000)])
def test_the_training_suits_the_images_and_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, steps: int
) -> None:
    monkeypatch.setattr(prior_first, "EPOCHS", epochs)
    data = save_folder(tmp_path / "data", CLASSES, each=6, size=70)
    asked: dict[str, Any] = {"preprocess": "squash", "on_bad_image": "skip", "device": "cpu", "dtype": "float32"}
    plan = prior_first._plan(Job(Spec(str(data), seed=7, **asked)))
    assert {name: getattr(plan, name) for name in asked} == asked
    assert (plan.data, plan.keep, plan.codec, plan.size) == (str(data), "best", "pixel", 64)
    assert (plan.training.seed, plan.training.steps, plan.training.patch) == (7, steps, 8)


@pytest.mark.parametrize(("side", "size", "patch"), [(61, 60, 10), (64, 64, 8), (28, 28, 4), (11, 10, 2), (1, 1, 1)])
def test_images_are_seen_at_a_size_that_can_be_cut(side: int, size: int, patch: int) -> None:
    assert (prior_first._size(side, 1, 8), prior_first._patch(size, 8)) == (size, patch)


def test_the_prior_has_the_autoencoder_that_was_asked_for(asked: dict[str, Any], tmp_path: Path) -> None:
    codec = str(save_tiny_dit(tmp_path / "dit", CLASSES))
    attar.distill(**asked, codec=codec, method="prior", fields={"sampler.steps": 3})
    made = open_distilled(asked["out"]).manifest["prior"]
    assert (prior_of(asked["out"]) / "vae").is_dir()
    assert made["codec_source"] is None


def test_an_autoencoder_takes_images_of_a_side_that_it_cannot_shrink(asked: dict[str, Any], tmp_path: Path) -> None:
    save_tiny_dit(tmp_path / "dit", CLASSES)
    data = save_folder(tmp_path / "odd", CLASSES, each=6, size=15)
    plan = prior_first._plan(Job(Spec(str(data), codec=str(tmp_path / "dit"))))
    assert (plan.size, plan.training.patch) == (12, 2)


@pytest.mark.parametrize(
    ("side", "most", "patch"), [(8, 8, 2), (32, 8, 4), (64, 8, 8), (64, 16, 4), (16, 8, 2), (7, 8, 7), (30, 8, 5)]
)
def test_patches_are_few_enough(side: int, most: int, patch: int) -> None:
    assert prior_first._patch(side, most) == patch


def test_an_experiment_trains_no_prior(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file.toml"
    judged = '[evaluations.quick]\nnetworks = ["convnet3"]\n'
    file.write_text(f'data = "digits"\nprior = "train"\nipc = 1\nout = "out"\n[methods.prior]\n{judged}')
    with pytest.raises(AttarError, match=r"prior = train: `attar distill` alone trains one first"):
        compare(read_experiment(file))
