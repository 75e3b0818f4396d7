"""Parquet, the hub's library and torchvision's sets: the same images, however they are stored."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from attar.core.errors import AttarError, BadImage
from attar.core.store import Store
from attar.data import load_data, load_pixels, readable, test_spec

NAMES = ["a/b", "<i>", "ü"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ATTAR_DATA", str(tmp_path / "torchvision"))


def pixels(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 6, 6, 3), np.uint8)


def png(image: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write(
    path: Path, count: int = 12, names: list[str] | None = NAMES, labels: list[Any] | None = None, **columns: Any
) -> Path:
    """A table as `datasets` writes it; keyword columns replace its `image` and `label`."""
    labels = [row % 3 for row in range(count)] if labels is None else labels
    cells = [{"bytes": png(image), "path": None} for image in pixels(count)]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if names:
        features["label"] = {"names": names, "_type": "ClassLabel"}
    table = pa.table(columns or {"image": cells, "label": labels})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=5)
    return path


def test_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "some.parquet")
    images = load_data(f"parquet:{file}")
    assert images.spec == f"parquet:{file}"
    assert images.classes == tuple(NAMES)
    assert images.labels.tolist() == [row % 3 for row in range(12)]
    assert images.name(7) == "some.parquet, row 7"
    assert np.array_equal(load_pixels(images, range(12), 6, "squash"), pixels(12))
    assert load_data(str(file)).spec == images.spec
    again = pickle.loads(pickle.dumps(images.restricted(["ü"])))
    assert np.array_equal(np.asarray(again.open(1)), pixels(12)[5])


@pytest.mark.parametrize(
    "files",
    [
        ["train.parquet", "test.parquet"],
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"],
        ["train/0000.parquet", "train/0001.parquet", "test/0000.parquet"],
        ["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"],
    ],
)
def test_folders_of_splits(tmp_path: Path, files: list[str]) -> None:
    for file in files:
        write(tmp_path / "set" / file)
    with pytest.raises(AttarError, match=r"splits test, train: .*@train, so that test images"):
        load_data(f"parquet:{tmp_path}/set")
    train = load_data(f"parquet:{tmp_path}/set@train")
    assert len(train) == 12 * sum("train" in file for file in files)
    assert train.name(len(train) - 1) == f"{Path(files[-2]).name}, row 11"
    assert np.array_equal(np.asarray(train.open(len(train) - 1)), pixels(12)[11])
    assert test_spec(train.spec) == f"parquet:{tmp_path}/set@test"
    with pytest.raises(AttarError, match="no split 'val'"):
        load_data(f"parquet:{tmp_path}/set@val")


def test_the_test_file_beside_a_training_file(tmp_path: Path) -> None:
    train = write(tmp_path / "train.parquet")
    with pytest.raises(AttarError, match="`test`"):
        test_spec(f"parquet:{train}")
    write(tmp_path / "validation.parquet")
    assert test_spec(f"parquet:{train}") == f"parquet:{tmp_path}@validation"


def test_labels_and_columns(tmp_path: Path) -> None:
    cells = [png(image) for image in pixels(4)]
    plain = write(tmp_path / "plain.parquet", names=None, image=cells, fine_label=[1, 0, 1, 0], coarse_label=[0] * 4)
    assert load_data(f"parquet:{plain}").classes == ("0", "1")
    assert np.array_equal(np.asarray(load_data(f"parquet:{plain}").open(2)), pixels(4)[2])
    text = write(tmp_path / "text.parquet", names=None, image=cells, label=["dog", "cat", "dog", "emu"])
    assert load_data(f"parquet:{text}").labels.tolist() == [1, 0, 1, 2]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"picture": cells, "label": [0] * 4}, "no column of images among picture, label"),
        ({"image": cells, "kind": [0] * 4}, "no column of labels"),
        ({"image": cells, "label": [0, 1, -1, 0]}, "row 2 has label -1"),
        ({"image": cells, "label": [0, 2, 2, 0]}, "no images of class '<i>'"),
    ]
    for columns, message in cases:
        with pytest.raises(AttarError, match=message):
            load_data(f"parquet:{write(tmp_path / 'bad.parquet', **columns)}")


def shards(root: Path, **others: Any) -> Path:
    """Three shards of a split, the last of which `others` change."""
    for number in range(2):
        write(root / f"train-0000{number}-of-00003.parquet", 6)
    write(root / "train-00002-of-00003.parquet", 6, **others)
    return root


ENCODED = [png(image) for image in pixels(6)]
HELD = pa.struct({"bytes": pa.binary(), "path": pa.string()})
SHARDS: dict[str, tuple[dict[str, Any], str]] = {
    "classes in another order": (
        {"names": ["<i>", "a/b", "ü"]},
        "its list of classes is not that of train-00000-of-00003.parquet: label 0 is '<i>', and not 'a/b'; write all",
    ),
    "more classes": ({"names": [*NAMES, "dog"]}, "its list of classes is not that .*: 4 classes, and not 3"),
    "another column of labels": (
        {"image": ENCODED, "Label": [0] * 6},
        r"no column 'label' .did you mean 'Label'\?., which train-00000-of-00003.parquet has; its columns are image, ",
    ),
    "another column of images": ({"picture": ENCODED, "label": [0] * 6}, "no column 'image', which train-00000-of"),
    "a null label": ({"image": ENCODED, "label": [0, 1, None, 0, 1, 2]}, "row 2 has no label"),
    "a float label": ({"image": ENCODED, "label": [0.0] * 6}, "row 0 has the label 0.0, a float; labels are whole"),
    "ragged labels": ({"image": ENCODED, "label": [[0], [1, 2]] * 3}, r"row 0 has the label \[0\], a list"),
    "a path for a label": (
        {"image": ENCODED, "label": ["cat/0.png"] * 6},
        "row 0 has the label 'cat/0.png', which is the path of an image; labels are class names or numbers",
    ),
    "text among numbers": ({"image": ENCODED, "label": ["cat"] * 6}, "row 0 has the label 'cat', where that of the fi"),
    "a label of 2**62": ({"image": ENCODED, "label": [0, 2**62] * 3}, f"row 1 has label {2**62}, but only 3 classes"),
    "a negative label": (
        {"image": ENCODED, "label": [0, 1, 2, 0, 1, -1]},
        "row 5 has label -1, which means unlabelled",
    ),
    "paths for images": (
        {"image": ["cat/0.png"] * 6, "label": [0] * 6},
        "row 0: column 'image' holds no encoded image, but 'cat/0.png'; put the bytes of the image files into it, as",
    ),
    "paths beside no bytes": (
        {"image": pa.array([{"bytes": None, "path": "0.png"}] * 6, HELD), "label": [0] * 6},
        "row 0: column 'image' holds no encoded image, but {'bytes': None, 'path': '0.png'}; put",
    ),
    "no images": ({"image": [None] * 6, "label": [0] * 6}, "row 0: column 'image' holds no encoded image, but None;"),
    "ragged images": ({"image": [[1], [1, 2]] * 3, "label": [0] * 6}, r"row 0: column 'image' holds no .* but \[1\];"),
    "floats for images": ({"image": [0.5] * 6, "label": [0] * 6}, "row 0: column 'image' holds no .* but 0.5;"),
}


@pytest.mark.parametrize("wrong", SHARDS)
def test_a_shard_that_does_not_fit_is_named(tmp_path: Path, wrong: str) -> None:
    changes, message = SHARDS[wrong]
    with pytest.raises(AttarError, match=f"^{tmp_path}/train-00002-of-00003.parquet[:,] {message}"):
        load_data(f"parquet:{shards(tmp_path, **changes)}@train")


def test_shards_agree_whatever_they_say_of_paths_and_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some writers leave out the class names, the paths, or the struct; the bytes and labels are the same."""
    cells = [{"bytes": data, "path": "x.png"} for data in ENCODED]
    whole = load_data(f"parquet:{shards(tmp_path / 'one', names=None, image=cells, label=[0, 1, 2] * 2)}@train")
    plain = load_data(f"parquet:{shards(tmp_path / 'two', image=ENCODED, label=[0, 1, 2] * 2)}@train")
    assert whole.classes == plain.classes == tuple(NAMES)
    monkeypatch.setattr("attar.data.parquet.IN_MEMORY", 0)
    mapped = load_data(f"parquet:{tmp_path}/one@train")
    digests = [[images.digest(label) for label in range(3)] for images in (whole, plain, mapped)]
    assert digests[0] == digests[1] == digests[2]
    assert np.array_equal(np.asarray(mapped.open(13)), pixels(6)[1])


