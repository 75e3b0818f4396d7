"""The table of all results of a report: a row for each set, recipe, network and label scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from attar.core.portable_paths import portable, portable_all
from attar.core.progress import duration
from attar.evaluation.records import ALL_DATA, Record, in_words, signed
from attar.report.manifest_rows import evaluate_commands
from attar.sets.distilled import DistilledSet, stored
from attar.sets.mosaics import grid_words
from attar.sets.own_labels import LABELS


@dataclass(frozen=True)
class RecordCell:
    """A cell: what it says, and what it sorts by."""

    text: str
    key: float | str
    title: str = ""
    """More of it."""


COLUMNS = (
    "Method",
    "IPC",
    "Network",
    "Recipe",
    "Labels",
    "Accuracy, %",
    "n",
    "Against random",
    "Each seed",
    "Best epoch",
    "Test images",
    "Training images",
    "Stored",
    "Made in",
    "Judged in",
)
"""The headings; the first is the row's own."""


@dataclass(frozen=True)
class RecordRow:
    """A result: its cells, and the set on the page that it is of."""

    style: int | None
    values: tuple[RecordCell, ...]
    wall: int | None
    """The number of the set, under which its settings and commands stand; None: it is not on the page."""
    command: str
    """The shell command that judges it again; nothing where the command line cannot name its seeds or recipe."""
    manifest: str
    """Where the set's manifest lies, with its fingerprint; nothing of what is not on the page."""


def public(record: Record) -> Record:
    """A record as a page may tell it: no paths of this machine. It is still looked up by the one that it is made of."""
    return replace(
        record,
        set=portable(record.set),
        test=None if record.test is None else portable(record.test),
        teacher=portable_all(record.teacher),
        changes=None if record.changes is None else portable_all(record.changes),
    )


def all_rows(
    records: Sequence[Record], sets: Sequence[DistilledSet], names: Mapping[str, str], styles: Mapping[str, int]
) -> list[RecordRow]:
    """A row for each record, in their order."""
    walls = {str(distilled.folder.resolve()): number for number, distilled in enumerate(sets)}
    rows = []
    for record in records:
        name = ALL_DATA if record.of_all_data else names[record.path]
        wall = walls.get(record.path)
        own, told = None if wall is None else sets[wall], public(record)
        labelled = Path(record.path, LABELS).is_dir() if own is None else own.labels is not None
        command = "" if record.of_all_data else "".join(evaluate_commands([told], labelled))
        place = "" if own is None else f"{told.set}/manifest.json, fingerprint {own.manifest['run']}"
        rows.append(RecordRow(styles.get(name), tuple(_values(name, told, own)), wall, command, place))
    return rows


def _values(name: str, record: Record, own: DistilledSet | None) -> list[RecordCell]:
    gap, grid = record.difference, f" ({grid_words(record.formation)})" if record.formation > 1 else ""
    grid += f", {record.weighing}" if record.weighing else ""
    random = "" if record.baseline is None else f"random real images: {_each(record.baseline.accuracies)}"
    sampling = f"their choice alone makes the accuracy uncertain by {record.sampling:.1f} points (standard error)"
    return [
        RecordCell(name, name, record.set),
        RecordCell("" if record.of_all_data else f"{record.ipc:g}{grid}", record.ipc),
        RecordCell(record.network, record.network, f"on {record.device}"),
        _text(in_words(record.original, record.changes or {})),
        _text(_labels(record)),
        RecordCell(record.accuracy, record.mean, record.unlearnt),
        RecordCell(str(record.n), record.n),
        RecordCell("" if gap is None else signed(gap), -1e9 if gap is None else gap, random),
        RecordCell(_each(record.accuracies), record.mean),
        RecordCell(_each(record.best), max(record.best, default=0.0)),
        RecordCell(
            f"{record.n_test:,} (± {record.sampling:.1f})", record.n_test, f"{record.test or ''} {sampling}".strip()
        ),
        RecordCell(f"{record.n_train:,}", record.n_train),
        *(_cost(own) if own else [RecordCell("", -1.0)] * 2),
        RecordCell(duration(record.seconds), record.seconds),
    ]


def _cost(own: DistilledSet) -> list[RecordCell]:
    """What the set takes, and how long it took to make."""
    held, made = stored(own), sum(own.manifest["seconds"].values())
    return [RecordCell(f"{held.pixels:,} pixels, {held.bytes:,} bytes", held.bytes), RecordCell(duration(made), made)]


def _text(text: str) -> RecordCell:
    return RecordCell(text, text)


def _labels(record: Record) -> str:
    """How the images were labelled: "hard", or who gave soft labels and how they are kept."""
    if not (record.teacher and record.labels):
        return "hard"
    return f"{record.labels['scheme']}{' in the set' if record.own_labels else ''}, by {record.taught_by}"


def _each(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)
