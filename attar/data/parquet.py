"""Parquet files in the Hugging Face image layout: a column of encoded images beside a column of labels."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pyarrow import compute

from attar.core.errors import AttarError, explained
from attar.core.limits import IN_MEMORY
from attar.core.store import Artefact, Store
from attar.data import shards
from attar.data.columns import agreed, check_images, columns, features, groups
from attar.data.decode import opened
from attar.data.source_contract import Ints, labelled, refuse_no_file, state


def splits(where: str) -> tuple[str, ...]:
    """The splits of a folder: NAME.parquet, NAME-00000-of-00002.parquet, or NAME/*.parquet. A file has none."""
    return tuple(shards.files(Path(where))) if os.path.isdir(where) else ()


def load(where: str, split: str | None) -> Parquet:
    """The rows of a file, or of one split of a folder.

    Raises:
        AttarError: no parquet file, a shard is missing, no column of images or labels, or labels that do not fit.
    """
    path = Path(where)
    if path.is_file():
        return Parquet([path])
    files = shards.files(path)
    if split is None or split not in files:
        raise AttarError(f"{path} holds no parquet file")
    return Parquet(shards.whole_split(split, files[split]))


class Parquet:
    """The rows of some files, one after the other; image bytes are read when first asked for."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        with _reading(files[0]):
            schema = _opened(files[0]).schema_arrow
        self.column, label, names = columns(features(schema), schema.names, str(files[0]))
        values: list[object] = []
        self._begins = [0]
        for file in files:
            with _reading(file):
                table = _opened(file)
                names = agreed(file, table.schema_arrow, files[0], (self.column, label), names)
                check_images(file, table, self.column)
                values += table.read(columns=[label]).column(label).to_pylist()
            self._begins.append(len(values))
        self.classes, self.labels = labelled(values, names, str(files[0]), partial(self._row, whole=True))

    def name(self, index: int) -> str:
        return self._row(index)

    def image(self, index: int) -> Image.Image:
        data = self.content(index)
        if not data and (path := self._paths[index].as_py()):
            raise ValueError(f"it holds no bytes, only the path {path!r} of a file that is not in the table")
        return opened(data)

    def content(self, index: int) -> bytes:
        return self._cells[index].as_py() or b""

    def signature(self, indices: Ints) -> object:
        """Path, size and times of the files and the rows' numbers; None for a small set."""
        return None if self._small else [self._state, indices.tolist()]

    def _row(self, index: int, whole: bool = False) -> str:
        number = bisect_right(self._begins, index) - 1
        file = self.files[number]
        return f"{file if whole else file.name}, row {index - self._begins[number]}"

    @cached_property
    def _state(self) -> list[Any]:
        return [state(file) for file in self.files]

    @cached_property
    def _small(self) -> bool:
        chunks = [chunk for file in self.files for chunk in groups(_opened(file), self.column)]
        return sum(chunk.total_uncompressed_size for chunk in chunks) <= IN_MEMORY

    @cached_property
    def _cells(self) -> Any:
        """The bytes of the images, as a chunked array."""
        if self._small:
            return pa.chunked_array(self._leaves("bytes", pa.large_binary()), pa.large_binary())
        return pa.ipc.open_file(pa.memory_map(str(self._unpacked()))).read_all().column(0)

    @cached_property
    def _paths(self) -> Any:
        """What the files of the images were called, as a chunked array; null where the table does not say."""
        return pa.chunked_array(self._leaves("path", pa.string()), pa.string())

    def _leaves(self, leaf: str, kind: Any) -> Iterator[Any]:
        """The `bytes` or the `path` of the images, a few hundred rows at a time; a plain column is all bytes."""
        for file in self.files:
            with _reading(file):
                table = _opened(file)
                held = table.schema_arrow.field(self.column).type
                nested = pa.types.is_struct(held)
                for batch in table.iter_batches(256, columns=[f"{self.column}.{leaf}" if nested else self.column]):
                    cells = batch.column(0)
                    if nested and held.get_field_index(leaf) >= 0:
                        cells = compute.struct_field(cells, leaf)
                    elif leaf != "bytes":
                        cells = pa.nulls(len(cells))
                    yield (cells.dictionary_decode() if pa.types.is_dictionary(cells.type) else cells).cast(kind)

    def _unpacked(self) -> Path:
        """The bytes of the images as an uncompressed Arrow file, made once, a few rows in memory at a time."""

        def make(scratch: Path) -> None:
            schema = pa.schema([(self.column, pa.large_binary())])
            with (
                pa.OSFile(str(scratch / "images.arrow"), "wb") as sink,
                pa.ipc.new_file(sink, schema) as to,
            ):
                for images in self._leaves("bytes", pa.large_binary()):
                    to.write_batch(pa.record_batch([images], schema=schema))

        names = ("file", "bytes", "modified", "changed")
        files = [dict(zip(names, values, strict=True)) for values in self._state]
        return Store().once(Artefact("unpacked", {"files": files, "column": self.column}), make) / "images.arrow"


def _opened(file: Path) -> Any:
    refuse_no_file(file)
    return pq.ParquetFile(file)


def _reading(file: Path) -> AbstractContextManager[None]:
    return explained(f"{file} cannot be read as parquet", pa.ArrowException, ValueError, KeyError, OSError)
