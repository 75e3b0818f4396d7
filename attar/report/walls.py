"""Distilled sets on a page: the images of each, what stands beside them, and one class across all sets."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attar.core.errors import AttarError, reason
from attar.core.portable_paths import portable, portable_all
from attar.core.progress import duration
from attar.core.wording import counted
from attar.evaluation.records import Record
from attar.report.charts import distances_chart
from attar.report.manifest_rows import distill_command, evaluate_commands, settings
from attar.report.maps import Map, maps_of, noise_maps_of
from attar.report.rows import public
from attar.report.set_names import path_of
from attar.report.sprites import BUDGET, Sheet, ShownImages, fitting, image_of, sheet
from attar.sets.distilled import CLASSES_SHOWN, DistilledSet, Stored, evenly, stored, verify
from attar.sets.mosaics import grid_words
from attar.sets.near_copies import folder_of, nearest_pixels, read_nearest
from attar.sets.races import credited_prior, races_in_words


@dataclass(frozen=True)
class Copies:
    """How far a set's images are from real ones, by one kind of distance, in words and pictures."""

    kind: str
    closest: str
    median: str
    real: str
    """The median of real images to their nearest."""
    near_copies: str
    spread: str
    """How much of the real images is covered, how far the set's are from one another, how sure a teacher is."""
    chart: str
    """An SVG element: how many images, and how many real ones, lie how far from the nearest."""
    pairs: str
    """A picture of the closest pairs, as a data URI."""


@dataclass(frozen=True)
class Strip:
    """The images of one class of a set on the page."""

    id: str
    sheet: Sheet
    uri: str
    real: Strip | None = None
    """The real images nearest to them."""
    map: Map | None = None
    """Where they lie among the real images."""


@dataclass(frozen=True)
class Wall:
    """A distilled set on the page."""

    number: int
    name: str
    style: int
    ipc: int
    strips: tuple[Strip, ...]
    prototypes: tuple[Strip, ...]
    """What the images began from."""
    missing: str
    """Why the nearest real images are not shown, though they were looked for."""
    copies: tuple[Copies, ...]
    """How far they are from real ones."""
    classes: int
    facts: tuple[tuple[str, str], ...]
    settings: Mapping[str, Sequence[tuple[str, str]]]
    commands: str
    real: tuple[tuple[str, str], ...]
    """The classes that are shown, and the names of the real images that those on the page are or were made of."""
    problems: tuple[str, ...]
    """What is not as it was written, a line each."""
    noises: tuple[tuple[str, Map], ...] = ()
    """For some classes, where the starts of the images lie in the domain that they are drawn in."""


@dataclass(frozen=True)
class Comparison:
    """One class, as every set shows it: a row of strips for each IPC."""

    number: int
    name: str
    rows: tuple[tuple[int, tuple[tuple[Wall, Strip], ...]], ...]


def walls_of(
    sets: Sequence[DistilledSet], records: Sequence[Record], names: Mapping[str, str], styles: Mapping[str, int]
) -> tuple[list[Wall], ShownImages]:
    """What is shown of each set, and how its images stand on the page."""
    common = set(sets[0].classes).intersection(*(distilled.classes for distilled in sets)) if sets else set()
    labels = [_shown(distilled, common) for distilled in sets]
    colours = [styles[names[path_of(distilled)]] for distilled in sets]
    maps, noises = maps_of(sets, labels, colours), noise_maps_of(sets, colours)
    drawn: list[_Drawn] = []

    def draw(images: int) -> list[Sheet]:
        drawn[:] = [_drawn(distilled, own, images) for distilled, own in zip(sets, labels, strict=True)]
        return [one for each in drawn for one in each.sheets]

    look, uris = fitting(draw, BUDGET - sum(len(one.symbol) for own in (*maps, *noises) for one in own.values()))
    left = iter(uris)
    walls = [
        _wall(number, distilled, each, left, [record for record in records if record.path == path_of(distilled)], name)
        for number, (distilled, each) in enumerate(zip(sets, drawn, strict=True))
        for name in [names[path_of(distilled)]]
    ]
    return [_finished(*each, styles) for each in zip(sets, walls, labels, maps, noises, strict=True)], look


