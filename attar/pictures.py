"""The images that an evaluation works with: a distilled set's own, real ones beside it, and those it is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attar.errors import AttarError
from attar.progress import Progress, silent
from attar.store import Store, fingerprint

if TYPE_CHECKING:
    from attar.data import ImageSet
    from attar.distilled import DistilledSet
    from attar.evaluation import Images, Recipe
    from attar.plan import Say

REMEDY = "bring back the images that it was made from, or distill it again (`attar evaluate --no-baseline` needs none)"
"""After an error about changed data."""


def tested_images(one: DistilledSet, test: str | None, store: Store, progress: Progress) -> ImageSet:
    """The images that a set is tested on: those of a spec, `held-out` (the tenth), or the test split of its own data.

    Raises:
        AttarError: they lack its classes, or the held-out tenth was not held out when the set was distilled.
    """
    from attar.data import load_data, load_held_out, test_spec

    data = one.manifest["data"]
    if test == "held-out":
        if not data.get("hold_out"):
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
    native = Native(len(files), lambda i: np.asarray(decode.read(files[i][0])))
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

    Of many classes they are more (attar.teachers.check). Where the data is not at hand, the set itself, `train`.

    Raises:
        AttarError: the data is at hand, but lacks classes of the set, or images that cannot be read were added to it.
    """
    from attar.selection import random_order
    from attar.teachers.check import TRIED_EACH

    try:
        every = _view(one)
    except AttarError:
        return train, f"images of {one.folder}"
    real = _readable(_of_its_classes(one, every), one, store)
    chosen: list[int] = []
    for label, name in enumerate(one.classes):
        there = real.of_class(label)
        order = random_order(one.manifest["seed"], name, len(there))[: max(TRIED_EACH, 500 // len(one.classes))]
        chosen += there[order.numpy()].tolist()
    return in_memory(real, train.side, one.manifest["preprocess"], chosen), f"images of {real.spec}"


def real_images(one: DistilledSet, store: Store) -> ImageSet:
    """All images that a set was distilled from: its classes of its view of the data, without unreadable ones.

    Raises:
        AttarError: the data is not at hand, or not what it was.
    """
    every = _view(one)
    if differs := _difference(one, every, store):
        raise AttarError(f"{differs}: {REMEDY}")
    return _readable(_of_its_classes(one, every), one, store)


def changed(one: DistilledSet, store: Store) -> str | None:
    """How the data at hand differs from what a set was distilled from, in words; None: not at all, or not known."""
    try:
        return _difference(one, _view(one), store)
    except AttarError:
        return None


def check_data(one: DistilledSet, tests: ImageSet, baseline: bool, store: Store, say: Say) -> None:
    """Says what is to be known of the data of a set that is tested on some images: changes, and images that they share.

    Raises:
        AttarError: a `baseline` needs the data, and it has changed or is not at hand.
    """
    from attar.data import shared

    try:
        every = _view(one)
    except AttarError:
        if baseline:
            raise
        return
    if differs := _difference(one, every, store):
        if baseline:
            raise AttarError(f"{differs}: {REMEDY}")
        say(f"note: {differs}")
    names = [name for name in one.classes if name in every.classes]
    if names and (both := shared(tests, every.restricted(names), store)):
        say(
            f"note: {both} of the {len(tests)} test images of {tests.spec} are training images of {every.spec}, too: "
            "accuracies on them are too high"
        )


def _view(one: DistilledSet) -> ImageSet:
    """The images of a set's data, all of its classes."""
    from attar.data import load_view

    data = one.manifest["data"]
    return load_view(data["spec"], data.get("imbalance_factor"), data.get("hold_out", False))


def _of_its_classes(one: DistilledSet, every: ImageSet) -> ImageSet:
    real = every.restricted(one.classes)
    if real.classes != one.classes:
        raise AttarError(f"{real.spec}: its classes are in another order than those of {one.folder}")
    return real


def _difference(one: DistilledSet, every: ImageSet, store: Store) -> str | None:
    """How data differs from what a set was distilled from, in words; None: not at all, or that is not known."""
    from attar.data import readable

    data = one.manifest["data"]
    if "fingerprint" not in data:
        return None
    told = f"{data['spec']} has changed since {one.folder} was distilled from it"
    if missing := [name for name in one.classes if name not in every.classes]:
        return f"{told} (it has no class {missing[0]!r} now)"
    real = every.restricted(one.classes)
    if data["skipped"]:
        real = readable(real, "skip", store)
    labels = range(len(real.classes))
    if real.classes == one.classes and fingerprint([real.digest(label) for label in labels]) == data["fingerprint"]:
        return None
    pairs = zip(one.classes, data.get("counts", []), strict=False)
    counts = [(name, was, len(real.of_class(real.classes.index(name)))) for name, was in pairs]
    other = next((f"{now} images of class {name!r}, then {was}" for name, was, now in counts if now != was), None)
    return f"{told} ({other or 'other images, or in another order'})"


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
