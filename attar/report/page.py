"""The page of a report, put together and written."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from attar import __version__
from attar.core.arguments import checked
from attar.core.errors import AttarError
from attar.core.files import replacing, writing
from attar.core.portable_paths import portable
from attar.core.progress import Say, duration, quiet
from attar.core.wording import counted
from attar.data.output_places import check_file, check_place
from attar.evaluation.records import Record
from attar.report.charts import COLOURS, distances_by_time, measures_by_step, symbol
from attar.report.curves import courses_of
from attar.report.fine_tunings import MEASURES, fine_tunings
from attar.report.maps import DEVIATIONS
from attar.report.names import class_title
from attar.report.results import results_tables
from attar.report.rows import COLUMNS, all_rows
from attar.report.set_names import method_names, path_of
from attar.report.walls import Wall, comparisons_of, walls_of
from attar.report.ways import ways_of
from attar.sets.distilled import DistilledSet, find_distilled
from attar.sets.near_copies import NEAR
from attar.sets.neighbours import NEIGHBOURS

GENERATOR = '<meta name="generator" content="attar '
"""What a page of ours begins with; then comes the version."""


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
    by_path = {path_of(distilled): distilled for folder in folders for distilled in find_distilled(folder)}
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
    walls, look = walls_of(sets, latest, names, styles)
    tunings = fine_tunings(sets, names, styles)
    ways = ways_of(sets, names, styles)
    comparisons = comparisons_of(walls)
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
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
        courses=courses_of(latest, names, styles),
        ways=ways,
        drawn=distances_by_time(ways) if ways else "",
        measures=MEASURES,
        near=NEAR,
        deviations=DEVIATIONS,
        neighbours=NEIGHBOURS,
        walls=walls,
        comparisons=comparisons,
        formed=any(distilled.formation > 1 for distilled in sets) or any(record.formation > 1 for record in latest),
        time=duration(sum(map(_seconds, latest))),
        failures=any(record.failures for record in latest),
        ceiling=any(record.of_all_data for record in latest),
        devices=sorted({record.device for record in latest}),
    )
    return html, walls


@functools.cache
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


def _seconds(record: Record) -> float:
    return record.seconds + (record.baseline.seconds if record.baseline else 0)


def _colour(style: int | None) -> str:
    return "var(--muted)" if style is None else f"var(--series-{style % COLOURS})"


def _overview(sets: Sequence[DistilledSet], names: Mapping[str, str]) -> list[tuple[str, str]]:
    data = dict.fromkeys(portable(distilled.manifest["data"]["spec"]) for distilled in sets)
    classes = sorted({len(distilled.classes) for distilled in sets})
    ipcs = sorted({distilled.manifest["ipc"] for distilled in sets})
    methods = dict.fromkeys(names[path_of(distilled)] for distilled in sets)
    return [
        ("Data", ", ".join(data)),
        ("Classes", ", ".join(f"{count:,}" for count in classes)),
        ("Images per class", ", ".join(map(str, ipcs))),
        ("Methods", ", ".join(methods)),
    ]
