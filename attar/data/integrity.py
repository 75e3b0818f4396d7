"""Whether every image of a set can be decoded and its classes show something, found out once, before any long work."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import PIL

from attar.core.errors import AttarError, BadImage
from attar.core.progress import Meter, Progress, about, silent
from attar.core.store import Artefact, Store
from attar.core.wording import counted
from attar.data.degenerate import ACCIDENT, ClassContents, ImageContents, check_contents
from attar.data.imageset import ImageSet
from attar.data.threads import in_threads

GLANCE = 1000
"""About how many images a dry run looks at, where no run has looked at all of them."""
TIMED = 200
"""Images that are looked at to see how long that takes."""


def readable(
    images: ImageSet,
    on_bad_image: Literal["error", "skip"],
    store: Store,
    progress: Progress | None = None,
    accident: int = 1,
    which: str = "",
    dry: bool = False,
) -> ImageSet:
    """The set, every image of which can be decoded.

    Each image is decoded once; the store remembers which cannot be, and what the others show, by the content of each
    class and PIL's version. Why is asked of the image itself, for another data set may hold the same content under
    other names.

    Args:
        accident: as many equal images are a class all the same: ACCIDENT of a few images out of a data set.
        which: which of the data's images these are, in words, for errors.
        dry: look at GLANCE images, about, of the classes that no run has looked at yet.

    Raises:
        AttarError: some image cannot be decoded and `on_bad_image` is "error", or leaving them out would
            empty a class: lists all of them. All images of a class are equal or of a single colour, or two classes
            hold the same images.
    """
    meter = Meter(silent if dry or progress is None else progress, f"checking {images.spec}", len(images), "images")
    bad: dict[int, str] = {}
    contents: dict[str, ClassContents] = {}
    for label, name in enumerate(images.classes):
        unreadable, contents[name] = _glanced(images, label, store) if dry else _decoded(images, label, store, meter)
        bad |= unreadable
    rest = _without(images, bad, on_bad_image, which) if bad else images
    check_contents(contents, images.spec, accident)
    return rest


def looked_at(images: ImageSet, on_bad_image: Literal["error", "skip"]) -> tuple[ImageSet, ...]:
    """What `readable_parts` looks at as a whole: all images, or, where some may be left out, both parts."""
    return (images,) if on_bad_image == "error" else images.held_out()


def readable_parts(
    images: ImageSet, on_bad_image: Literal["error", "skip"], store: Store, progress: Progress, dry: bool = False
) -> tuple[ImageSet, ImageSet]:
    """The images to train on, and the fixed tenth that is held out, whichever images cannot be decoded.

    A dry run looks at some of them in the place of all.

    Raises:
        AttarError: as `readable`.
    """
    if on_bad_image == "error":
        return readable(images, on_bad_image, store, progress, dry=dry).held_out()
    train, held = images.held_out()
    return (
        readable(train, on_bad_image, store, progress, dry=dry),
        readable(held, on_bad_image, store, progress, ACCIDENT, ", those held out", dry),
    )


def _without(images: ImageSet, bad: Mapping[int, str], on_bad_image: Literal["error", "skip"], which: str) -> ImageSet:
    if on_bad_image == "error":
        raise AttarError(
            f"{len(bad)} of {counted(len(images), 'image')} of {images.spec} cannot be read:\n{_lines(images, bad)}\n"
            "Mend or remove them, or leave them out with `on_bad_image=skip`"
        )
    rest = images.without(bad)
    empty = np.flatnonzero(np.bincount(rest.labels, minlength=len(rest.classes)) == 0)
    if len(empty):
        names = ", ".join(repr(rest.classes[label]) for label in empty)
        none = f"of {counted(len(images), 'image')} of {images.spec}{which}, none of class {names} can be read"
        raise AttarError(f"{none}:\n{_lines(images, bad)}\nMend or remove them")
    return rest


def _decoded(images: ImageSet, label: int, store: Store, meter: Meter) -> tuple[dict[int, str], ClassContents]:
    """Which images of a class cannot be decoded, and why; and what the others show."""
    indices = images.of_class(label)

    def make(scratch: Path) -> None:
        bad, looks = [], []
        for place, look in enumerate(in_threads(lambda index: _look(images, index), indices.tolist())):
            meter.add()
            if isinstance(look, ImageContents):
                looks.append(look)
            else:
                bad.append(place)
        (scratch / "looked.json").write_text(json.dumps([bad, *ClassContents.of(looks)]), encoding="utf-8")

    artefact = _looked_at(images, label)
    known = store.has(artefact)
    text = (store.once(artefact, make) / "looked.json").read_text(encoding="utf-8")
    if known:
        meter.add(len(indices))
    bad, *contents = json.loads(text)
    why = {int(indices[place]): _look(images, int(indices[place])) for place in bad}
    reasons = {index: text if isinstance(text, str) else "it cannot be decoded" for index, text in why.items()}
    return reasons, ClassContents(*contents)


def _glanced(images: ImageSet, label: int, store: Store) -> tuple[dict[int, str], ClassContents]:
    """The same of a class that a run has looked at; else which of a few of its images cannot be decoded."""
    indices, few = images.of_class(label), -(-GLANCE // len(images.classes))
    if len(indices) <= few or store.has(_looked_at(images, label)):
        return _decoded(images, label, store, Meter(silent, "", 0, ""))
    chosen = indices[np.linspace(0, len(indices) - 1, few).astype(np.int64)].tolist()
    looks = zip(chosen, in_threads(lambda index: _look(images, index), chosen), strict=True)
    return {index: look for index, look in looks if isinstance(look, str)}, ClassContents.of([])


def still_to_look_at(sets: Sequence[ImageSet], store: Store) -> str:
    """How many images of a dry run no run has looked at, and about how long that takes, in words; empty for none.

    `sets` are what is looked at, each as a whole (`looked_at`).
    """
    of_each = [(images, label) for images in sets for label in range(len(images.classes))]
    left = sum(len(images.of_class(label)) for images, label in of_each if not store.has(_looked_at(images, label)))
    if left <= GLANCE:
        return ""
    images = sets[0]
    chosen, begun = np.linspace(0, len(images) - 1, TIMED).astype(np.int64).tolist(), time.monotonic()
    for _ in in_threads(lambda index: _look(images, index), chosen):
        pass
    seconds = (time.monotonic() - begun) * left / TIMED
    return f"; before that {counted(left, 'image')} are looked at, {about(seconds)}"


def _looked_at(images: ImageSet, label: int) -> Artefact:
    return Artefact("readable", {"images": images.identity(label), "pillow": PIL.__version__, "looked at": "contents"})


def _look(images: ImageSet, index: int) -> ImageContents | str:
    """What an image shows, or why it cannot be decoded."""
    try:
        image = images.open(index)
    except BadImage as error:
        return str(error).removeprefix(f"{images.name(index)}: ")
    return ImageContents.of(image.tobytes())


def _lines(images: ImageSet, bad: Mapping[int, str]) -> str:
    return "\n".join(f"  {images.name(index)}: {why}" for index, why in bad.items())
