from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from attar.core.errors import AttarError
from attar.core.progress import duration
from attar.evaluation.records import Record, signed
from attar.evaluation.records_file import _record, read_records, write_record


def result(mean: float = 40.0, n: int = 3, **more: Any) -> dict[str, Any]:
    accuracies = [mean + k - (n - 1) / 2 for k in range(n)]
    sizes = {"n_train": 10, "n_test": 364, "seconds": 12.0, "device": "cpu"}
    return {"accuracies": accuracies, "best": accuracies, "mean": mean, "std": 1.0, **sizes, **more}


def entry(**more: Any) -> dict[str, Any]:
    """A record as it stands in a file."""
    about = {"set": "runs/d3hr", "method": "d3hr", "seed": 0, "recipe": "quick", "network": "convnet3", "ipc": 1}
    return {**about, **result(), "baseline": result(30.5), **more}


def record(**more: Any) -> Record:
    return _record(entry(**more))


TRIAL = {"item": "i", "judged": "j", "label": "slow", "seeds": [0, 1, 2], "distilling": 1.5, "bytes": 9}


def test_a_record_replaces_only_its_own(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.json"
    others = [record(set="runs/prior"), record(recipe="soft"), record(network="resnet18"), record(test="held-out")]
    others += [record(recipe="quick (modified)", changes={"steps": steps}) for steps in (300, 600)]
    others += [record(teacher={"source": "teachers/t", "digest": digest}) for digest in ("a", "b")]
    others += [record(**TRIAL | {"seeds": seeds}) for seeds in ([0, 1, 2], [3, 4, 5])]
    for one in [record(), *others]:
        write_record(file, one)
    again = record(set=str(Path("runs/d3hr").resolve()), mean=41.0)
    write_record(file, again)
    assert read_records(file) == [*others, again]
    assert [child.name for child in file.parent.iterdir() if not child.name.endswith(".lock")] == ["results.json"]


def test_writers_take_turns(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    threads = [threading.Thread(target=write_record, args=(file, record(network=f"net{k}"))) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.network for one in read_records(file)} == {f"net{k}" for k in range(12)}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        json.dumps([{"set": "a"}]),
        json.dumps([entry(mean=None)]),
        json.dumps([entry(accuracies=[])]),
        json.dumps([entry(accuracies=[float("nan")])]),
        json.dumps([entry(std="wide")]),
        json.dumps([entry(ipc=None)]),
        json.dumps([entry(teacher="me")]),
        json.dumps([entry(labels={"scheme": "int8"})]),
        json.dumps([entry(baseline={"mean": 1.0})]),
        json.dumps([entry(baseline=3)]),
        json.dumps([entry(test=3)]),
        json.dumps([entry(changes=["steps"])]),
        json.dumps([entry(best="all")]),
        json.dumps([entry(judged="j")]),
        json.dumps([entry(**TRIAL | {"bytes": None})]),
        json.dumps([entry(**TRIAL | {"seeds": [0]})]),
        json.dumps([entry(**TRIAL | {"seeds": "012"})]),
        json.dumps([entry(**TRIAL | {"seed": None})]),
    ],
)
def test_what_is_no_list_of_records_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(AttarError, match=r"results\.json.*`attar evaluate` wrote"):
        read_records(file)
    with pytest.raises(AttarError):
        write_record(file, record())
    assert file.read_text() == content


def test_a_missing_file_is_an_error_when_read(tmp_path: Path) -> None:
    with pytest.raises(AttarError, match="absent"):
        read_records(tmp_path / "absent.json")


def test_a_row_says_its_terms() -> None:
    line = record().row
    for part in ("runs/d3hr", "d3hr", "IPC 1", "convnet3", "40.0 ± 1.0 %", "n = 3, last epoch", "30.5", "+9.5", "12 s"):
        assert part in line
    assert "±" not in record(accuracies=[40.0], std=None, baseline=None).row
    assert "random" not in record(baseline=None).row
    assert record(set="", method="all data", ipc=None, baseline=None).row.startswith("all data  convnet3")


