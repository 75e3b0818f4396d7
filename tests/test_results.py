from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from attar.core.errors import AttarError
from attar.core.progress import duration
from attar.evaluation.records import difference, markdown_table, read_records, row, signed, terms, write_record


def result(mean: float = 40.0, n: int = 3, **more: Any) -> dict[str, Any]:
    accuracies = [mean + k - (n - 1) / 2 for k in range(n)]
    sizes = {"n_train": 10, "n_test": 364, "seconds": 12.0, "device": "cpu"}
    return {"accuracies": accuracies, "best": accuracies, "mean": mean, "std": 1.0, **sizes, **more}


def record(**more: Any) -> dict[str, Any]:
    about = {"set": "runs/d3hr", "method": "d3hr", "seed": 0, "recipe": "quick", "network": "convnet3", "ipc": 1}
    return {**about, **result(), "baseline": result(30.5), **more}


def test_a_record_replaces_only_its_own(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.json"
    others = [record(set="runs/prior"), record(recipe="soft"), record(network="resnet18"), record(test="held-out")]
    others += [record(recipe="quick (modified)", changes={"steps": steps}) for steps in (300, 600)]
    others += [record(teacher={"source": "teachers/t", "digest": digest}) for digest in ("a", "b")]
    others += [record(seeds=seeds) for seeds in ([0, 1, 2], [3, 4, 5])]
    for one in [record(), *others]:
        write_record(file, one)
    again = record(set=str(Path("runs/d3hr").resolve()), mean=41.0)
    write_record(file, again)
    assert read_records(file) == [again, *others]
    assert [child.name for child in file.parent.iterdir() if not child.name.endswith(".lock")] == ["results.json"]


def test_writers_take_turns(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    threads = [threading.Thread(target=write_record, args=(file, record(network=f"net{k}"))) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one["network"] for one in read_records(file)} == {f"net{k}" for k in range(12)}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        json.dumps([{"set": "a"}]),
        json.dumps([record(mean=None)]),
        json.dumps([record(accuracies=[])]),
        json.dumps([record(accuracies=[float("nan")])]),
        json.dumps([record(std="wide")]),
        json.dumps([record(ipc=None)]),
        json.dumps([record(teacher="me")]),
        json.dumps([record(labels={"scheme": "int8"})]),
        json.dumps([record(baseline={"mean": 1.0})]),
        json.dumps([record(baseline=3)]),
        json.dumps([record(test=3)]),
        json.dumps([record(changes=["steps"])]),
    ],
)
def test_what_is_no_list_of_records_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(AttarError, match=r"results\.json.*attar evaluate --json"):
        read_records(file)
    with pytest.raises(AttarError):
        write_record(file, record())
    assert file.read_text() == content


def test_a_missing_file_is_an_error_when_read(tmp_path: Path) -> None:
    with pytest.raises(AttarError, match="absent"):
        read_records(tmp_path / "absent.json")


def test_a_row_says_its_terms() -> None:
    line = row(record())
    for part in ("runs/d3hr", "d3hr", "IPC 1", "convnet3", "40.0 ± 1.0 %", "n = 3, last epoch", "30.5", "+9.5", "12 s"):
        assert part in line
    assert "±" not in row(record(accuracies=[40.0], std=None, baseline=None))
    assert "random" not in row(record(baseline=None))
    assert row(record(set="", method="all data", ipc=None, baseline=None)).startswith("all data  convnet3")


def test_the_markdown_table_is_one() -> None:
    records = [record(ipc=10, method="a|b\nc"), record(), record(set="", method="all data", ipc=None, baseline=None)]
    lines = markdown_table(records).splitlines()
    assert [line.replace("\\|", "").count("|") for line in lines] == [10] * 5
    assert lines[2].startswith("| d3hr | 1 | convnet3 | quick | 40.0 ± 1.0 | 3 | 30.5 ± 1.0 | +9.5 | 12 s |")
    assert lines[3].startswith("| a\\|b c | 10 |")
    assert lines[4].startswith("| all data |  |")


def test_terms_say_the_changes_and_the_test() -> None:
    assert terms(record()) == "quick"
    assert terms(record(recipe="quick (modified)")) == "quick (modified)"
    changes = {"steps": 300, "flip": False, "size": None, "batch_doubled_at": [100, 1000]}
    one = record(recipe="quick (modified)", changes=changes, test="digits@test")
    expected = "quick with batch_doubled_at=100,1000, flip=false, size=none, steps=300; tested on digits@test"
    assert terms(one) == expected
    assert expected in markdown_table([one])
    assert terms(record(changes={}, test="held-out")) == "quick; tested on held-out"


def test_numbers_in_words() -> None:
    assert difference(record(baseline=None)) is None
    assert [signed(value) for value in (1.25, -0.31, 0.04, -0.04)] == ["+1.2", "\N{MINUS SIGN}0.3", "0.0", "0.0"]
    assert [duration(s) for s in (0.031, 3.21, 59.6, 150, 9000)] == ["0.03 s", "3.2 s", "60 s", "2 min", "2.5 h"]


def test_soft_labels_are_told_with_their_teacher_and_size() -> None:
    teacher, labels = {"source": "teachers/t", "digest": "a"}, {"scheme": "int8", "bytes": 360_000, "epochs": 30}
    assert terms(record(recipe="fkd-soft", teacher=teacher, labels=labels)) == (
        "fkd-soft, labels of teachers/t, int8, 360,000 bytes"
    )
    online = {**labels, "scheme": "online", "bytes": 0}
    assert terms(record(recipe="rded-soft", teacher=teacher, labels=online)).endswith("labels of teachers/t, online")
