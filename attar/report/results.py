"""The results tables of a report: for each recipe, network and test, methods by IPC."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from attar.core.progress import duration
from attar.evaluation.records import Record, Result, signed
from attar.report.charts import Line, accuracy_by_ipc
from attar.report.rows import public
from attar.sets.mosaics import grid_words


@dataclass(frozen=True)
class ResultCell:
    """One result in words."""

    accuracy: str
    n: int
    seconds: str
    best: bool
    difference: str | None
    verdict: str
    """"above" or "below" random real images, or "even": a difference within the spread of the seeds."""
    unlearnt: str
    """Which networks did not learn what they were trained on; nothing where all did."""


@dataclass(frozen=True)
class MethodResults:
    """A method's results."""

    name: str
    style: int | None
    """Colour and marker of its line in the chart; None is the baseline's."""
    cells: tuple[ResultCell | None, ...]


@dataclass(frozen=True)
class ResultsTable:
    """The results of one recipe and network, tested on the same images."""

    terms: str
    """The recipe with its changes, and the test images."""
    network: str
    ipcs: tuple[int, ...]
    rows: tuple[MethodResults, ...]
    ceiling: Record | None
    """The result of training on all of the data."""
    chart: str | None
    """An SVG element; none where nothing but all of the data was judged."""
    summary: str
    """What the chart shows, in words."""
    headlines: tuple[str, ...]
    """For each IPC what is best, by how much, and how sure that is."""


def results_tables(
    records: Sequence[Record], names: Mapping[str, str], styles: Mapping[str, int]
) -> list[ResultsTable]:
    """A table for each recipe with its changes, network and test images, in the order of the records.

    Args:
        names: the set's absolute path -> what its method is called in the tables.
        styles: that name -> the number of its colour and marker.
    """
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(record.judged_by, []).append(record)
    return [_table(group, names, styles, f"chart-{number}") for number, group in enumerate(groups.values())]


def _table(records: Sequence[Record], names: Mapping[str, str], styles: Mapping[str, int], salt: str) -> ResultsTable:
    ceiling = next((record for record in records if record.of_all_data), None)
    results: dict[str, dict[int, Record]] = {}
    for record in records:
        if not record.of_all_data:
            results.setdefault(names[record.path], {})[int(record.ipc)] = record
    ipcs = tuple(sorted({ipc for by_ipc in results.values() for ipc in by_ipc}))
    baselines = _baselines(results, ipcs)
    contenders: list[Mapping[int, Result]] = [*results.values(), *baselines.values()]
    best = {ipc: max(by_ipc[ipc].mean for by_ipc in contenders if ipc in by_ipc) for ipc in ipcs}
    rows = [MethodResults(name, styles[name], _cells(by_ipc, ipcs, best)) for name, by_ipc in results.items()]
    lines = [Line(_points(by_ipc), styles[name]) for name, by_ipc in results.items()]
    for name, random in baselines.items():
        if random and not any(_same(by_ipc, random) for by_ipc in results.values()):
            rows.append(MethodResults(name, None, _cells(random, ipcs, best)))
            lines.append(Line(_points(random), None))
    chart = accuracy_by_ipc(lines, ceiling.mean if ceiling else None, salt) if ipcs else None
    terms, summary = _terms(records), _summary(rows, ipcs)
    headlines = tuple(_headline(ipc, results, baselines) for ipc in ipcs)
    return ResultsTable(terms, records[0].network, ipcs, tuple(rows), ceiling, chart, summary, headlines)


def _terms(records: Sequence[Record]) -> str:
    """What records were judged by, in words; the bytes of their labels where all have as many."""
    first = public(records[0])
    if first.labels and len({(record.labels or {}).get("bytes") for record in records}) > 1:
        first = replace(first, labels={**first.labels, "bytes": 0})
    return first.protocol


