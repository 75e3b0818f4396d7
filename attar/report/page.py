"""The page of a report: what is on it, and its writing."""

from __future__ import annotations

import base64
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

from attar import __version__
from attar.core.arguments import checked
from attar.core.errors import AttarError, reason
from attar.core.files import replacing, writing
from attar.core.progress import Say, duration, quiet
from attar.core.wording import counted
from attar.data.output_places import check_file, check_place
from attar.evaluation.records import ALL_DATA, Record
from attar.report.charts import COLOURS, distances, measures_by_step, symbol
from attar.report.results import results_tables
from attar.report.settings import distill_command, evaluate_commands, settings
from attar.report.sprites import Sprite, Strip, sprite
from attar.sets.distilled import CLASSES_SHOWN, IMAGES_SHOWN, DistilledSet, evenly, find_distilled, stored, verify
from attar.sets.formation import grid_words
from attar.sets.near_copies import NEAR, folder_of, read_nearest

MEASURES = {
    "precision": "share of generated latents that lie among real ones (5 neighbours)",
    "recall": "share of real latents that lie among generated ones",
    "density": "how many real latents' neighbourhoods a generated one lies in, over 5",
    "coverage": "share of real latents with a generated one in their neighbourhood",
    "farthest": "1 - a generated latent's smallest cosine to real ones: what representativeness makes small",
    "nearest": "its largest cosine to another generated one: what diversity makes small",
}
"""What is shown of a fine-tuning."""


@dataclass(frozen=True)
class Copies:
    """How far a set's images are from real ones, by one kind of distance, in words and pictures."""

    kind: str
    closest: str
    median: str
    real: str
    """The median of real images to their nearest."""
    near_copies: str
    chart: str
    """An SVG element: how many images, and how many real ones, lie how far from the nearest."""
    pairs: str
    """A picture of the closest pairs, as a data URI."""


@dataclass(frozen=True)
class FineTuning:
    """One method's fine-tuning, over all of its groups of classes."""

    name: str
    style: int
    steps: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]
    """Measure -> its mean over the groups after each of the steps."""

    @property
    def changes(self) -> list[str]:
        """ "before → after" of each measure."""
        return [f"{values[0]:.2f} \N{RIGHTWARDS ARROW} {values[-1]:.2f}" for values in self.values.values()]


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


@dataclass(frozen=True)
class Comparison:
    """One class, as every set shows it: a row of strips for each IPC."""

    name: str
    rows: tuple[tuple[int, tuple[tuple[Wall, Strip], ...]], ...]


@checked
def write_report(
    folders: Sequence[Path],
    records: Sequence[Record],
    out: Path,
    title: str = "Attar report",
    *,
    say: Say = quiet,
    dry_run: bool = False,
) -> list[str]:
    """Writes one HTML file with results, image walls and settings; it needs no network and no other file.

    A set that was altered since it was written is shown as it is, and the page says so. A dry run makes the page and
    does not write it.

    Args:
        folders: distilled sets, or folders of them.
        records: results (see `attar.evaluation.records`); of those with the same identity the last counts.

    Returns:
        The sets that were altered, a line each.

    Raises:
        AttarError: a folder holds no distilled set, an image cannot be read, or `out` is a folder, no report, or a
            place that nothing may be written to.
    """
    if out.is_dir():
        raise AttarError(f"`out` {out}: is a folder; name the HTML file to write")
    check_file(out, "`out`", GENERATOR, "a report of Attar's")
    sets = _sets_in(folders)
    check_place(out, "`out`", [distilled.manifest["data"]["spec"] for distilled in sets])
    latest = list({record.identity: record for record in records}.values())
    html, walls = _page(sets, latest, title)
    of = f"{counted(len(sets), 'set')} and {counted(len(latest), 'result')}"
    if dry_run:
        say(f"{out.resolve()} would be written: a page of {of}, {len(html.encode()):,} bytes")
    else:
        with writing(out, "choose another `out`"), replacing(out) as temporary:
            temporary.write_text(html, encoding="utf-8")
        say(f"wrote {out.resolve()}: a page of {of}")
    return _altered(sets, walls)


def _sets_in(folders: Sequence[Path]) -> list[DistilledSet]:
    """The sets in some folders, each once, by rising IPC."""
    by_path = {_path(distilled): distilled for folder in folders for distilled in find_distilled(folder)}
    return sorted(by_path.values(), key=lambda distilled: distilled.manifest["ipc"])


