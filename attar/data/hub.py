"""Data sets of the Hugging Face hub, or folders in one of its layouts, by way of the `datasets` library."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from attar.core.errors import AttarError
from attar.core.hub_ids import near, why_not_on_hub
from attar.data.columns import columns
from attar.data.decode import opened
from attar.data.source_contract import Ints, file_bytes, labelled, state


def splits(where: str) -> tuple[str, ...]:
    """The splits of a repository, or of a folder that `save_to_disk` wrote or that `load_dataset` can read."""
    datasets = _library()
    with _loading(where):
        if _saved(where):
            saved = datasets.load_from_disk(where)
            return tuple(str(name) for name in saved) if isinstance(saved, dict) else ()
        if not Path(where).exists() and (why := why_not_on_hub(where, "dataset")):
            raise AttarError(f"hf:{where}{near(where)}: there is no such folder here, and {why}")
        return tuple(str(name) for name in datasets.get_dataset_split_names(where))


def load(where: str, split: str | None) -> Hub:
    """The images of a split; downloads what is not in the library's cache."""
    datasets = _library()
    with _loading(where):
        if _saved(where):
            saved = datasets.load_from_disk(where)
            return Hub(where, saved[split] if split else saved)
        return Hub(where, datasets.load_dataset(where, split=split))


class Hub:
    """The rows of a `datasets.Dataset`, memory-mapped by that library."""

    def __init__(self, where: str, table: Any) -> None:
        self.where = where
        self.column, label, names = columns(table.features.to_dict(), table.column_names, f"hf:{where}")
        plain = table.select_columns([label]).with_format("arrow")[:].column(0)
        self.classes, self.labels = labelled(plain.to_pylist(), names, f"hf:{where}")
        self._table = table.cast_column(self.column, _library().Image(decode=False)).select_columns([self.column])

    def name(self, index: int) -> str:
        return f"{self.where}, row {index}"

    def image(self, index: int) -> Image.Image:
        return opened(self.content(index))

    def content(self, index: int) -> bytes:
        cell = self._table[index][self.column] or {"bytes": None, "path": None}
        if not cell["bytes"] and cell["path"]:
            return file_bytes(Path(cell["path"]))
        return cell["bytes"] or b""

    def signature(self, indices: Ints) -> object:
        """Path, size and times of the library's own files and the rows' numbers; None if they only name images."""
        files = [file["filename"] for file in self._table.cache_files]
        if not files or not self._table[int(indices[0])][self.column]["bytes"]:
            return None
        return [[state(file) for file in files], indices.tolist()]


def _saved(where: str) -> bool:
    return any((Path(where) / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _library() -> ModuleType:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise AttarError("hf: data needs the datasets library: pip install attar[hf]") from error


@contextmanager
def _loading(where: str) -> Iterator[None]:
    try:
        yield
    except AttarError:
        raise
    except Exception as error:  # the library raises many kinds: no network, no such repository, a missing config
        raise AttarError(f"hf:{where} cannot be loaded: {type(error).__name__}: {error}") from error
