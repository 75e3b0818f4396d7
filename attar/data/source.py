"""What every form of image set offers: encoded images, their labels and names, read one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from attar.core.errors import AttarError

Ints = npt.NDArray[np.int64]


class Source(Protocol):
    """One split of one data set, opened once per process; holds labels and places, never decoded images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Original class names in label order, unique."""

    @property
    def labels(self) -> Ints:
        """int64 (N,), each an index into `classes`."""

    def name(self, index: int) -> str:
        """What a message calls this image."""

    def image(self, index: int) -> Image.Image:
        """The image in the mode it is stored in; raises whatever PIL raises."""

    def content(self, index: int) -> bytes:
        """The bytes that identify this image, wherever it lies."""

    def signature(self, indices: Ints) -> object:
        """What changes whenever the content of these images does, without reading them; None where reading is cheap."""


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names, the second and later bearers of one told apart by their label: "crane", "crane (517)"."""
    taken: set[str] = set()
    unique = []
    for label, name in enumerate(names):
        chosen = name if name not in taken else f"{name} ({label})"
        while chosen in taken:
            chosen += "'"
        taken.add(chosen)
        unique.append(chosen)
    return tuple(unique)


def labelled(
    values: Sequence[object] | npt.NDArray[np.generic], names: Sequence[str] | None, where: str
) -> tuple[tuple[str, ...], Ints]:
    """Class names and int64 labels from a column of labels: integers (with names, if known) or text (sorted).

    Raises:
        AttarError: a label is missing, negative (as in hidden test labels) or beyond the names, or a class is empty.
    """
    found = np.asarray(values)
    if found.ndim != 1:
        raise AttarError(f"{where}: labels of shape {found.shape[1:]}, not one for each image")
    if found.dtype.kind in "OUS":
        return _from_text(values, where)
    if found.dtype.kind not in "iub" or not len(found):
        raise AttarError(f"{where}: {'no images' if not len(found) else f'labels of type {found.dtype}, not integers'}")
    labels = found.astype(np.int64)
    if labels.min() < 0:
        raise AttarError(
            f"{where}: row {int(labels.argmin())} has label {labels.min()}, which means unlabelled; "
            "name a split that has labels"
        )
    names = [str(label) for label in range(int(labels.max()) + 1)] if names is None else names
    if labels.max() >= len(names):
        raise AttarError(
            f"{where}: row {int(labels.argmax())} has label {labels.max()}, but only {len(names)} classes are named"
        )
    classes = unique_names(names)
    refuse_empty(classes, labels, where)
    return classes, labels


def refuse_empty(classes: Sequence[str], labels: Ints, where: str) -> None:
    """Raises an AttarError that names every class without an image."""
    empty = [
        repr(classes[label]) for label in np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0).tolist()
    ]
    if empty:
        raise AttarError(f"{where}: no images of class {listed(empty)}; add some, or remove the class from the data")


def listed(names: Sequence[str], shown: int = 20) -> str:
    """The names with commas between them; of very many the first, and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _from_text(values: Sequence[object] | npt.NDArray[np.generic], where: str) -> tuple[tuple[str, ...], Ints]:
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise AttarError(f"{where}: row {row} has no label")
    names, labels = np.unique(np.asarray(values, dtype=str), return_inverse=True)
    return tuple(str(name) for name in names), labels.astype(np.int64)
