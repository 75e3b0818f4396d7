"""The images that an evaluation works with: a distilled set's own, real ones beside it, and those it is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attar.core.errors import AttarError
from attar.core.progress import Progress, silent
from attar.core.store import Store

if TYPE_CHECKING:
    from attar.data import ImageSet
    from attar.evaluation import Images, Recipe
    from attar.sets.distilled import DistilledSet


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
    """The images of a distilled set in memory.

    Where their sizes differ, as those of real images may, they are brought to the recipe's size, or if it has none to
    the median of their shorter sides.
    """
    import numpy as np

    from attar.data import decode, preprocess
    from attar.evaluation import Images

    files = [(file, label) for label, of_class in enumerate(one.files()) for file in of_class]
    pictures = [decode.upright(decode.opened(file.read_bytes())) for file, _ in files]
    sizes = {picture.size for picture in pictures}
    alike = len(sizes) == 1 and len(set(next(iter(sizes)))) == 1
    side = pictures[0].width if alike else int(recipe.size or np.median([min(picture.size) for picture in pictures]))
    pixels = np.stack([preprocess(picture, side, one.manifest["preprocess"]) for picture in pictures])
    return Images(pixels, np.array([label for _, label in files], np.int64), one.classes)


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

    data, side = one.manifest["data"], train.pixels.shape[1]
    try:
        real = load_view(data["spec"], data["imbalance_factor"], data["hold_out"])
    except AttarError:
        return train, f"images of {one.folder}"
    real = _readable(real.restricted(one.classes), one, store)
    chosen: list[int] = []
    for label, name in enumerate(one.classes):
        there = real.of_class(label)
        order = random_order(one.manifest["seed"], name, len(there))[: max(2, 500 // len(one.classes))]
        chosen += there[order.numpy()].tolist()
    return in_memory(real, side, one.manifest["preprocess"], chosen), f"images of {real.spec}"


def real_images(one: DistilledSet, store: Store) -> ImageSet:
    """All images that a set was distilled from: its classes of its view of the data, without unreadable ones."""
    from attar.data import load_view

    data = one.manifest["data"]
    real = load_view(data["spec"], data["imbalance_factor"], data["hold_out"]).restricted(one.classes)
    return _readable(real, one, store)


def random_real(one: DistilledSet, size: int, store: Store) -> Images:
    """Random real images, as many of each class as the set has, of the data that it was distilled from.

    Raises:
        AttarError: a class of the data has fewer images.
    """
    from attar.selection import random_order

    real = real_images(one, store)
    chosen: list[int] = []
    for label, files in enumerate(one.files()):
        there = real.of_class(label)
        if len(there) < len(files):
            raise AttarError(f"class {one.classes[label]!r} has {len(there)} real images: evaluate with --no-baseline")
        order = random_order(one.manifest["seed"], one.classes[label], len(there))
        chosen += there[order[: len(files)].numpy()].tolist()
    return in_memory(real, size, one.manifest["preprocess"], chosen)


def _readable(images: ImageSet, one: DistilledSet, store: Store, progress: Progress = silent) -> ImageSet:
    """Without the images that cannot be read where the set was distilled without such; elsewhere they are an error."""
    from attar.data import readable

    return readable(images, "skip" if one.manifest["data"]["skipped"] else "error", store, progress)