def test_labels_without_names_do_not_fill_the_memory(tmp_path: Path) -> None:
    file = write(tmp_path / "x.parquet", 4, names=None, image=ENCODED[:4], label=[0, 1, 2**62, 0])
    with pytest.raises(AttarError, match=rf"x\.parquet, row 2 has label {2**62}, but the data has 4 images"):
        load_data(str(file))


def test_all_shards_of_a_split_are_there_and_once(tmp_path: Path) -> None:
    shards(tmp_path)
    write(tmp_path / "test-00000-of-00001-0123456789abcdef.parquet", 6)
    assert len(load_data(f"parquet:{tmp_path}@train")) == 18
    assert len(load_data(f"parquet:{tmp_path}@test")) == 6
    (tmp_path / "train-00001-of-00003.parquet").rename(tmp_path / "train-00001-of-00004.parquet")
    with pytest.raises(
        AttarError, match=r"split train is there more than once, in train-00000-of-00003.parquet, train-"
    ):
        load_data(f"parquet:{tmp_path}@train")
    (tmp_path / "train-00001-of-00004.parquet").unlink()
    with pytest.raises(AttarError, match=r"split train lacks 1 of its 3 shards: train-00001-of-00003.parquet"):
        load_data(f"parquet:{tmp_path}@train")
    write(tmp_path / "test.parquet", 6)
    with pytest.raises(AttarError, match=r"split test is there more than once, in test-00000-.*, test.parquet; keep"):
        load_data(f"parquet:{tmp_path}@test")


