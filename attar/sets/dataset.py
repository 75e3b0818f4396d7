"""A distilled set in Python: all of it as arrays, or image by image for torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from attar.core.arguments import checked
from attar.core.errors import AttarError
from attar.data.pixels import Pixels
from attar.data.threads import in_threads
from attar.sets.distilled import DistilledSet, check_undamaged, open_distilled
from attar.sets.mosaics import Picture
from attar.sets.own_labels import logits_of


@dataclass(frozen=True, eq=False)
class LoadedSet:
    """A distilled set held in memory."""

    classes: tuple[str, ...]
    """Class names in label order."""
    images: Pixels
    """uint8 (N, H, W, 3), class by class."""
    labels: np.ndarray
    """int64 (N,)."""
    weights: np.ndarray | None = None
    """float64 (N,): what each image's loss is multiplied by, 1 on average of a class; None: all the same."""
    logits: np.ndarray | None = None
    """float32 (N, classes): the set's own soft labels, a teacher's logits of each image, each row up to a constant;
    None: it holds none."""


@checked
def load_set(folder: str | Path, *, expanded: bool = True) -> LoadedSet:
    """All images of the distilled set in `folder`, as networks learn from them.

    Args:
        expanded: of a set of mosaics, give the parts, each enlarged to the size of its mosaic; or else the mosaics.

    Raises:
        AttarError: there is no set, it is damaged, or its images differ in size.
    """
    dataset = DistilledDataset(folder, expanded=expanded)
    check_undamaged(dataset.distilled)
    images = list(in_threads(lambda picture: np.asarray(picture.read()), dataset.pictures))
    if len({image.shape for image in images}) > 1:
        raise AttarError(f"{folder}: its images differ in size; `attar.DistilledDataset` gives them one by one")
    weights = None if dataset.weights is None else np.array(dataset.weights)
    targets = np.array(dataset.targets, np.int64)
    return LoadedSet(dataset.distilled.classes, np.stack(images), targets, weights, dataset.logits)


class DistilledDataset(Dataset[tuple[Any, Any]]):
    """A distilled set as torch and torchvision take data sets: item i is (PIL image, label), both transformed.

    Attributes:
        distilled: the set.
        classes: class names in label order.
        class_to_idx: class name -> label.
        targets: the label of each image.
        weights: what each image's loss is multiplied by, 1 on average of a class; None: all the same.
        logits: the set's own soft labels, float32 (N, classes), a teacher's logits of each image, each row up to a
            constant; None: it holds none, or they are of the parts of mosaics that are given whole.
        pictures: where each image lies.
    """

    def __init__(
        self,
        folder: str | Path,
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        *,
        expanded: bool = True,
    ) -> None:
        """Opens the set, not its images.

        Args:
            transform: what is done to an image.
            target_transform: what is done to a label.
            expanded: as of `load_set`.

        Raises:
            AttarError: there is no set in `folder`, or its manifest or its labels are damaged.
        """
        self.distilled: DistilledSet = open_distilled(Path(folder))
        self.transform, self.target_transform = transform, target_transform
        self.classes = list(self.distilled.classes)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        by_class = self.distilled.pictures()
        if not expanded:
            by_class = [[Picture(file) for file in files] for files in self.distilled.files()]
        self.pictures: list[Picture] = list(chain.from_iterable(by_class))
        self.weights = _weights(self.distilled, expanded)
        self.logits = _logits(self.distilled, len(self.pictures))
        self.targets = [label for label, pictures in enumerate(by_class) for _ in pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = self.pictures[index].read(), self.targets[index]
        shown = image if self.transform is None else self.transform(image)
        return shown, label if self.target_transform is None else self.target_transform(label)


def _logits(distilled: DistilledSet, count: int) -> np.ndarray | None:
    """The set's own soft labels, where it holds one for each of `count` images."""
    if distilled.labels is None:
        return None
    logits: np.ndarray = logits_of(distilled.folder).numpy()
    return logits if len(logits) == count else None


def _weights(distilled: DistilledSet, expanded: bool) -> list[float] | None:
    """What each image weighs; a mosaic as its parts do on average."""
    by_class, parts = distilled.weights(), 1 if expanded else distilled.formation**2
    if by_class is None:
        return None
    return [sum(own[begin : begin + parts]) / parts for own in by_class for begin in range(0, len(own), parts)]