def _headline(
    ipc: int, results: Mapping[str, Mapping[int, Record]], baselines: Mapping[str, Mapping[int, Result]]
) -> str:
    """The best method of an IPC, which random images are not where there is another one, beside these."""
    judged = [(name, own[ipc]) for name, own in results.items() if ipc in own]
    drawn = [by_ipc[ipc].accuracies for by_ipc in baselines.values() if ipc in by_ipc]
    methods = [(name, record) for name, record in judged if record.accuracies not in drawn]
    name, best = max(methods or judged, key=lambda pair: pair[1].mean)
    random = baselines[_baseline_name(best)].get(ipc)
    unsure = f"n = {best.n}; {best.n_test:,} test images, ± {best.sampling:.1f} by their choice alone"
    if random is None or random.accuracies == best.accuracies:
        return f"IPC {ipc}: {name} {best.accuracy} % ({unsure})."
    verdict, points = _verdict(best, random), abs(best.mean - random.mean)
    where = f"within the spread of random real images ({random.accuracy})"
    if verdict != "even":
        where = f"{points:.1f} points {verdict} random real images ({random.accuracy})"
    return f"IPC {ipc}: {name} {best.accuracy} %, {where} ({unsure})."


def _baselines(results: Mapping[str, Mapping[int, Record]], ipcs: Sequence[int]) -> dict[str, dict[int, Result]]:
    """The random images beside the sets, by name and IPC: those that were reduced alike belong together."""
    records = [record for by_ipc in results.values() for record in by_ipc.values()]
    baselines: dict[str, dict[int, Result]] = {}
    for name in sorted({_baseline_name(record) for record in records}):
        own = [record for record in records if _baseline_name(record) == name]
        pooled = {ipc: result for ipc in ipcs if (result := _pooled([r for r in own if r.ipc == ipc]))}
        baselines[name] = pooled
    return baselines


def _baseline_name(record: Record) -> str:
    if record.formation > 1:
        return f"random real images ({grid_words(record.formation)})"
    return "random real images" + (f", reduced by {record.reduced_by}" if record.reduced_by > 1 else "")


def _same(results: Mapping[int, Result], random: Mapping[int, Result]) -> bool:
    """Whether these are the random images themselves, distilled as a method."""
    return all(ipc in results and results[ipc].accuracies == result.accuracies for ipc, result in random.items())


def _pooled(records: Sequence[Record]) -> Result | None:
    """The baseline of records with the same IPC: where their random images differ, all draws together."""
    distinct = {record.baseline.accuracies: record.baseline for record in records if record.baseline is not None}
    if len(distinct) < 2:
        return next(iter(distinct.values()), None)
    accuracies = tuple(value for values in distinct for value in values)
    return replace(
        next(iter(distinct.values())),
        accuracies=accuracies,
        mean=statistics.fmean(accuracies),
        std=statistics.stdev(accuracies),
        learnt=tuple(value for result in distinct.values() for value in result.learnt),
        seconds=sum(result.seconds for result in distinct.values()),
    )


def _cells(
    results: Mapping[int, Result], ipcs: Sequence[int], best: Mapping[int, float]
) -> tuple[ResultCell | None, ...]:
    return tuple(_cell(results[ipc], best[ipc]) if ipc in results else None for ipc in ipcs)


def _cell(result: Result, best: float) -> ResultCell:
    baseline = result.baseline if isinstance(result, Record) else None
    return ResultCell(
        accuracy=result.accuracy,
        n=result.n,
        seconds=duration(result.seconds),
        best=result.mean == best,
        difference=None if baseline is None else signed(result.mean - baseline.mean),
        verdict="even" if baseline is None else _verdict(result, baseline),
        unlearnt=result.unlearnt,
    )


def _verdict(result: Result, baseline: Result) -> str:
    if result.spread is None or baseline.spread is None:
        return "even"
    if abs(result.mean - baseline.mean) <= math.hypot(result.spread, baseline.spread):
        return "even"
    return "above" if result.mean > baseline.mean else "below"


def _points(results: Mapping[int, Result]) -> dict[int, tuple[float, float]]:
    return {ipc: (result.mean, result.spread or 0.0) for ipc, result in results.items()}


def _summary(rows: Sequence[MethodResults], ipcs: Sequence[int]) -> str:
    lines = [
        f"{row.name}: "
        + ", ".join(f"{cell.accuracy} at IPC {ipc}" for ipc, cell in zip(ipcs, row.cells, strict=True) if cell)
        for row in rows
    ]
    return "Accuracy in per cent against images per class. " + "; ".join(lines)
