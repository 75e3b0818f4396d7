"""The temperature that fixed labels are learnt from at: chosen by short trainings or given, kept with them, used."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_own_labels import JUDGED, SHORT, made, taught, written
from toys import attar

import attar as house
from attar.core.errors import AttarError
from attar.data.subsets import load_held_out
from attar.evaluation import label_temperature
from attar.evaluation.evaluator import Students
from attar.report.manifest_rows import distill_command, settings
from attar.sets.distilled import open_distilled, verify
from attar.sets.expand import expand
from attar.teachers.soft_labels import StoredLabels


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(taught("digits", tmp_path_factory.mktemp("temperature") / "teacher", epochs=8, batch=64, lr=0.25))


@pytest.fixture
def asked(teacher: str) -> dict[str, Any]:
    return {"labels": "fixed", "label_teacher": teacher, "label_temperature": "auto"}


@pytest.fixture
def best(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Makes one of what is tried the best, and gives the names of all that is."""

    def of(name: str) -> list[str]:
        tried: list[str] = []

        def judged(students: Students, seeds: Sequence[int], progress: Any) -> Any:
            tried.append(f"{students.recipe.temperature:g}" if students.recipe.fixed else "none")
            assert (students.labels is not None) == students.recipe.fixed
            return SimpleNamespace(mean=75.25 if tried[-1] == name else 40.0, std=1.0)

        monkeypatch.setattr(label_temperature, "evaluate", judged)
        return tried

    return of


def judged(folder: Path, fields: dict[str, Any], **more: Any) -> tuple[dict[str, Any], str]:
    """The record of a short evaluation, and what it said."""
    said: list[str] = []
    how = {"baseline": False, "say": said.append, **JUDGED, **more}
    (record,) = house.evaluate(folder, fields={**SHORT, **fields}, **how)
    return record, "\n".join(said)


def test_the_best_temperature_is_kept_and_used(
    best: Callable[[str], list[str]], asked: dict[str, Any], tmp_path: Path
) -> None:
    tried, said = best("1"), list[str]()
    folder = made(tmp_path / "set", say=said.append, formation=2, **asked)
    assert tried == ["none", "0.5", "1", "2", "4"]
    (line,) = [line for line in said if line.startswith("labels are best")]
    assert line.startswith("labels are best at temperature 1: none 40.0 ± 1.0, 0.5 40.0 ± 1.0, 1 75.2 ± 1.0, ")
    assert line.endswith("of the held-out tenth of digits@train, which images of the set may be among)")
    assert f", {len(load_held_out('digits@train'))} images of the held-out tenth" in line
    manifest = written(folder)
    assert verify(folder) == []
    assert (manifest["label_temperature"], manifest["labelled_by"]["advice"]["temperature"]) == ("auto", 1.0)
    assert StoredLabels(folder / "labels").advised == 1.0
    assert judged(folder, {})[0]["changes"]["temperature"] == 1.0
    assert judged(folder, {"temperature": 3})[0]["changes"]["temperature"] == 3.0
    own = open_distilled(folder)
    assert " --label-temperature auto --out " in distill_command(own)
    assert dict(settings(own.manifest)["Soft labels"])["advice.temperature"] == "1.0"
    expand(own, tmp_path / "parts")
    assert judged(tmp_path / "parts", {})[0]["changes"]["temperature"] == 1.0
    made(folder, say=said.append, formation=2, **asked)
    assert said[-1].endswith("nothing left to do") or f"{folder} is already there" in said
    assert len(tried) == 5


@pytest.mark.parametrize("name", ["none", "of equals"])
def test_labels_that_teach_less_than_classes_are_left_out(
    best: Callable[[str], list[str]], asked: dict[str, Any], tmp_path: Path, name: str
) -> None:
    best(name)
    said: list[str] = []
    folder = made(tmp_path / "set", say=said.append, **asked)
    assert any(line.startswith("labels are best left out: none ") for line in said)
    assert StoredLabels(folder / "labels").advised == "none"
    record, words = judged(folder, {})
    assert (record["labels"], record["recipe"]) == (None, "quick (modified)")
    assert "soft labels: they are left out, for classes alone taught more when that was tried" in words
    given, words = judged(folder, {}, labels=folder / "labels")
    assert (given["labels"], given["accuracies"]) == (None, record["accuracies"])
    assert "they are left out" in words
    wanted, _ = judged(folder, {"scheme": "fixed"})
    assert (wanted["labels"]["scheme"], wanted["changes"]["temperature"]) == ("fixed", 2.0)
    assert judged(folder, {"temperature": 4}, labels=folder / "labels")[0]["changes"]["temperature"] == 4.0