def _finished(
    distilled: DistilledSet,
    wall: Wall,
    labels: Sequence[int],
    maps: Mapping[int, Map],
    noises: Mapping[int, Map],
    styles: Mapping[str, int],
) -> Wall:
    """A wall in its colour, with the maps of its classes."""
    strips = (replace(strip, map=maps.get(label)) for strip, label in zip(wall.strips, labels, strict=True))
    named = tuple((distilled.classes[label], one) for label, one in noises.items())
    return replace(wall, style=styles[wall.name], strips=tuple(strips), noises=named)


@dataclass(frozen=True)
class _Drawn:
    """The sheets of a set: of its images, of the real ones nearest to them, of its prototypes."""

    images: list[Sheet]
    real: list[Sheet]
    prototypes: list[Sheet]
    missing: str

    @property
    def sheets(self) -> list[Sheet]:
        """All of them."""
        return [*self.images, *self.real, *self.prototypes]


def _drawn(distilled: DistilledSet, labels: Sequence[int], count: int) -> _Drawn:
    files, names = distilled.files(), distilled.classes
    images = [sheet(names[k], [image_of(file) for file in files[k][:count]], len(files[k])) for k in labels]
    real, missing = _nearest(distilled, labels, count)
    pairs = zip(names, distilled.prototypes(), strict=True)
    prototypes = [sheet(name, [image_of(file) for file in own[:count]], len(own)) for name, own in pairs if own]
    return _Drawn(images, real, prototypes, missing)


def _nearest(distilled: DistilledSet, labels: Sequence[int], count: int) -> tuple[list[Sheet], str]:
    """Sheets of the real images nearest to those of some classes; or none, and why."""
    measured = read_nearest(distilled)
    if not measured:
        return [], ""
    if distilled.formation > 1:
        return [], "each image is a mosaic, whose parts were compared"
    try:
        found = nearest_pixels(distilled, measured[0], labels, count)
    except AttarError:
        return [], "the data is not at hand, or not what it was"
    pictures = {label: [Image.fromarray(one) for one in pixels] for label, pixels in found.items()}
    return [sheet(distilled.classes[label], pictures[label], len(pictures[label])) for label in labels], ""


def _wall(
    number: int, distilled: DistilledSet, drawn: _Drawn, uris: Iterator[str], records: Sequence[Record], name: str
) -> Wall:
    manifest = portable_all(distilled.manifest) | {"classes": distilled.manifest["classes"]}
    told = replace(distilled, folder=Path(portable(str(distilled.folder))), manifest=manifest)
    shown = [public(record) for record in records]
    check = [f"attar verify {shlex.quote(str(told.folder))}", *evaluate_commands(shown, distilled.labels is not None)]
    images = [Strip(f"s{number}-{k}", one, next(uris)) for k, one in enumerate(drawn.images)]
    real = [Strip(f"r{number}-{k}", one, next(uris)) for k, one in enumerate(drawn.real)]
    return Wall(
        number=number,
        name=name,
        style=0,
        ipc=manifest["ipc"],
        strips=tuple(replace(one, real=beside) for one, beside in zip_longest(images, real)),
        prototypes=tuple(Strip(f"p{number}-{k}", one, next(uris)) for k, one in enumerate(drawn.prototypes)),
        missing=drawn.missing,
        copies=tuple(_copies(distilled, f"copies-{number}")),
        classes=len(distilled.classes),
        facts=tuple(_facts(told, stored(distilled), drawn.images, shown)),
        settings=settings(manifest),
        commands="\n".join([distill_command(told), "", *check]),
        real=tuple(_real_names(manifest, drawn.images)),
        problems=tuple(verify(distilled.folder)),
    )


