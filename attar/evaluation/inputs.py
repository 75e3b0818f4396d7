"""The images that an evaluation works with, in memory: a distilled set's own, and real ones beside it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from PIL import Image

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.core.wording import counted
from attar.data import ImageSet, decode, load_pixels, preprocess
from attar.data.degenerate import ACCIDENT, Contents, check_contents
from attar.evaluation.images import Images
from attar.evaluation.native import Native
from attar.evaluation.recipe import Recipe
from attar.selection import random_order
from attar.sets.distilled import DistilledSet
from attar.sets.images import of_its_classes, real_images, view_of, without_unreadable
from attar.teachers.check import TRIED_EACH


def random_real(distilled: DistilledSet, recipe: Recipe, side: int, store: Store) -> Images:
    """Random real images, as many of each class as the set has, of the data that it was distilled from; see `real`.

    Raises:
        AttarError: a class of the data has fewer images.
    """
    images = real_images(distilled, store)
    chosen: list[int] = []
    for label, files in enumerate(distilled.files()):
        name, own = distilled.classes[label], images.of_class(label)
        if len(own) < len(files):
            raise AttarError(f"class {name!r} has {counted(len(own), 'real image')}: evaluate with `baseline=false`")
        order = random_order(distilled.manifest["seed"], name, len(own))
        chosen += own[order[: len(files)].numpy()].tolist()
    return real(images, recipe, side, distilled.manifest["preprocess"], chosen)


def teacher_examples(distilled: DistilledSet, train: Images, store: Store) -> tuple[Images, str]:
    """What a teacher is tried on, and what that is in words: about 500 random real images of the set's data.

    Of many classes they are more (attar.teachers.check). Where the data is not at hand, the set itself, `train`.

    Raises:
        AttarError: the data is at hand, but lacks classes of the set, or images that cannot be read were added to it.
    """
    try:
        every = view_of(distilled)
    except AttarError:
        return train, f"images of {distilled.folder}"
    real = without_unreadable(of_its_classes(distilled, every), distilled, store)
    chosen, each = list[int](), max(TRIED_EACH, 500 // len(distilled.classes))
    for label, name in enumerate(distilled.classes):
        own = real.of_class(label)
        order = random_order(distilled.manifest["seed"], name, len(own))[:each]
        chosen += own[order.numpy()].tolist()
    return in_memory(real, train.side, distilled.manifest["preprocess"], chosen), f"images of {real.spec}"


def in_memory(images: ImageSet, size: int, how: str, indices: Sequence[int] | None = None) -> Images:
    """Images of a data set (all of them, if none are named) at `size` pixels, as uint8."""
    chosen = np.arange(len(images)) if indices is None else np.asarray(indices)
    return Images(load_pixels(images, chosen, size, how), images.labels[chosen], images.classes)


def real(images: ImageSet, recipe: Recipe, side: int, how: str, indices: Sequence[int] | None = None) -> Images:
    """Real images as a recipe's training images: of their own sizes, or where it has no size, squares of `side`."""
    return in_memory(images, side, how, indices) if recipe.size is None else native(images, indices)


def native(images: ImageSet, indices: Sequence[int] | None = None) -> Images:
    """Images of a data set (all of them, if none are named) at the sizes that they have."""
    chosen = np.arange(len(images)) if indices is None else np.asarray(indices)
    decoded = Native(len(chosen), lambda i: np.asarray(images.open(int(chosen[i]))))
    return Images(decoded.stacked(), images.labels[chosen], images.classes)


def opened(distilled: DistilledSet, recipe: Recipe) -> Images:
    """The images of a distilled set as they are.

    Where they are not alike and square, as real images may be, a recipe without a size gets squares of the median of
    their shorter sides.

    Raises:
        AttarError: the images of a class are equal or of a single colour, or two classes hold the same.
    """
    files = [(file, label) for label, of_class in enumerate(distilled.files()) for file in of_class]
    labels = np.array([label for _, label in files], np.int64)
    native = Native(len(files), lambda i: np.asarray(decode.read(files[i][0])))
    looks = iter(native.looks)
    shown = [Contents.of(islice(looks, len(of_class))) for of_class in distilled.files()]
    check_contents(dict(zip(distilled.classes, shown, strict=True)), str(distilled.folder), ACCIDENT)
    if recipe.size is not None or (len(set(native.sizes)) == 1 and len(set(native.sizes[0])) == 1):
        return Images(native.stacked(), labels, distilled.classes)
    squares = [
        preprocess(Image.fromarray(native.picture(i)), native.side, distilled.manifest["preprocess"])
        for i in range(len(native))
    ]
    original = Images(native.stacked(), labels, distilled.classes)
    return Images(np.stack(squares), labels, distilled.classes, original)