def test_a_given_temperature_is_kept_without_a_trial(
    best: Callable[[str], list[str]], asked: dict[str, Any], tmp_path: Path
) -> None:
    tried = best("none")
    folder = made(tmp_path / "sets" / "half", **{**asked, "label_temperature": 0.5})
    assert not tried
    assert written(folder)["labelled_by"]["advice"] == {"temperature": 0.5}
    assert judged(folder, {})[0]["changes"]["temperature"] == 0.5
    with pytest.raises(AttarError, match=r"another run \(other label_temperature\)"):
        made(folder, **{**asked, "label_temperature": None})
    made(tmp_path / "sets" / "plain", **{**asked, "label_temperature": None})
    with pytest.raises(AttarError, match=r"several temperatures \(.*: evaluate each by itself") as told:
        judged(tmp_path / "sets", {})
    assert "half: 0.5" in str(told.value)
    assert "plain: not said" in str(told.value)
    house.evaluate(tmp_path / "sets", fields={**SHORT, "temperature": 1}, baseline=False, **JUDGED)
    with pytest.raises(AttarError, match="several temperatures"):
        judged(tmp_path / "sets", {"scheme": "fixed"})


def test_labels_that_were_left_out_are_asked_for_at_the_usual_temperature_beside_others(
    best: Callable[[str], list[str]], asked: dict[str, Any], tmp_path: Path
) -> None:
    best("none")
    made(tmp_path / "sets" / "out", **asked)
    made(tmp_path / "sets" / "plain", **{**asked, "label_temperature": None})
    with pytest.raises(AttarError, match="several temperatures"):
        judged(tmp_path / "sets", {})
    records = house.evaluate(tmp_path / "sets", fields={**SHORT, "scheme": "fixed"}, baseline=False, **JUDGED)
    assert [record["changes"]["temperature"] for record in records] == [2.0, 2.0]


def test_labels_beside_a_set_have_one_too(
    best: Callable[[str], list[str]], teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    best("4")
    folder = made(tmp_path / "set", hold_out=True)
    words = ["relabel", folder, "--teacher", teacher, "--scheme", "fixed", "--device", "cpu", "--out", tmp_path / "l"]
    assert attar(monkeypatch, *words, "--label-temperature", "auto") == 0
    said = capsys.readouterr().out
    assert "not made again; then short trainings choose their temperature" in said
    assert "labels are best at temperature 4: " in said
    assert "may be among" not in said, "the set was made without them"
    record, _ = judged(folder, {}, labels=tmp_path / "l")
    assert (record["labels"]["scheme"], record["changes"]["temperature"]) == ("fixed", 4.0)
    before = (tmp_path / "l" / "labels.json").read_bytes()
    assert attar(monkeypatch, *words, "--label-temperature", "auto") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert attar(monkeypatch, *words, "--label-temperature", "1") == 2
    assert "for another temperature" in capsys.readouterr().err
    assert (tmp_path / "l" / "labels.json").read_bytes() == before
    given = [*words[:-1], tmp_path / "given"]
    assert attar(monkeypatch, *given, "--label-temperature", "1") == 0
    assert attar(monkeypatch, *given, "--label-temperature", "auto") == 2, "it was not chosen by a trial"


def test_what_is_tried_is_tried_on_the_held_out_tenth(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_temperature, "STEPS", 2)
    monkeypatch.setattr(label_temperature, "SEEDS", (0,))
    monkeypatch.setattr(label_temperature, "TEMPERATURES", (0.5,))
    monkeypatch.setattr(label_temperature, "TESTED", 50)
    folder = made(tmp_path / "set", hold_out=True, **asked)
    advice = written(folder)["labelled_by"]["advice"]
    assert advice["tried"].keys() == {"none", "0.5"}
    assert advice["how"] == (
        "convnet3-w32, 2 steps of quick without flips, 1 seed, 50 images of the held-out tenth of digits@train"
    )
    winner = max(("none", "0.5"), key=lambda name: advice["tried"][name]["mean"])
    assert advice["temperature"] == ("none" if winner == "none" else 0.5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"labels": None, "label_teacher": None}, "`label_temperature` auto: is of labels: ask for them"),
        ({"label_temperature": 0.0}, "`label_temperature` 0.0: a number above 0, or auto"),
        ({"label_temperature": float("nan")}, "`label_temperature` nan: a number above 0, or auto"),
        ({"label_temperature": "hot"}, "label_temperature"),
        ({"labels": "fixed-top3-int8"}, "these are fixed-top3-int8: choose fixed, fixed-int8"),
    ],
)
def test_wrong_temperatures_are_named(asked: dict[str, Any], tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError, match=said):
        made(tmp_path / "set", **{**asked, **fields})


def test_damaged_advice_is_found(best: Callable[[str], list[str]], asked: dict[str, Any], tmp_path: Path) -> None:
    best("1")
    folder = made(tmp_path / "set", **asked)
    file = folder / "labels" / "labels.json"
    held = json.loads(file.read_text())
    for wrong in (0, True, "hot", None):
        file.write_text(json.dumps({**held, "advice": {"temperature": wrong}}))
        with pytest.raises(AttarError, match=r"advice.temperature is .*, not a number above 0 or none"):
            StoredLabels(folder / "labels")
