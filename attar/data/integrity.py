"""Whether every image of a set can be decoded, found out once, before any long work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import PIL

from attar.core.errors import AttarError, BadImage
from attar.core.progress import Meter, Progress, silent
from attar.core.store import Artefact, Store
from attar.data.imageset import ImageSet
from attar.data.threads import in_threads


def readable(
    images: ImageSet, on_bad_image: Literal["error", "skip"], store: Store, progress: Progress | None = None
) -> ImageSet:
    """The set, every image of which can be decoded.

    Each image is decoded once; the store remembers which cannot be, by the content of each class and PIL's version. Why
    is asked of the image itself, for another data set may hold the same content under other names.

    Raises:
        AttarError: some image cannot be decoded and `on_bad_image` is "error", or leaving them out would
            empty a class; lists all of them.
    """
    meter = Meter(progress or silent, "checking", len(images), "images")
    bad: dict[int, str] = {}
    for label in range(len(images.classes)):
        indices = images.of_class(label)
        for place, why in _unreadable(images, label, store, meter).items():
            bad[int(indices[place])] = why
    if not bad:
        return images
    if on_bad_image == "error":
        raise AttarError(
            f"{len(bad)} of {len(images)} images of {images.spec} cannot be read:\n{_shown(images, bad)}\n"
            "Mend or remove them, or leave them out with --on-bad-image skip"
        )
    rest = images.without(bad)
    empty = np.flatnonzero(np.bincount(rest.labels, minlength=len(rest.classes)) == 0)
    if len(empty):
        names = ", ".join(repr(rest.classes[label]) for label in empty)
        raise AttarError(
            f"of {len(images)} images of {images.spec}, none of class {names} can be read:\n{_shown(images, bad)}"
        )
    return rest


def _unreadable(images: ImageSet, label: int, store: Store, meter: Meter) -> dict[int, str]:
    """Places within a class of the images that cannot be decoded, and why."""
    indices = images.of_class(label)

    def check(index: int) -> str | None:
        try:
            images.open(index)
        except BadImage as error:
            return str(error).removeprefix(f"{images.name(index)}: ")
        return None

    def make(scratch: Path) -> None:
        bad = []
        for place, why in enumerate(in_threads(check, indices.tolist())):
            meter.add()
            if why is not None:
                bad.append(place)
        (scratch / "bad.json").write_text(json.dumps(bad), encoding="utf-8")

    artefact = Artefact("readable", {"images": images.identity(label), "pillow": PIL.__version__})
    known = store.has(artefact)
    text = (store.once(artefact, make) / "bad.json").read_text(encoding="utf-8")
    if known:
        meter.add(len(indices))
    places = [int(place) for place in json.loads(text)]
    return {place: check(int(indices[place])) or "it cannot be decoded" for place in places}


def _shown(images: ImageSet, bad: Mapping[int, str]) -> str:
    return "\n".join(f"  {images.name(index)}: {why}" for index, why in bad.items())