def _real_names(manifest: Mapping[str, Any], sheets: Sequence[Sheet]) -> Iterator[tuple[str, str]]:
    if "real_images" in manifest:
        of_class = dict(zip(manifest["classes"], manifest["real_images"], strict=True))
        for one in sheets:
            yield one.name, "; ".join(", ".join(names) for names in of_class[one.name][: one.shown])


def _shown(distilled: DistilledSet, common: set[str]) -> list[int]:
    """The labels to show, evenly spaced among the classes that every set has."""
    labels = [label for label, name in enumerate(distilled.classes) if name in common]
    return evenly(labels or list(range(len(distilled.classes))), CLASSES_SHOWN)


def _copies(distilled: DistilledSet, salt: str) -> list[Copies]:
    """What `attar nearest` measured of a set, for each kind of distance; nothing if it was not measured."""
    copies = []
    for nearest in read_nearest(distilled):
        picture = _encoded(folder_of(distilled) / f"closest-{nearest.kind}.png")
        copies.append(
            Copies(
                kind=nearest.kind,
                closest=f"{min(nearest.all):.3g}",
                median=f"{np.median(nearest.all):.3g}",
                real=f"{np.median(nearest.all_real):.3g}" if nearest.all_real else "",
                near_copies=f"{nearest.near_copies:.0%}" if nearest.all_real else "",
                spread=", ".join(nearest.spread.values()),
                chart=distances_chart(nearest, f"{salt}-{nearest.kind}"),
                pairs=f"data:image/png;base64,{picture}",
            )
        )
    return copies


def _encoded(picture: Path) -> str:
    try:
        return base64.b64encode(picture.read_bytes()).decode()
    except OSError as error:
        raise AttarError(f"{picture} cannot be read ({reason(error)}); run `attar nearest` again") from error


def _facts(
    distilled: DistilledSet, held: Stored, sheets: Sequence[Sheet], records: Sequence[Record]
) -> list[tuple[str, str]]:
    manifest = distilled.manifest
    sizes = sorted({size for one in sheets for size in one.sizes})
    smallest, largest = (f"{width} x {height}" for width, height in (sizes[0], sizes[-1]))
    several = f"{len(sizes)} sizes, {smallest} to {largest} pixels"
    size = f"{smallest} pixels" if smallest == largest else several
    count, grid = len(manifest["images"]), distilled.formation
    parts = f", mosaics of {grid_words(grid)}: {count * grid**2:,} to learn from" if grid > 1 else ""
    facts = [
        ("Images", f"{count:,}, {size}{parts}"),
        ("Stored", f"{held.pixels:,} pixels, {held.bytes:,} bytes"),
        ("Data", f"{manifest['data']['spec']}, {counted(manifest['data']['images'], 'image')}"),
        ("Prior", credited_prior(manifest) or "none: real images"),
        ("Seed", str(manifest["seed"])),
    ]
    facts += [("Choice", raced)] if (raced := races_in_words(manifest)) else []
    if manifest["seconds"]:
        facts.append(("Made in", f"{duration(sum(manifest['seconds'].values()))} on {manifest['machine']['device']}"))
    results = [(f"{record.network}, {record.protocol}", f"{record.accuracy} %, n = {record.n}") for record in records]
    return facts + results


def comparisons_of(walls: Sequence[Wall]) -> list[Comparison]:
    strips: dict[str, dict[int, list[tuple[Wall, Strip]]]] = {}
    for wall in walls:
        for strip in wall.strips:
            strips.setdefault(strip.sheet.name, {}).setdefault(wall.ipc, []).append((wall, strip))
    return [
        Comparison(number, name, tuple((ipc, tuple(row)) for ipc, row in rows.items()))
        for number, (name, rows) in enumerate(strips.items())
    ]
