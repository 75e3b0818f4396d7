from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from attar.core.errors import AttarError
from attar.core.rng import numpy_generator
from attar.sets.distilled import find_distilled, folder_name, open_distilled, verify, write_distilled

NAMES = ["zebra", "train", "<b>&'\"</b>", "../../etc/passwd", "Ünïcode 猫", "猫", "bullet train", "Zebra"]
Pixels = np.ndarray
MANIFEST = {
    "method": {"name": "random"},
    "ipc": 2,
    "seed": 0,
    "preprocess": "adm",
    "data": {
        "spec": "digits@train",
        "imbalance_factor": None,
        "hold_out": False,
        "images": 1433,
        "fingerprint": "ff",
        "skipped": [],
    },
    "prior": None,
    "compute": None,
    "attar": "0",
    "run": "0123456789abcdef",
    "seconds": {},
    "machine": {"device": "cpu"},
    "versions": {},
    "written": "2026-01-01T00:00:00Z",
}


def pictures(label: int, index: int) -> Pixels:
    return numpy_generator(label, index).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def written(folder: Path, names: list[str] = NAMES) -> Path:
    write_distilled(folder, names, lambda done: drawn(names, done), MANIFEST)
    return folder


def drawn(names: list[str], done: Collection[int]) -> Iterator[tuple[int, int, Pixels]]:
    return (
        (label, index, pictures(label, index)) for label in range(len(names)) if label not in done for index in (0, 1)
    )


def test_imagefolder_reads_it_unchanged_with_the_right_labels(tmp_path: Path) -> None:
    found = ImageFolder(str(written(tmp_path / "set") / "images"))
    assert len(found.classes) == len(NAMES)
    for number, (image, label) in enumerate(found):
        assert label == number // 2
        assert np.array_equal(np.asarray(image), pictures(label, number % 2))


@pytest.mark.parametrize("how", ["imagefolder", "card"])
def test_datasets_reads_it_unchanged_with_the_right_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder, cache = str(written(tmp_path / "set")), str(tmp_path / "cache")
    if how == "imagefolder":
        found = datasets.load_dataset("imagefolder", data_dir=folder, split="train", cache_dir=cache)
    else:
        found = datasets.load_dataset(folder, split="train", cache_dir=cache)
    assert len(found) == 2 * len(NAMES)
    for row in found:
        number = next(n for n in range(2) if np.array_equal(np.asarray(row["image"]), pictures(row["label"], n)))
        assert number in (0, 1)


def test_a_thousand_classes_sort_in_label_order() -> None:
    for count in (10, 1000, 1001):
        folders = [folder_name(label, f"c{-label}", count) for label in range(count)]
        assert folders == sorted(folders)
        assert len(set(folders)) == count


@pytest.mark.parametrize("name", NAMES)
def test_folder_names_are_safe(name: str) -> None:
    assert set(folder_name(3, name, 10)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def test_the_manifest_keeps_the_original_names(tmp_path: Path) -> None:
    one = open_distilled(written(tmp_path / "set"))
    assert one.classes == tuple(NAMES)
    assert [len(files) for files in one.files()] == [2] * len(NAMES)


def test_verify_finds_missing_extra_and_altered_files(tmp_path: Path) -> None:
    folder = written(tmp_path / "set")
    assert verify(folder) == []
    files = [file for of_class in open_distilled(folder).files() for file in of_class]
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes() + b"x")
    (files[2].parent / "extra.png").write_bytes(b"x")
    (folder / "README.md").unlink()
    problems = verify(folder)
    assert [problem.split(":")[0] for problem in problems] == ["missing", "extra", "altered", "missing"]
    assert files[1].name in problems[2]
    assert "README.md" in problems[3]


@pytest.mark.parametrize("run", ["0123456789abcdef", "another run......"])
def test_an_interrupted_write_is_taken_up_by_the_same_run_only(tmp_path: Path, run: str) -> None:
    asked: list[list[int]] = []

    def images(done: Collection[int]) -> Iterator[tuple[int, int, Pixels]]:
        asked.append(list(done))
        for number, image in enumerate(drawn(NAMES, done)):
            if len(asked) == 1 and number == 5:
                raise KeyboardInterrupt
            yield image

    with pytest.raises(KeyboardInterrupt):
        write_distilled(tmp_path / "set", NAMES, images, MANIFEST)
    assert not (tmp_path / "set").exists()
    write_distilled(tmp_path / "set", NAMES, images, {**MANIFEST, "run": run})
    assert asked == [[], [0, 1] if run == MANIFEST["run"] else []]
    assert os.listdir(tmp_path) == ["set"]
    assert verify(tmp_path / "set") == []
    whole = open_distilled(written(tmp_path / "whole")).manifest["images"]
    assert open_distilled(tmp_path / "set").manifest["images"] == whole


def test_an_altered_card_or_manifest_is_found(tmp_path: Path) -> None:
    folder = written(tmp_path / "set")
    (folder / "README.md").write_text("other")
    file = folder / "manifest.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    assert verify(folder) == ["altered: README.md", "altered: manifest.json"]
    for text, said in (("{", "is damaged: not JSON"), ('{"format": 1}', "is damaged: attar is missing")):
        file.write_text(text)
        with pytest.raises(AttarError, match=f"manifest.json {said}"):
            open_distilled(folder)


def test_a_hidden_folder_is_no_set(tmp_path: Path) -> None:
    written(tmp_path / "ipc-001").rename(tmp_path / ".ipc-001.0.partial")
    with pytest.raises(AttarError, match="no distilled set"):
        find_distilled(tmp_path)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(AttarError, match="something else is there"):
        written(tmp_path / "set")
    assert os.listdir(tmp_path / "set") == ["mine.txt"]


def test_sets_are_found_by_ipc(tmp_path: Path) -> None:
    written(tmp_path / "ipc-010")
    with pytest.raises(AttarError, match="there are sets inside it: ipc-010"):
        open_distilled(tmp_path)
    assert [one.folder.name for one in find_distilled(tmp_path)] == ["ipc-010"]
    with pytest.raises(AttarError, match=r"nowhere: there is no such folder"):
        find_distilled(tmp_path / "nowhere")
    with pytest.raises(AttarError, match=r"no manifest.json"):
        find_distilled(tmp_path / "ipc-010" / "images")


def test_the_card_cannot_be_broken_by_a_class_name(tmp_path: Path) -> None:
    card = (written(tmp_path / "set", ["a", "<script>alert(1)</script>\n---", "| pipe |"]) / "README.md").read_text()
    assert "<script>" not in card
    assert "\\<script\\>" in card
    assert card.count("\n---\n") == 1