def _altered(sets: Sequence[DistilledSet], walls: Sequence[Wall]) -> list[str]:
    return [
        f"{distilled.folder} is not as it was written ({wall.problems[0]}; {len(wall.problems)} in all)"
        for distilled, wall in zip(sets, walls, strict=True)
        if wall.problems
    ]


def _page(sets: Sequence[DistilledSet], latest: Sequence[Record], title: str) -> tuple[str, list[Wall]]:
    """The page of sets and their latest results, and what it shows of each set."""
    names = method_names(sets, latest)
    styles = {name: number for number, name in enumerate(dict.fromkeys(names.values()))}
    walls, tunings = _walls(sets, latest, names, styles), _fine_tunings(sets, names, styles)
    html = _template().render(
        title=title,
        version=__version__,
        overview=_overview(sets, names),
        tables=results_tables(latest, names, styles),
        records=[(ALL_DATA if record.of_all_data else names[record.path], record) for record in latest],
        tunings=tunings,
        panels=measures_by_step(tunings) if tunings else "",
        measures=MEASURES,
        near=NEAR,
        walls=walls,
        comparisons=_comparisons(walls),
        formed=any(one.formation > 1 for one in sets) or any(record.formation > 1 for record in latest),
        time=duration(sum(map(_seconds, latest))),
        devices=sorted({record.device for record in latest}),
    )
    return html, walls


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("attar.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(duration=duration, colour=_colour, symbol=symbol)
    return environment.get_template("template.html.jinja")


def method_names(sets: Sequence[DistilledSet], records: Sequence[Record]) -> dict[str, str]:
    """A set's absolute path -> what it is called, and as much more as tells it from others of its IPC.

    It is called by its method's label in an experiment, or else by the method's name, and by its formation.
    """
    labels = {record.path: record.trial.label for record in records if record.trial}
    uses = [(_path(s), s.manifest["method"]["name"], s.manifest["seed"], s.manifest["ipc"]) for s in sets]
    uses += [(record.path, record.method, record.seed, record.ipc) for record in records if not record.of_all_data]
    formations = {_path(one): one.formation for one in sets} | {one.path: one.formation for one in records}
    uses = [(path, _named(labels.get(path, method), formations[path]), seed, ipc) for path, method, seed, ipc in uses]
    names: dict[str, str] = {}
    for method in dict.fromkeys(name for _, name, _, _ in uses):
        own = dict.fromkeys((path, seed, ipc) for path, name, seed, ipc in uses if name == method)
        for more in ("", ", seed {seed}", " ({stem})", " ({path})"):
            called = {path: method + more.format(seed=seed, stem=_stem(Path(path)), path=path) for path, seed, _ in own}
            if len({(called[path], ipc) for path, _, ipc in own}) == len(own):
                break
        names |= called
    return names


def _named(method: str, formation: int) -> str:
    return f"{method}, {grid_words(formation)}" if formation > 1 else method


def _path(distilled: DistilledSet) -> str:
    return str(distilled.folder.resolve())


def _stem(folder: Path) -> str:
    return folder.parent.name if re.fullmatch(r"ipc-\d+", folder.name) else folder.name


def _seconds(record: Record) -> float:
    return record.seconds + (record.baseline.seconds if record.baseline else 0)


def _colour(style: int | None) -> str:
    return "var(--muted)" if style is None else f"var(--series-{style % COLOURS})"


def _overview(sets: Sequence[DistilledSet], names: Mapping[str, str]) -> list[tuple[str, str]]:
    data = dict.fromkeys(distilled.manifest["data"]["spec"] for distilled in sets)
    classes = sorted({len(distilled.classes) for distilled in sets})
    ipcs = sorted({distilled.manifest["ipc"] for distilled in sets})
    methods = dict.fromkeys(names[_path(distilled)] for distilled in sets)
    return [
        ("Data", ", ".join(data)),
        ("Classes", ", ".join(f"{count:,}" for count in classes)),
        ("Images per class", ", ".join(map(str, ipcs))),
        ("Methods", ", ".join(methods)),
    ]


def _walls(
    sets: Sequence[DistilledSet], records: Sequence[Record], names: Mapping[str, str], styles: Mapping[str, int]
) -> list[Wall]:
    common = set(sets[0].classes).intersection(*(distilled.classes for distilled in sets)) if sets else set()
    walls = []
    for number, distilled in enumerate(sets):
        name = names[_path(distilled)]
        evaluated = [record for record in records if record.path == _path(distilled)]
        picture = sprite(_shown(distilled, common))
        check = [f"attar verify {shlex.quote(str(distilled.folder))}", *evaluate_commands(evaluated)]
        walls.append(
            Wall(
                number=number,
                name=name,
                style=styles[name],
                ipc=distilled.manifest["ipc"],
                sprite=picture,
                prototypes=_prototypes(distilled),
                copies=tuple(_copies(distilled, f"copies-{number}")),
                classes=len(distilled.classes),
                facts=tuple(_facts(distilled, picture, evaluated)),
                settings=settings(distilled.manifest),
                commands="\n".join([distill_command(distilled), "", *check]),
                problems=tuple(verify(distilled.folder)),
            )
        )
    return walls


def _shown(distilled: DistilledSet, common: set[str]) -> list[tuple[str, list[Path], int]]:
    """The classes to show, evenly spaced among those that every set has, and the first images of each."""
    classes, files = distilled.classes, distilled.files()
    labels = [label for label, name in enumerate(classes) if name in common] or list(range(len(classes)))
    chosen = evenly(labels, CLASSES_SHOWN)
    return [(classes[label], files[label][:IMAGES_SHOWN], len(files[label])) for label in chosen]


def _prototypes(distilled: DistilledSet) -> Sprite | None:
    """The prototypes that are kept with a set, if there are any."""
    pairs = zip(distilled.classes, distilled.prototypes(), strict=True)
    rows = [(name, files, len(files)) for name, files in pairs if files]
    return sprite(rows) if rows else None


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
                chart=distances(nearest, f"{salt}-{nearest.kind}"),
                pairs=f"data:image/png;base64,{picture}",
            )
        )
    return copies


