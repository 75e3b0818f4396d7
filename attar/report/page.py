"""The page of a report: what is on it, and its writing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attar import __version__
from attar.core.errors import AttarError
from attar.core.progress import duration
from attar.core.store import replacing
from attar.data.places import check_file, check_place
from attar.evaluation.records import ALL_DATA, Record, accuracy, identity, terms
from attar.report.figures import COLOURS, MARKERS, Sprite, Strip, sprite
from attar.report.nearest import Copies, copies
from attar.report.settings import distill_command, evaluate_commands, settings
from attar.report.tables import tables
from attar.report.tuned import MEASURES, panels, tunings
from attar.sets.distilled import CLASSES_SHOWN, IMAGES_SHOWN, DistilledSet, evenly, find_distilled, verify
from attar.sets.near_copies import NEAR

GENERATOR = '<meta name="generator" content="attar '
"""What a page of ours begins with; then comes the version."""


@dataclass(frozen=True)
class Wall:
    """A distilled set on the page."""

    number: int
    name: str
    style: int
    ipc: int
    sprite: Sprite
    prototypes: Sprite | None
    """What the images began from."""
    copies: tuple[Copies, ...]
    """How far they are from real ones."""
    classes: int
    facts: tuple[tuple[str, str], ...]
    settings: Mapping[str, Sequence[tuple[str, str]]]
    commands: str
    problems: tuple[str, ...]
    """What is not as it was written, a line each."""

    @property
    def marker(self) -> str:
        """The character that stands for its method's marker in the charts."""
        return list(MARKERS.values())[self.style % len(MARKERS)]


@dataclass(frozen=True)
class Comparison:
    """One class, as every set shows it: a row of strips for each IPC."""

    name: str
    rows: tuple[tuple[int, tuple[tuple[Wall, Strip], ...]], ...]


