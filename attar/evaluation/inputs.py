"""The images that an evaluation works with, in memory: a distilled set's own, and real ones beside it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from attar.core.errors import AttarError, counted
from attar.core.store import Store
from attar.sets.images import of_its_classes, real_images, view_of, without_unreadable

if TYPE_CHECKING:
    from attar.data import ImageSet
    from attar.evaluation import Images, Recipe
    from attar.sets.distilled import DistilledSet


def random_real(one: DistilledSet, recipe: Recipe, side: int, store: Store) -> Images:
    """Random real images, as many of each class as the set has, of the data that it was distilled from; see `real`.

    Raises:
        AttarError: a class of the data has fewer images.
    """
    from attar.selection import random_order

    images = real_images(one, store)
    chosen: list[int] = []
    for label, files in enumerate(one.files()):
        there = images.of_class(label)
        if len(there) < len(files):
            raise AttarError(
                f"class {one.classes[label]!r} has {counted(len(there), 'real image')}: evaluate with --no-baseline"
            )
        order = random_order(one.manifest["seed"], one.classes[label], len(there))
        chosen += there[order[: len(files)].numpy()].tolist()
    return real(images, recipe, side, one.manifest["preprocess"], chosen)


def tried(one: DistilledSet, train: Images, store: Store) -> tuple[Images, str]:
    """What a teacher is tried on, and what that is in words: about 500 random real images of the set's data.

    Of many classes they are more (attar.teachers.check). Where the data is not at hand, the set itself, `train`.

    Raises:
        AttarError: the data is at hand, but lacks classes of the set, or images that cannot be read were added to it.
    """
    from attar.selection import random_order
    from attar.teachers.check import TRIED_EACH

    try:
        every = view_of(one)
    except AttarError:
        return train, f"images of {one.folder}"
    real = without_unreadable(of_its_classes(one, every), one, store)
    chosen: list[int] = []
    for label, name in enumerate(one.classes):
        there = real.of_class(label)
        order = random_order(one.manifest["seed"], name, len(there))[: max(TRIED_EACH, 500 // len(one.classes))]
        chosen += there[order.numpy()].tolist()
    return in_memory(real, train.side, one.manifest["preprocess"], chosen), f"images of {real.spec}"


def in_memory(images: ImageSet, size: int, how: str, indices: Sequence[int] | None = None) -> Images:
    """Images of a data set (all of them, if none are named) at `size` pixels, as uint8."""
    import numpy as np

    from attar.data import load_pixels
    from attar.evaluation import Images

    chosen = np.arange(len(images)) if indices is None else np.asarray(indices)
    return Images(load_pixels(images, chosen, size, how), images.labels[chosen], images.classes)


def real(images: ImageSet, recipe: Recipe, side: int, how: str, indices: Sequence[int] | None = None) -> Images:
    """Real images as a recipe's training images: of their own sizes, or where it has no size, squares of `side`."""
    return in_memory(images, side, how, indices) if recipe.size is None else native(images, indices)


def native(images: ImageSet, indices: Sequence[int] | None = None) -> Images:
    """Images of a data set (all of them, if none are named) at the sizes that they have."""
    import numpy as np

    from attar.evaluation import Images
    from attar.evaluation.native import Native

    chosen = np.arange(len(images)) if indices is None else np.asarray(indices)
    found = Native(len(chosen), lambda i: np.asarray(images.open(int(chosen[i]))))
    return Images(found.stacked(), images.labels[chosen], images.classes)


def opened(one: DistilledSet, recipe: Recipe) -> Images:
    """The images of a distilled set as they are.

    Where they are not alike and square, as real images may be, a recipe without a size gets squares of the median of
    their shorter sides.

    Raises:
        AttarError: the images of a class are equal or of a single colour, or two classes hold the same.
    """
    import numpy as np
    from PIL import Image

    from attar.data import decode, preprocess
    from attar.data.contents import ACCIDENT, Contents, check_contents
    from attar.evaluation import Images
    from attar.evaluation.native import Native

    files = [(file, label) for label, of_class in enumerate(one.files()) for file in of_class]
    labels = np.array([label for _, label in files], np.int64)
    native = Native(len(files), lambda i: np.asarray(decode.read(files[i][0])))
    looks = iter(native.looks)
    shown = [Contents.of(islice(looks, len(of_class))) for of_class in one.files()]
    check_contents(dict(zip(one.classes, shown, strict=True)), str(one.folder), ACCIDENT)
    if recipe.size is not None or (len(set(native.sizes)) == 1 and len(set(native.sizes[0])) == 1):
        return Images(native.stacked(), labels, one.classes)
    squares = (
        preprocess(Image.fromarray(native.picture(i)), native.side, one.manifest["preprocess"])
        for i in range(len(native))
    )
    return Images(np.stack(list(squares)), labels, one.classes)
