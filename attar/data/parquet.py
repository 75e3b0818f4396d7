"""Parquet files in the Hugging Face image layout: a column of encoded images beside a column of labels."""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from attar.core.errors import AttarError
from attar.data.decode import opened
from attar.data.source import Ints, labelled

IN_MEMORY = 2**29
"""Image columns up to this many bytes are read whole; larger ones are unpacked into the cache and memory-mapped."""

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def splits(where: str) -> tuple[str, ...]:
    """The splits of a folder: NAME.parquet, NAME-00000-of-00002.parquet, or NAME/*.parquet. A file has none."""
    return tuple(_files(Path(where))) if os.path.isdir(where) else ()


def load(where: str, split: str | None) -> Parquet:
    """The rows of a file, or of one split of a folder.

    Raises:
        AttarError: no parquet file, no column of images or labels, or labels that do not fit.
    """
    path = Path(where)
    if path.is_file():
        return Parquet([path])
    found = _files(path)
    if split is None or split not in found:
        raise AttarError(f"{path} holds no parquet file")
    return Parquet(found[split])


def columns(features: dict[str, Any], names: list[str], where: str) -> tuple[str, str, list[str] | None]:
    """The image column, the label column and the class names, from the Hugging Face features of a table.

    Images: the column whose feature is Image, else the one named `image` or `img`. Labels: `label`, else the only
    ClassLabel, else `fine_label`.

    Raises:
        AttarError: none of these is there, or several columns hold images.
    """
    features = {name: features[name] for name in names if name in features}
    images = [name for name, kind in features.items() if _kind(kind) == "Image"]
    images = images or [name for name in ("image", "img") if name in names]
    if len(images) != 1:
        raise AttarError(f"{where}: {'several columns' if images else 'no column'} of images among {', '.join(names)}")
    class_labels = [name for name, kind in features.items() if _kind(kind) == "ClassLabel"]
    chosen = ["label"] if "label" in names else class_labels if len(class_labels) == 1 else ["fine_label"]
    if chosen[0] not in names:
        raise AttarError(f"{where}: no column of labels (label, or a single ClassLabel) among {', '.join(names)}")
    feature = features.get(chosen[0])
    class_names = feature.get("names") if isinstance(feature, dict) else None
    return images[0], chosen[0], list(class_names) if class_names else None


def encoded(value: Any) -> bytes:
    """The bytes in a cell of an image column; none if it is empty, or names a file that did not come with the table."""
    data = value.get("bytes") if isinstance(value, dict) else value
    return data if isinstance(data, bytes) else b""


class Parquet:
    """The rows of some files, one after the other; image bytes are read when first asked for."""

    def __init__(self, files: list[Path]) -> None:
        import pyarrow.parquet as pq

        self.files = files
        with _told(files[0]):
            schema = pq.read_schema(files[0])
        self.column, label, names = columns(_features(schema), list(schema.names), str(files[0]))
        values: list[object] = []
        self._begins = [0]
        for file in files:
            with _told(file):
                column = pq.read_table(file, columns=[label]).column(label)
                values += column.to_pylist()
            self._begins.append(len(values))
        self.classes, self.labels = labelled(values, names, str(files[0]))

    def name(self, index: int) -> str:
        number = bisect_right(self._begins, index) - 1
        return f"{self.files[number].name}, row {index - self._begins[number]}"

    def image(self, index: int) -> Image.Image:
        return opened(self.content(index))

    def content(self, index: int) -> bytes:
        return encoded(self._cells[index].as_py())

    def signature(self, indices: Ints) -> object:
        """Path, size and times of the files and the rows' numbers; None for a small set."""
        return None if self._small else [self._state, indices.tolist()]

    @cached_property
    def _state(self) -> list[Any]:
        states = [(file, file.stat()) for file in self.files]
        return [[str(file), state.st_size, state.st_mtime_ns, state.st_ctime_ns] for file, state in states]

    @cached_property
    def _small(self) -> bool:
        import pyarrow.parquet as pq

        size = 0
        for file in self.files:
            metadata = pq.read_metadata(file)
            for group in map(metadata.row_group, range(metadata.num_row_groups)):
                size += sum(
                    group.column(i).total_uncompressed_size
                    for i in range(group.num_columns)
                    if group.column(i).path_in_schema.split(".")[0] == self.column
                )
        return size <= IN_MEMORY

    @cached_property
    def _cells(self) -> Any:
        """The image column as a chunked array."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._small:
            tables = [pq.read_table(file, columns=[self.column]) for file in self.files]
            return pa.chunked_array([chunk for table in tables for chunk in table.column(0).chunks])
        return pa.ipc.open_file(pa.memory_map(str(self._unpacked()))).read_all().column(0)

    def _unpacked(self) -> Path:
        """The image column as an uncompressed Arrow file, made once, a few rows in memory at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from attar.core.store import Store, fingerprint

        def make(scratch: Path) -> None:
            field = pq.read_schema(self.files[0]).field(self.column)
            with (
                pa.OSFile(str(scratch / "images.arrow"), "wb") as sink,
                pa.ipc.new_file(sink, pa.schema([field])) as to,
            ):
                for file in self.files:
                    for batch in pq.ParquetFile(file).iter_batches(256, columns=[self.column]):
                        to.write_batch(batch)

        key = fingerprint("unpacked", self._state, self.column)
        return Store().once("unpacked", key, make, about=[str(file) for file in self.files]) / "images.arrow"


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, OSError) as error:  # ArrowInvalid is a ValueError
        raise AttarError(f"{file} cannot be read as parquet: {error}") from error


def _kind(feature: object) -> object:
    return feature.get("_type") if isinstance(feature, dict) else None


def _features(schema: Any) -> dict[str, Any]:
    """The features that the `datasets` library writes into a table's metadata; empty if it did not write it."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        return dict(json.loads(text)["info"]["features"]) if text else {}
    except (ValueError, KeyError, TypeError):
        return {}


def _files(folder: Path) -> dict[str, list[Path]]:
    """The parquet files of each split, in sorted order."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.parquet")):
        found.setdefault(_SHARD.sub("", file.stem), []).append(file)
    for file in sorted(folder.glob("*/*.parquet")):
        name = file.parent.name
        if name == "data":  # as repositories on the hub have it
            name = _SHARD.sub("", file.stem)
        if not name.startswith("."):
            found.setdefault(name, []).append(file)
    return found