def _encoded(picture: Path) -> str:
    try:
        return base64.b64encode(picture.read_bytes()).decode()
    except OSError as error:
        raise AttarError(f"{picture} cannot be read ({reason(error)}); run `attar nearest` again") from error


def _fine_tunings(
    sets: Sequence[DistilledSet], names: Mapping[str, str], styles: Mapping[str, int]
) -> list[FineTuning]:
    """One for each method whose sets tell of a fine-tuning; sets of several IPCs tell of the same one."""
    tunings: dict[str, FineTuning] = {}
    for distilled in sets:
        groups = [group["looks"] for group in distilled.manifest.get("measures", [])]
        name = names[_path(distilled)]
        if groups and name not in tunings:
            moments = list(zip(*groups, strict=False))
            values = {
                measure: tuple(sum(_value(look, measure) for look in looks) / len(looks) for looks in moments)
                for measure in MEASURES
            }
            tunings[name] = FineTuning(name, styles[name], tuple(looks[0]["step"] for looks in moments), values)
    return list(tunings.values())


def _value(look: Mapping[str, float | None], measure: str) -> float:
    """A measure at one moment; not a number where it came out as none, or an older version did not take it."""
    value = look.get(measure)
    return math.nan if value is None else value


def _facts(distilled: DistilledSet, picture: Sprite, records: Sequence[Record]) -> list[tuple[str, str]]:
    manifest = distilled.manifest
    smallest, largest = (f"{width} x {height}" for width, height in (picture.sizes[0], picture.sizes[-1]))
    several = f"{len(picture.sizes)} sizes, {smallest} to {largest} pixels"
    size = f"{smallest} pixels" if smallest == largest else several
    held, count, grid = stored(distilled), len(manifest["images"]), distilled.formation
    parts = f", mosaics of {grid_words(grid)}: {count * grid**2:,} to learn from" if grid > 1 else ""
    facts = [
        ("Images", f"{count:,}, {size}{parts}"),
        ("Stored", f"{held.pixels:,} pixels, {held.bytes:,} bytes"),
        ("Data", f"{manifest['data']['spec']}, {counted(manifest['data']['images'], 'image')}"),
        ("Prior", manifest["prior"]["source"] if manifest["prior"] else "none: real images"),
        ("Seed", str(manifest["seed"])),
    ]
    if manifest["seconds"]:
        facts.append(("Made in", f"{duration(sum(manifest['seconds'].values()))} on {manifest['machine']['device']}"))
    results = [(f"{record.network}, {record.protocol}", f"{record.accuracy} %, n = {record.n}") for record in records]
    return facts + results


def _comparisons(walls: Sequence[Wall]) -> list[Comparison]:
    strips: dict[str, dict[int, list[tuple[Wall, Strip]]]] = {}
    for wall in walls:
        for strip in wall.sprite.strips:
            strips.setdefault(strip.name, {}).setdefault(wall.ipc, []).append((wall, strip))
    return [Comparison(name, tuple((ipc, tuple(row)) for ipc, row in rows.items())) for name, rows in strips.items()]