def write_report(
    folders: Sequence[Path], records: Sequence[Record], out: Path, title: str = "Attar report"
) -> list[str]:
    """Writes one HTML file with results, image walls and settings; it needs no network and no other file.

    A set that was altered since it was written is shown as it is, and the page says so.

    Args:
        folders: distilled sets, or folders of them.
        records: results (see `attar.evaluation.records`); of those with the same identity the last counts.

    Returns:
        The sets that were altered, a line each.

    Raises:
        AttarError: a folder holds no distilled set, an image cannot be read, or `out` is a folder, no report, or a
            place that nothing may be written to.
    """
    import jinja2

    if out.is_dir():
        raise AttarError(f"--out {out}: is a folder; name the HTML file to write")
    check_file(out, "--out", GENERATOR, "a report of Attar's")
    found = {one.folder.resolve(): one for folder in folders for one in find_distilled(folder)}
    sets = sorted(found.values(), key=lambda one: one.manifest["ipc"])
    check_place(out, "--out", [one.manifest["data"]["spec"] for one in sets])
    kept = list({identity(record): record for record in records}.values())
    names = method_names(sets, kept)
    styles = {name: number for number, name in enumerate(dict.fromkeys(names.values()))}
    walls = _walls(sets, kept, names, styles)
    tuned = tunings(sets, names, styles)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("attar.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(accuracy=accuracy, duration=duration, terms=terms, colour=_colour)
    html = environment.get_template("template.html.jinja").render(
        title=title,
        version=__version__,
        overview=_overview(sets, names),
        tables=tables(kept, names, styles),
        records=[(_of(record, names), record) for record in kept],
        tunings=tuned,
        panels=panels(tuned) if tuned else "",
        measures=MEASURES,
        near=NEAR,
        walls=walls,
        comparisons=_comparisons(walls),
        time=duration(sum(map(_seconds, kept))),
        devices=sorted({record["device"] for record in kept}),
    )
    with replacing(out) as temporary:
        temporary.write_text(html, encoding="utf-8")
    altered = [(one, wall.problems) for one, wall in zip(sets, walls, strict=True) if wall.problems]
    return [
        f"{one.folder} is not as it was written ({problems[0]}; {len(problems)} in all)" for one, problems in altered
    ]


def method_names(sets: Sequence[DistilledSet], records: Sequence[Record]) -> dict[str, str]:
    """A set's absolute path -> what it is called, and as much more as tells it from others of its IPC.

    It is called by its method's label in an experiment, or else by the method's name.
    """
    labels = {identity(record)[0]: record["label"] for record in records if "label" in record}
    uses = [
        (str(s.folder.resolve()), s.manifest["method"]["name"], s.manifest["seed"], s.manifest["ipc"]) for s in sets
    ]
    uses += [(identity(r)[0], r["method"], r.get("seed"), r["ipc"]) for r in records if r["method"] != ALL_DATA]
    uses = [(path, labels.get(path, method), seed, ipc) for path, method, seed, ipc in uses]
    names: dict[str, str] = {}
    for method in dict.fromkeys(use[1] for use in uses):
        of_method = dict.fromkeys((path, seed, ipc) for path, other, seed, ipc in uses if other == method)
        for more in ("", ", seed {seed}", " ({stem})", " ({path})"):
            called = {
                path: method + more.format(seed=seed, stem=_stem(Path(path)), path=path) for path, seed, _ in of_method
            }
            if len({(called[path], ipc) for path, _, ipc in of_method}) == len(of_method):
                break
        names |= called
    return names


def _stem(folder: Path) -> str:
    return folder.parent.name if re.fullmatch(r"ipc-\d+", folder.name) else folder.name


def _of(record: Record, names: Mapping[str, str]) -> str:
    return ALL_DATA if record["method"] == ALL_DATA else names[identity(record)[0]]


def _seconds(record: Record) -> float:
    return record["seconds"] + (record["baseline"]["seconds"] if record.get("baseline") else 0)


def _colour(style: int | None) -> str:
    return "var(--muted)" if style is None else f"var(--series-{style % COLOURS})"


def _overview(sets: Sequence[DistilledSet], names: Mapping[str, str]) -> list[tuple[str, str]]:
    data = dict.fromkeys(one.manifest["data"]["spec"] for one in sets)
    classes = sorted({len(one.classes) for one in sets})
    ipcs = sorted({one.manifest["ipc"] for one in sets})
    methods = dict.fromkeys(names[str(one.folder.resolve())] for one in sets)
    return [
        ("Data", ", ".join(data)),
        ("Classes", ", ".join(f"{count:,}" for count in classes)),
        ("Images per class", ", ".join(map(str, ipcs))),
        ("Methods", ", ".join(methods)),
    ]


def _walls(
    sets: Sequence[DistilledSet], records: Sequence[Record], names: Mapping[str, str], styles: Mapping[str, int]
) -> list[Wall]:
    common = set(sets[0].classes).intersection(*(one.classes for one in sets)) if sets else set()
    walls = []
    for number, one in enumerate(sets):
        path = str(one.folder.resolve())
        evaluated = [record for record in records if identity(record)[0] == path]
        picture = sprite(_shown(one, common))
        check = [f"attar verify {shlex.quote(str(one.folder))}", *evaluate_commands(evaluated)]
        walls.append(
            Wall(
                number=number,
                name=names[path],
                style=styles[names[path]],
                ipc=one.manifest["ipc"],
                sprite=picture,
                prototypes=_prototypes(one),
                copies=tuple(copies(one, f"copies-{number}")),
                classes=len(one.classes),
                facts=tuple(_facts(one, picture, evaluated)),
                settings=settings(one.manifest),
                commands="\n".join([distill_command(one), "", *check]),
                problems=tuple(verify(one.folder)),
            )
        )
    return walls


def _shown(one: DistilledSet, common: set[str]) -> list[tuple[str, list[Path], int]]:
    """The classes to show, evenly spaced among those that every set has, and the first images of each."""
    labels = [label for label, name in enumerate(one.classes) if name in common] or list(range(len(one.classes)))
    files = one.files()
    chosen = evenly(labels, CLASSES_SHOWN)
    return [(one.classes[label], files[label][:IMAGES_SHOWN], len(files[label])) for label in chosen]


def _prototypes(one: DistilledSet) -> Sprite | None:
    """The prototypes that are kept with a set, if there are any."""
    kept = [(name, files, len(files)) for name, files in zip(one.classes, one.prototypes(), strict=True) if files]
    return sprite(kept) if kept else None


def _facts(one: DistilledSet, picture: Sprite, records: Sequence[Record]) -> list[tuple[str, str]]:
    manifest = one.manifest
    smallest, largest = picture.sizes[0], picture.sizes[-1]
    size = (
        f"{smallest[0]} x {smallest[1]} pixels"
        if smallest == largest
        else (f"{len(picture.sizes)} sizes, {smallest[0]} x {smallest[1]} to {largest[0]} x {largest[1]} pixels")
    )
    facts = [
        ("Images", f"{len(manifest['images']):,}, {size}"),
        ("Data", f"{manifest['data']['spec']}, {manifest['data']['images']:,} images"),
        ("Prior", manifest["prior"]["source"] if manifest["prior"] else "none: real images"),
        ("Seed", str(manifest["seed"])),
    ]
    if manifest["seconds"]:
        facts.append(("Made in", f"{duration(sum(manifest['seconds'].values()))} on {manifest['machine']['device']}"))
    return facts + [(f"{r['network']}, {terms(r)}", f"{accuracy(r)} %, n = {len(r['accuracies'])}") for r in records]


def _comparisons(walls: Sequence[Wall]) -> list[Comparison]:
    strips: dict[str, dict[int, list[tuple[Wall, Strip]]]] = {}
    for wall in walls:
        for strip in wall.sprite.strips:
            strips.setdefault(strip.name, {}).setdefault(wall.ipc, []).append((wall, strip))
    return [Comparison(name, tuple((ipc, tuple(row)) for ipc, row in rows.items())) for name, rows in strips.items()]
