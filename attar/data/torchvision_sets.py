"""The labelled image sets of torchvision, by class name; downloaded when first loaded."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Any

from PIL import Image
from torchvision import datasets

from attar.core.errors import AttarError, explained, suggestion
from attar.core.files import expand_user
from attar.core.store import cache_folder
from attar.data.source_contract import Ints, labelled


def splits(where: str) -> tuple[str, ...]:
    """train and test, or the values that the class's own `split` argument takes."""
    kind = _class(where)
    takes = inspect.signature(kind).parameters
    if "train" in takes:
        return ("train", "test")
    if "split" not in takes:
        return ()
    try:
        kind(str(_root()), split="")
    except ValueError as error:  # it lists the values that it takes
        return tuple(re.findall(r"'([^']+)'", str(error).partition("Valid values")[2])) or ("train", "test")
    except Exception:
        return ("train", "test")
    return ()


def load(where: str, split: str | None) -> Torchvision:
    """The images of a split, downloaded if they are not there.

    Raises:
        AttarError: the download fails, or the set has no class labels.
    """
    kind = _class(where)
    takes = inspect.signature(kind).parameters
    chosen: dict[str, Any] = {"train": split == "train"} if "train" in takes else {"split": split} if split else {}
    if "download" in takes:
        chosen["download"] = True
    # it raises many kinds: no network, a damaged archive, a set that must be fetched by hand
    with explained(f"torchvision:{where} cannot be loaded from {_root()}", Exception):
        _root().mkdir(parents=True, exist_ok=True)
        return Torchvision(where, kind(str(_root()), **chosen))


class Torchvision:
    """One of torchvision's data sets, already loaded."""

    def __init__(self, where: str, data: Any) -> None:
        self.where, self._data = where, data
        labels = next(
            (getattr(data, name) for name in ("targets", "labels", "_labels", "y") if hasattr(data, name)), None
        )
        if labels is None and hasattr(data, "_samples"):
            labels = [label for _, label in data._samples]
        if labels is None or len(labels) != len(data):
            raise AttarError(f"torchvision:{where} has no class labels that Attar knows how to read")
        names = getattr(data, "classes", None) or getattr(data, "categories", None)
        names = names and [name if isinstance(name, str) else ", ".join(name) for name in names]
        self.classes, self.labels = labelled([int(label) for label in labels], names, f"torchvision:{where}")

    def name(self, index: int) -> str:
        return f"torchvision:{self.where}, image {index}"

    def image(self, index: int) -> Image.Image:
        image: Image.Image = self._data[index][0]
        return image

    def content(self, index: int) -> bytes:
        image = self.image(index)
        return f"{image.mode} {image.width} {image.height} ".encode() + image.tobytes()

    def signature(self, indices: Ints) -> object:
        return None


def _root() -> Path:
    named = os.environ.get("ATTAR_DATA")
    return expand_user(named) if named else cache_folder() / "torchvision"


def _class(where: str) -> Any:
    known = {name.lower(): name for name in datasets.__all__}
    if where.lower() not in known:
        raise AttarError(f"torchvision has no data set {where!r}{suggestion(where, known.values())}")
    return getattr(datasets, known[where.lower()])