def test_a_row_says_what_was_not_learnt() -> None:
    assert record().notes == [], "old records do not tell"
    assert record(learnt=[90.0, 14.1, 99.0], chance=14.0).notes == []
    told = record(learnt=[90.0, 10.2, 99.0], chance=14.0)
    assert told.row.splitlines()[1:] == [
        "  note: 1 of 3 networks did not learn its training set (10.2 %, as by chance): lower lr, or train longer"
    ]
    alone = record(accuracies=[9.9], learnt=[9.8], chance=14.0)
    assert alone.unlearnt.startswith("the network did not learn its training set (9.8 %, as by chance)")
    certain: dict[str, object] = {"accuracies": [100.0], "learnt": [100.0], "chance": 100.0, "ipc": 2}
    assert "a single class: this measures nothing" in record(**certain, n_train=2).unlearnt
    assert "too few training images were shown" in record(**certain, n_train=6).unlearnt, "three classes, a step of 1"
    beside = {**entry()["baseline"], "learnt": [9.8, 10.0, 10.1], "chance": 14.0}
    assert record(baseline=beside).notes == [
        "random real images: 3 of 3 networks did not learn their training set (9.8 %, 10.0 %, 10.1 %, as by chance): "
        "lower lr, or train longer"
    ]
    assert _record(told.as_json()) == told


def test_terms_say_the_changes_and_the_test() -> None:
    assert record().protocol == "quick"
    assert record(recipe="quick (modified)").protocol == "quick (modified)"
    changes = {"steps": 300, "flip": False, "size": None, "batch_doubled_at": [100, 1000]}
    one = record(recipe="quick (modified)", changes=changes, test="digits@test")
    expected = "quick with batch_doubled_at=100,1000, flip=false, size=none, steps=300; tested on digits@test"
    assert one.protocol == expected
    assert record(changes={}, test="held-out").protocol == "quick; tested on held-out"


def test_numbers_in_words() -> None:
    assert record(baseline=None).difference is None
    assert [signed(value) for value in (1.25, -0.31, 0.04, -0.04)] == ["+1.2", "\N{MINUS SIGN}0.3", "0.0", "0.0"]
    assert [duration(s) for s in (0.031, 3.21, 59.6, 150, 9000)] == ["0.03 s", "3.2 s", "60 s", "2 min", "2.5 h"]


def test_soft_labels_are_told_with_their_teacher_and_size() -> None:
    teacher, labels = {"source": "teachers/t", "digest": "a"}, {"scheme": "int8", "bytes": 360_000, "epochs": 30}
    told = record(recipe="fkd-soft", teacher=teacher, labels=labels).protocol
    assert told == "fkd-soft, labels of teachers/t, int8, 360,000 bytes"
    online = {**labels, "scheme": "online", "bytes": 0}
    assert record(recipe="rded-soft", teacher=teacher, labels=online).protocol.endswith("labels of teachers/t, online")


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    teacher = {"source": "t", "digest": "a"}
    new = record(**TRIAL, test="digits@test", changes={"steps": 3}, layout="rded", teacher=teacher)
    write_record(file, new)
    assert read_records(file) == [new]
    assert new.trial
    assert new.baseline
    assert (new.trial.seeds, new.trial.bytes, new.n, new.baseline.network) == ((0, 1, 2), 9, 3, "convnet3")
    (written,) = json.loads(file.read_text())
    assert written.keys() >= {"set", "recipe", "accuracies", "baseline", "test", "changes", *TRIAL}


def test_other_records_stay_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    old = {**entry(recipe="quick (modified)"), "of a later version": [1]}
    del old["best"], old["seed"]
    file.write_text(json.dumps([old]))
    (read,) = read_records(file)
    assert (read.best, read.seed, read.changes, read.original) == ((), None, None, "quick (modified)")
    write_record(file, record(network="resnet18"))
    assert json.loads(file.read_text())[0] == old


def test_a_row_says_what_guessing_would_have_come_to() -> None:
    """A tenth of 364 test images, and three standard errors of that: 14.7 %."""
    ten: dict[str, object] = {"ipc": 1, "n_train": 10, "n_test": 364, "baseline": None}
    assert record(**ten, mean=14.8).notes == []
    assert record(**ten, mean=14.6).row.splitlines()[1:] == [
        "  note: 14.6 % cannot be told from guessing among 10 classes (n = 3, 364 test images)"
    ]
    mosaics = {**ten, "formation": 2, "n_train": 40}
    assert record(**mosaics, mean=14.6).classes == 10
    assert record(**{**ten, "n_test": 10_000}, mean=11.0).notes == []
    alone = record(**{**ten, "n_train": 1}, mean=100.0)
    assert alone.notes == [], "a single class is no guess"
    assert record(method="all data", ipc=5e-324, baseline=None).classes == 0, "edited by hand"
    unlearnt = record(**ten, mean=10.0, learnt=[10.0, 10.0, 10.0], chance=14.0)
    assert len(unlearnt.notes) == 1, "one line, of what is behind it"