def test_class_names_that_are_no_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AttarError, match=r"x.parquet: the class names of column 'label' are no list of texts"):
        load_data(str(write(tmp_path / "x.parquet", names={"0": "a"})))  # type: ignore[arg-type]


def test_a_class_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    told = r"x.parquet: the class names of column 'label' have 'ant' more than once, as labels 0, 2; tell"
    with pytest.raises(AttarError, match=told):
        load_data(str(write(tmp_path / "x.parquet", names=["ant", "bee", "ant"])))


def test_a_pipe_for_a_table_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.parquet")
    with pytest.raises(AttarError, match=r"train\.parquet cannot be read as parquet: it is no file, but a pipe"):
        load_data(f"parquet:{tmp_path}")


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"<html>")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(AttarError, match=r"train\.parquet"):
        load_data(f"parquet:{tmp_path}")
    with pytest.raises(AttarError, match="no parquet file"):
        load_data(f"parquet:{empty}")


def test_rows_that_cannot_be_decoded(tmp_path: Path, store: Store) -> None:
    cells = [{"bytes": png(image), "path": "x.png"} for image in pixels(6)]
    cells[1]["bytes"], cells[4]["bytes"] = b"text", None  # type: ignore[assignment]
    file = write(tmp_path / "train.parquet", image=cells, label=[0, 1, 2, 0, 1, 2])
    images = load_data(f"parquet:{file}")
    with pytest.raises(BadImage, match=r"^train\.parquet, row 4: it holds no bytes, only the path 'x\.png'"):
        images.open(4)
    with pytest.raises(AttarError, match=r"(?s)2 of 6.*row 1: not an image.*row 4"):
        readable(images, "error", store)
    kept = readable(images.restricted(["a/b", "ü"]), "skip", store)
    assert kept.skipped == ()


