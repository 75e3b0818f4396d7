"""The page of a report: what is on it, and its writing."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from attar import __version__
from attar.core.arguments import checked
from attar.core.errors import AttarError, reason
from attar.core.files import replacing, writing
from attar.core.portable_paths import portable, portable_all
from attar.core.progress import Say, duration, quiet
from attar.core.wording import counted
from attar.data.output_places import check_file, check_place
from attar.evaluation.records import Record
from attar.report.charts import COLOURS, FineTuning, distances, measures_by_step, symbol
from attar.report.manifest_rows import distill_command, evaluate_commands, settings
from attar.report.names import class_title
from attar.report.results import results_tables
from attar.report.rows import COLUMNS, all_rows, public
from attar.report.sprites import Look, Sheet, fitting, opened, sheet
from attar.sets.distilled import CLASSES_SHOWN, DistilledSet, Stored, evenly, find_distilled, stored, verify
from attar.sets.mosaics import grid_words
from attar.sets.near_copies import NEAR, folder_of, nearest_pixels, read_nearest

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


GENERATOR = '<meta name="generator" content="attar '
"""What a page of ours begins with; then comes the version."""


@dataclass(frozen=True)
class Strip:
    """The images of one class of a set on the page."""

    id: str
    sheet: Sheet
    uri: str
    real: Strip | None = None
    """The real images nearest to them."""


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
    problems: tuple[str, ...]
    """What is not as it was written, a line each."""


@dataclass(frozen=True)
class Comparison:
    """One class, as every set shows it: a row of strips for each IPC."""

    number: int
    name: str
    rows: tuple[tuple[int, tuple[tuple[Wall, Strip], ...]], ...]


def check_page(out: Path) -> None:
    """Raises AttarError where something else than a report stands."""
    if out.is_dir():
        raise AttarError(f"`out` {out}: is a folder; name the HTML file to write")
    check_file(out, "`out`", GENERATOR, "a report of Attar's")


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
    check_page(out)
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
    walls, look = _walls(sets, latest, names, styles)
    tunings = _fine_tunings(sets, names, styles)
    comparisons = _comparisons(walls)
    script = _file("page.js")
    html = _template().render(
        title=title,
        version=__version__,
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        overview=_overview(sets, names),
        tables=results_tables(latest, names, styles),
        rows=all_rows(latest, sets, names, styles),
        columns=COLUMNS,
        priors=any(distilled.manifest["prior"] for distilled in sets),
        look=look,
        numbers={comparison.name: comparison.number for comparison in comparisons},
        tunings=tunings,
        panels=measures_by_step(tunings) if tunings else "",
        measures=MEASURES,
        near=NEAR,
        walls=walls,
        comparisons=comparisons,
        formed=any(distilled.formation > 1 for distilled in sets) or any(record.formation > 1 for record in latest),
        time=duration(sum(map(_seconds, latest))),
        failures=any(record.failures for record in latest),
        ceiling=any(record.of_all_data for record in latest),
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
    environment.globals.update(duration=duration, colour=_colour, symbol=symbol, class_title=class_title)
    return environment.get_template("template.html.jinja")


def _file(name: str) -> str:
    """A file of this folder, as it is."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


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
        for more in ("", ", seed {seed}", " ({stem})", " ({place})", " ({place}, {number})"):
            called = {
                path: method + more.format(seed=seed, stem=_stem(Path(path)), place=portable(path), number=number)
                for number, (path, seed, _) in enumerate(own, 1)
            }
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
    data = dict.fromkeys(portable(distilled.manifest["data"]["spec"]) for distilled in sets)
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
) -> tuple[list[Wall], Look]:
    """What is shown of each set, and how its images stand on the page."""
    common = set(sets[0].classes).intersection(*(distilled.classes for distilled in sets)) if sets else set()
    drawn: list[_Drawn] = []

    def draw(images: int) -> list[Sheet]:
        drawn[:] = [_drawn(distilled, _shown(distilled, common), images) for distilled in sets]
        return [one for each in drawn for one in each.sheets]

    look, uris = fitting(draw)
    left = iter(uris)
    walls = [
        _wall(number, distilled, each, left, [record for record in records if record.path == _path(distilled)], name)
        for number, (distilled, each) in enumerate(zip(sets, drawn, strict=True))
        for name in [names[_path(distilled)]]
    ]
    return [replace(wall, style=styles[wall.name]) for wall in walls], look


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
    images = [sheet(names[k], [opened(file) for file in files[k][:count]], len(files[k])) for k in labels]
    real, missing = _nearest(distilled, labels, count)
    pairs = zip(names, distilled.prototypes(), strict=True)
    prototypes = [sheet(name, [opened(file) for file in own[:count]], len(own)) for name, own in pairs if own]
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
    check = [f"attar verify {shlex.quote(str(told.folder))}", *evaluate_commands(shown)]
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
        problems=tuple(verify(distilled.folder)),
    )


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
        for strip in wall.strips:
            strips.setdefault(strip.sheet.name, {}).setdefault(wall.ipc, []).append((wall, strip))
    return [
        Comparison(number, name, tuple((ipc, tuple(row)) for ipc, row in rows.items()))
        for number, (name, rows) in enumerate(strips.items())
    ]
