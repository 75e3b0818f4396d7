"""The results tables of a report: for each recipe, network and test, methods by IPC."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attar.core.progress import duration
from attar.evaluation.records import ALL_DATA, Record, accuracy, difference, identity, judged_by, signed, terms
from attar.report.figures import MARKERS, Line, chart


@dataclass(frozen=True)
class Cell:
    """One result in words."""

    accuracy: str
    n: int
    seconds: str
    best: bool
    difference: str | None
    verdict: str
    """"above" or "below" random real images, or "even": a difference within the spread of the seeds."""


@dataclass(frozen=True)
class Row:
    """A method's results."""

    name: str
    style: int | None
    cells: tuple[Cell | None, ...]

    @property
    def marker(self) -> str:
        """The character that stands for its marker in the chart."""
        return "○" if self.style is None else list(MARKERS.values())[self.style % len(MARKERS)]


@dataclass(frozen=True)
class Table:
    """The results of one recipe and network, tested on the same images."""

    terms: str
    """The recipe with its changes, and the test images."""
    network: str
    ipcs: tuple[int, ...]
    rows: tuple[Row, ...]
    ceiling: Record | None
    """The result of training on all of the data."""
    chart: str | None
    """An SVG element, where there are two IPCs to join."""
    summary: str
    """What the chart shows, in words."""


def tables(records: Sequence[Record], names: Mapping[str, str], styles: Mapping[str, int]) -> list[Table]:
    """A table for each recipe with its changes, network and test images, in the order of the records.

    Args:
        names: the set's absolute path -> what its method is called in the tables.
        styles: that name -> the number of its colour and marker.
    """
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(judged_by(record), []).append(record)
    return [_table(of, names, styles, f"chart-{number}") for number, of in enumerate(groups.values())]


def _table(
    records: Sequence[Record],
    names: Mapping[str, str],
    styles: Mapping[str, int],
    salt: str,
) -> Table:
    ceiling = next((record for record in records if record["method"] == ALL_DATA), None)
    results: dict[str, dict[int, Record]] = {}
    for record in records:
        if record["method"] != ALL_DATA:
            results.setdefault(names[identity(record)[0]], {})[record["ipc"]] = record
    ipcs = tuple(sorted({ipc for of in results.values() for ipc in of}))
    baselines = {ipc: _pooled([of[ipc] for of in results.values() if ipc in of]) for ipc in ipcs}
    random = {ipc: result for ipc, result in baselines.items() if result is not None}
    contenders = [*results.values(), random]
    best = {ipc: max(of[ipc]["mean"] for of in contenders if ipc in of) for ipc in ipcs}
    rows = [Row(name, styles[name], _cells(of, ipcs, best)) for name, of in results.items()]
    lines = [Line(_points(of), styles[name]) for name, of in results.items()]
    if random and not any(_same(of, random) for of in results.values()):
        rows.append(Row("random real images", None, _cells(random, ipcs, best)))
        lines.append(Line(_points(random), None))
    drawn = chart(lines, ceiling["mean"] if ceiling else None, salt) if len(ipcs) > 1 else None
    return Table(terms(records[0]), records[0]["network"], ipcs, tuple(rows), ceiling, drawn, _summary(rows, ipcs))


def _same(results: Mapping[int, Record], random: Mapping[int, Record]) -> bool:
    """Whether these are the random images themselves, distilled as a method."""
    return all(ipc in results and results[ipc]["accuracies"] == of["accuracies"] for ipc, of in random.items())


def _pooled(records: Sequence[Record]) -> Record | None:
    """The baseline of records with the same IPC: where their random images differ, all draws together."""
    distinct = {tuple(r["baseline"]["accuracies"]): r["baseline"] for r in records if r.get("baseline") is not None}
    if len(distinct) < 2:
        return next(iter(distinct.values()), None)
    accuracies = [value for values in distinct for value in values]
    return {
        "accuracies": accuracies,
        "mean": statistics.fmean(accuracies),
        "std": statistics.stdev(accuracies),
        "seconds": sum(result["seconds"] for result in distinct.values()),
    }


def _cells(results: Mapping[int, Record], ipcs: Sequence[int], best: Mapping[int, float]) -> tuple[Cell | None, ...]:
    return tuple(_cell(results[ipc], best[ipc]) if ipc in results else None for ipc in ipcs)


def _cell(record: Record, best: float) -> Cell:
    gain = difference(record)
    return Cell(
        accuracy=accuracy(record),
        n=len(record["accuracies"]),
        seconds=duration(record["seconds"]),
        best=record["mean"] == best,
        difference=None if gain is None else signed(gain),
        verdict="even" if gain is None else _verdict(record, gain),
    )


def _verdict(record: Record, gain: float) -> str:
    both = (record, record["baseline"])
    known = all(len(result["accuracies"]) > 1 for result in both)
    if not known or abs(gain) <= math.hypot(*(result["std"] for result in both)):
        return "even"
    return "above" if gain > 0 else "below"


def _points(results: Mapping[int, Record]) -> dict[int, tuple[float, float]]:
    return {ipc: (r["mean"], r["std"] if len(r["accuracies"]) > 1 else 0.0) for ipc, r in results.items()}


def _summary(rows: Sequence[Row], ipcs: Sequence[int]) -> str:
    told = [
        f"{row.name}: "
        + ", ".join(f"{cell.accuracy} at IPC {ipc}" for ipc, cell in zip(ipcs, row.cells, strict=True) if cell)
        for row in rows
    ]
    return "Accuracy in per cent against images per class. " + "; ".join(told)