def test_a_large_set_is_unpacked_and_memory_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "train.parquet", 40)
    small = load_data(f"parquet:{file}")
    digests = [small.digest(label) for label in range(3)]
    monkeypatch.setattr("attar.data.parquet.IN_MEMORY", 0)
    large = load_data(f"parquet:{file}")
    assert np.array_equal(load_pixels(large, range(40), 6, "squash"), pixels(40))
    assert [large.digest(label) for label in range(3)] == digests
    assert len(list((tmp_path / "cache/unpacked").glob("*/images.arrow"))) == 1
    monkeypatch.setattr("attar.data.parquet.Parquet.content", lambda *_: pytest.fail("read again"))
    assert [load_data(f"parquet:{file}").digest(label) for label in range(3)] == digests


def test_shared_cifar10(shared: Callable[[str], Path]) -> None:
    folder = shared("data/cifar10")
    images = load_data(f"parquet:{folder}@test")
    assert np.bincount(images.labels).tolist() == [1000] * 10
    assert images.classes[:3] == ("airplane", "automobile", "bird")
    table = pq.read_table(folder / "test.parquet").slice(4321, 1).to_pylist()[0]
    assert np.array_equal(np.asarray(images.open(4321)), np.asarray(Image.open(io.BytesIO(table["image"]["bytes"]))))
    assert images.labels[4321] == table["label"]
    assert test_spec(f"parquet:{folder}@train") == images.spec


def test_the_hubs_library_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    for split in ("train", "test"):
        write(tmp_path / "set" / f"{split}.parquet", 12 if split == "train" else 6)
    ours, theirs = load_data(f"parquet:{tmp_path}/set@train"), load_data(f"hf:{tmp_path}/set@train")
    assert theirs.spec == f"hf:{tmp_path}/set@train"
    assert theirs.classes == ours.classes
    assert np.array_equal(theirs.labels, ours.labels)
    assert [theirs.digest(label) for label in range(3)] == [ours.digest(label) for label in range(3)]
    assert np.array_equal(np.asarray(theirs.open(3)), np.asarray(ours.open(3)))
    assert test_spec(theirs.spec) == f"hf:{tmp_path}/set@test"
    with pytest.raises(AttarError, match="splits"):
        load_data(f"hf:{tmp_path}/set")
    datasets.load_dataset(str(tmp_path / "set")).save_to_disk(tmp_path / "saved")
    saved = load_data(f"hf:{tmp_path}/saved@test")
    assert (len(saved), saved.classes) == (6, ours.classes)


def test_the_hub_out_of_reach_or_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def unreachable(*_: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "get_dataset_split_names", unreachable)
    with pytest.raises(AttarError, match=r"hf:owner/name cannot be loaded: ConnectionError: no network"):
        load_data("hf:owner/name@train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(AttarError, match=r"pip install attar\[hf\]"):
        load_data("hf:owner/name@train")


def test_torchvision_by_name(tmp_path: Path) -> None:
    """A CIFAR10 archive of our own making, so that nothing is downloaded."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "torchvision" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    draws = np.random.default_rng(0).integers(0, 256, (20, 3072), np.uint8)
    batch = {"data": draws, "labels": [*range(10)] * 2}
    for name in (*(n for n, _ in CIFAR10.train_list), *(n for n, _ in CIFAR10.test_list)):
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / CIFAR10.meta["filename"]).write_bytes(pickle.dumps({"label_names": [f"c{i}" for i in range(10)]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
        with pytest.raises(AttarError, match="splits train, test"):
            load_data("torchvision:CIFAR10")
        train = load_data("torchvision:cifar10@train")
        test = load_data(test_spec("torchvision:CIFAR10@train"))
        assert (len(train), len(test)) == (100, 20)
        assert train.classes == tuple(f"c{i}" for i in range(10))
        reference = CIFAR10(str(tmp_path / "torchvision"), train=True)
        assert np.array_equal(np.asarray(train.open(37)), np.asarray(reference[37][0]))
        assert train.digest(3) != train.digest(4)


def test_torchvision_sets_that_do_not_fit() -> None:
    from attar.data.torchvision_sets import splits

    assert splits("Flowers102") == ("train", "val", "test")
    assert set(splits("SVHN")) == {"train", "test", "extra"}
    assert splits("MNIST") == ("train", "test")
    with pytest.raises(AttarError, match=r"torchvision:FakeData cannot be loaded|no class labels"):
        load_data("torchvision:FakeData")
