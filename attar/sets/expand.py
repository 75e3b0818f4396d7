"""The parts of a set's mosaics as an ordinary set, for any trainer."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attar.core.arguments import checked
from attar.core.errors import AttarError
from attar.core.progress import Say, quiet
from attar.core.store import Artefact, Store, fingerprint
from attar.core.wording import counted
from attar.data.output_places import check_place, occupied
from attar.sets.distilled import DistilledSet, Numbered, check_undamaged, write_distilled
from attar.sets.mosaics import grid_words
from attar.sets.own_labels import take_over

OWN = ("format", "formation", "images", "prototypes", "statistics", "keep_statistics", "labels", "card", "digest")
"""Keys of a manifest that are not taken over."""


@checked
def expand(distilled: DistilledSet, out: Path, *, say: Say = quiet, dry_run: bool = False) -> None:
    """Writes the parts, enlarged to the size of their mosaics, as a set of `formation`^2 times the IPC.

    `out` appears whole, by one rename. A dry run ends after the checks, having said what would be written.

    Raises:
        AttarError: the set is not of mosaics or is damaged, or `out` is taken.
    """
    folder, formation = distilled.folder, distilled.formation
    check_place(out, "`out`", [distilled.manifest["data"]["spec"]])
    if formation == 1:
        raise AttarError(f"{folder}: its images are no mosaics (`formation` 1); any trainer reads them as they are")
    check_undamaged(distilled)
    if occupied(out):
        raise AttarError(f"`out` {out}: something is there already; choose another folder, or remove it")
    each, classes = distilled.manifest["ipc"] * formation**2, len(distilled.classes)
    summary = f"{counted(each * classes, 'image')}, the parts of {counted(each * classes // formation**2, 'mosaic')}"
    if dry_run:
        say(f"{summary} of {grid_words(formation)}, would be written to {out.resolve()}")
        return
    with Store().lock(Artefact("writing", {"out": str(out.absolute())})):
        if occupied(out):
            raise AttarError(f"`out` {out}: another run has written there; choose another folder, or remove it")
        own = None if distilled.labels is None else partial(_take_labels, distilled)
        images = partial(_parts, distilled)
        write_distilled(out, distilled.classes, images, _manifest(distilled, each), labels=own)
    say(f"wrote {out.resolve()}: {summary} of {grid_words(formation)}")


def _parts(distilled: DistilledSet, done: Collection[int]) -> Iterator[Numbered]:
    for label, pictures in enumerate(distilled.pictures()):
        if label not in done:
            for index, picture in enumerate(pictures):
                yield label, index, np.asarray(picture.read())


def _take_labels(mosaics: DistilledSet, parts: DistilledSet) -> dict[str, Any]:
    """Labels are of what networks learn from, which is the same of both."""
    take_over(parts.folder, mosaics.folder)
    return {}


def _manifest(distilled: DistilledSet, ipc: int) -> dict[str, Any]:
    """What is said of the parts: all that is said of the mosaics, and which these are."""
    kept = {name: value for name, value in distilled.manifest.items() if name not in OWN}
    source = {"set": distilled.manifest["digest"], "formation": distilled.formation}
    if "real_images" in kept:
        kept["real_images"] = [_by_part(of_class, distilled.formation**2) for of_class in kept["real_images"]]
    return {**kept, "run": fingerprint("expanded", source), "ipc": ipc, "expanded_from": source}


def _by_part(images: list[list[str]], parts: int) -> list[list[str]]:
    """The names of each part, from those of each mosaic."""
    each = len(images[0]) // parts
    return [names[k * each : (k + 1) * each] for names in images for k in range(parts)]
