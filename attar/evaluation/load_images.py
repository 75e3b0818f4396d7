"""Labelled images: those of a distilled set, random real ones beside it, a teacher's examples, all of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain, islice

import numpy as np
from PIL import Image

from attar.core.errors import AttarError
from attar.core.machine import memory
from attar.core.store import Store
from attar.core.wording import counted
from attar.core.wording import size as in_words
from attar.data import ImageSet, decode, load_pixels, preprocess
from attar.data.decoded import Undecoded, decoded, pixel_bytes
from attar.data.degenerate import ACCIDENT, ClassContents, check_contents
from attar.evaluation.labelled_images import LabelledImages
from attar.evaluation.native import SHARE, Native
from attar.evaluation.recipe import Recipe
from attar.selection import random_order
from attar.sets.distilled import DistilledSet
from attar.sets.mosaics import enlarged, reduced
from attar.sets.source_data import of_its_classes, real_images, view_of, without_unreadable
from attar.teachers.check import TRIED_EACH

AT_HAND = 8
"""Mosaics that are kept while their parts are cut out."""


def random_real_images(distilled: DistilledSet, recipe: Recipe, side: int, store: Store) -> LabelledImages:
    """Random real images of the data that a set is of, as many of each class as it has.

    Beside a set of mosaics they are as many as these have parts, brought to squares of the mosaics' `side`, and reduced
    and enlarged as the parts are.

    Raises:
        AttarError: a class of the data has fewer images.
    """
    images = real_images(distilled, store)
    chosen: list[int] = []
    for label, pictures in enumerate(distilled.pictures()):
        name, own = distilled.classes[label], images.of_class(label)
        if len(own) < len(pictures):
            raise AttarError(f"class {name!r} has {counted(len(own), 'real image')}: evaluate with `baseline=false`")
        order = random_order(distilled.manifest["seed"], name, len(own))
        chosen += own[order[: len(pictures)].numpy()].tolist()
    if distilled.reduced_by == 1:
        how = distilled.manifest["preprocess"]
        return native_images(images, chosen) if recipe.size else in_memory(images, side, how, chosen)
    squares = in_memory(images, side, distilled.manifest["preprocess"], chosen)
    part, how = side // distilled.reduced_by, distilled.manifest.get("output_filter", "lanczos")
    small = (Image.fromarray(reduced(square, part, how)) for square in squares.pixels)
    return replace(squares, images=np.stack([np.asarray(enlarged(image, (side, side))) for image in small]))


def teacher_examples(distilled: DistilledSet, train: LabelledImages, store: Store) -> tuple[LabelledImages, str]:
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
    return tried_on(real, distilled.manifest["seed"], train.side, distilled.manifest["preprocess"])


def tried_on(real: ImageSet, seed: int, side: int, how: str) -> tuple[LabelledImages, str]:
    """About 500 random images of a data set, of many classes more, and what they are in words."""
    chosen, each = list[int](), max(TRIED_EACH, 500 // len(real.classes))
    for label, name in enumerate(real.classes):
        own = real.of_class(label)
        chosen += own[random_order(seed, name, len(own))[:each].numpy()].tolist()
    return in_memory(real, side, how, chosen), f"images of {real.spec}"


def in_memory(images: ImageSet, size: int, how: str, indices: Sequence[int]) -> LabelledImages:
    """Chosen images of a data set at `size` pixels, as uint8."""
    chosen = np.asarray(indices)
    return LabelledImages(load_pixels(images, chosen, size, how), images.labels[chosen], images.classes)


def all_images(images: ImageSet, size: int, how: str, store: Store) -> LabelledImages:
    """All images of a data set at `size` pixels, as uint8; many are mapped from a file of the store.

    Raises:
        AttarError: they have room neither there nor in a quarter of the memory.
    """
    pixels = decoded(images, size, how, store)
    if isinstance(pixels, Undecoded):
        if (needed := pixel_bytes(images, size)) > memory() // SHARE:
            raise AttarError(
                f"{images.spec}: all images at {size} pixels take {in_words(needed)}, and the cache {store.root} has "
                "no room for them: free some there, or set ATTAR_CACHE to a folder elsewhere"
            )
        pixels = pixels[np.arange(len(images))]
    return LabelledImages(pixels, images.labels, images.classes)


def all_for_recipe(images: ImageSet, recipe: Recipe, side: int, how: str, store: Store) -> LabelledImages:
    """All of a data set as a recipe's training images: of their own sizes, or where it has no size, squares."""
    return all_images(images, side, how, store) if recipe.size is None else native_images(images)


def native_images(images: ImageSet, indices: Sequence[int] | None = None) -> LabelledImages:
    """Images of a data set (all of them, if none are named) at the sizes that they have."""
    chosen = np.arange(len(images)) if indices is None else np.asarray(indices)
    decoded = Native(len(chosen), lambda i: np.asarray(images.open(int(chosen[i]))))
    return LabelledImages(decoded.stacked(), images.labels[chosen], images.classes)


def images_of_set(distilled: DistilledSet, recipe: Recipe) -> LabelledImages:
    """The images of a distilled set as networks learn from them: as they are, or the parts of mosaics, enlarged.

    Where they are not alike and square, as real images may be, a recipe without a size gets squares of the median of
    their shorter sides.

    Raises:
        AttarError: the images of a class are equal or of a single colour, or two classes hold the same.
    """
    by_class = distilled.pictures()
    pictures = list(chain.from_iterable(by_class))
    labels = np.repeat(np.arange(len(by_class)), [len(of_class) for of_class in by_class])
    read = lru_cache(maxsize=AT_HAND)(decode.read) if distilled.formation > 1 else decode.read
    native = Native(len(pictures), lambda i: np.asarray(pictures[i].within(read(pictures[i].file))))
    contents = iter(native.contents)
    shown = [ClassContents.of(islice(contents, len(of_class))) for of_class in by_class]
    check_contents(dict(zip(distilled.classes, shown, strict=True)), str(distilled.folder), ACCIDENT)
    if recipe.size is not None or (len(set(native.sizes)) == 1 and len(set(native.sizes[0])) == 1):
        return LabelledImages(native.stacked(), labels, distilled.classes)
    squares = [
        preprocess(Image.fromarray(native.picture(i)), native.side, distilled.manifest["preprocess"])
        for i in range(len(native))
    ]
    original = LabelledImages(native.stacked(), labels, distilled.classes)
    return LabelledImages(np.stack(squares), labels, distilled.classes, original)
