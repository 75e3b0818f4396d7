"""The images that an evaluation works with: a distilled set's own, real ones beside it, and those it is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attar.errors import AttarError
from attar.progress import Progress, silent
from attar.store import Store

if TYPE_CHECKING:
    from attar.data import ImageSet
    from attar.distilled import DistilledSet
    from attar.evaluation import Images, Recipe


def tested_images(one: DistilledSet, test: str | None, store: Store, progress: Progress) -> ImageSet:
    """The images that a set is tested on: those of a spec, `held-out` (the tenth), or the test split of its own data.

    Raises:
        AttarError: they lack its classes, or the held-out tenth was not held out when the set was distilled.
    """
    from attar.data import load_data, load_held_out, test_spec

    data = one.manifest["data"]
    if test == "held-out":
        if not data["hold_out"]:
            raise AttarError(
                f"--test held-out: {one.folder} was distilled from all of its data; use --hold-out for both"
            )
        images = load_held_out(data["spec"])
    else:
        images = load_data(test or test_spec(data["spec"]))
    picked = images.restricted(one.classes)
    if picked.classes != one.classes:
        raise AttarError(f"--test {test}: its classes are in another order than those of {one.folder}")
    return _readable(picked, one, store, progress)


def opened(one: DistilledSet, recipe: Recipe) -> Images:
    """The images of a distilled set as they are.

    Where they are not alike and square, as real images may be, a recipe without a size gets squares of the median of
    their shorter sides.
    """
    import numpy as np
    from PIL import Image

    from attar.data import decode, preprocess
    from attar.evaluation import Images
    from attar.evaluation.native import Native

    files = [(file, label) for label, of_class in enumerate(one.files()) for file in of_class]
    labels = np.array([label for _, label in files], np.int64)
    native = Native(len(files), lambda i: np.asarray(decode.upright(decode.opened(files[i][0].read_bytes()))))
    if recipe.size is not None or (len(set(native.sizes)) == 1 and len(set(native.sizes[0])) == 1):
        return Images(native.stacked(), labels, one.classes)
    squares = (
        preprocess(Image.fromarray(native.picture(i)), native.side, one.manifest["preprocess"])
        for i in range(len(native))
    )
    return Images(np.stack(list(squares)), labels, one.classes)


def native(images: ImageSet, indices: Sequence[int] | None = None) -> Images:
    """Images of a data set (all of them, if none are named) at the sizes that they have."""
    import numpy as np

    from attar.evaluation import Images
    from attar.evaluation.native import Native

    chosen = np.arange(len(images)) if indices is None else np.asarray(indices)
    found = Native(len(chosen), lambda i: np.asarray(images.open(int(chosen[i]))))
    return Images(found.stacked(), images.labels[chosen], images.classes)


def real(images: ImageSet, recipe: Recipe, side: int, how: str, indices: Sequence[int] | None = None) -> Images:
    """Real images as a recipe's training images: of their own sizes, or where it has no size, squares of `side`."""
    return in_memory(images, side, how, indices) if recipe.size is None else native(images, indices)


def in_memory(images: ImageSet, size: int, how: str, indices: Sequence[int] | None = None) -> Images:
    """Images of a data set (all of them, if none are named) at `size` pixels, as uint8."""
    import numpy as np

    from attar.data import load_pixels
    from attar.evaluation import Images

    chosen = np.arange(len(images)) if indices is None else np.asarray(indices)
    return Images(load_pixels(images, chosen, size, how), images.labels[chosen], images.classes)


def tried(one: DistilledSet, train: Images, store: Store) -> tuple[Images, str]:
    """What a teacher is tried on, and what that is in words: about 500 random real images of the set's data.

    Where its data is not at hand, the set itself, `train`.

    Raises:
        AttarError: the data is at hand, but lacks classes of the set, or images that cannot be read were added to it.
    """
    from attar.data import load_view
    from attar.selection import random_order

    data, side = one.manifest["data"], train.side
    try:
        images = load_view(data["spec"], data["imbalance_factor"], data["hold_out"])
    except AttarError:
        return train, f"images of {one.folder}"
    images = _readable(images.restricted(one.classes), one, store)
    chosen: list[int] = []
    for label, name in enumerate(one.classes):
        there = images.of_class(label)
        order = random_order(one.manifest["seed"], name, len(there))[: max(2, 500 // len(one.classes))]
        chosen += there[order.numpy()].tolist()
    return in_memory(images, side, one.manifest["preprocess"], chosen), f"images of {images.spec}"


def real_images(one: DistilledSet, store: Store) -> ImageSet:
    """All images that a set was distilled from: its classes of its view of the data, without unreadable ones."""
    from attar.data import load_view

    data = one.manifest["data"]
    images = load_view(data["spec"], data["imbalance_factor"], data["hold_out"]).restricted(one.classes)
    return _readable(images, one, store)


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
            raise AttarError(f"class {one.classes[label]!r} has {len(there)} real images: evaluate with --no-baseline")
        order = random_order(one.manifest["seed"], one.classes[label], len(there))
        chosen += there[order[: len(files)].numpy()].tolist()
    return real(images, recipe, side, one.manifest["preprocess"], chosen)


def _readable(images: ImageSet, one: DistilledSet, store: Store, progress: Progress = silent) -> ImageSet:
    """Without the images that cannot be read where the set was distilled without such; elsewhere they are an error."""
    from attar.data import readable

    return readable(images, "skip" if one.manifest["data"]["skipped"] else "error", store, progress)
