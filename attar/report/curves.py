"""How accuracy rose while networks were trained, as a page shows it: of records that were tested on the way."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from attar.evaluation.records import Record, Result
from attar.report.charts import Curve, accuracy_by_epoch
from attar.report.rows import public


@dataclass(frozen=True)
class Course:
    """The curves of one recipe, network and IPC."""

    title: str
    """The network and the set's images of a class."""
    terms: str
    """The recipe with its changes, how many seeds and test images."""
    counted_in: str
    """What its trainings are counted in: "steps" or "epochs"."""
    curves: tuple[Curve, ...]
    """One for each set, then the random images beside them."""
    chart: str
    """An SVG element."""


def courses_of(records: Sequence[Record], names: Mapping[str, str], styles: Mapping[str, int]) -> list[Course]:
    """One for each recipe with its changes, network, IPC and formation that has any curve."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        if record.curves and record.path in names:
            groups.setdefault((*record.judged_by, record.stored), []).append(record)
    return [_course(group, names, styles, f"curves-{number}") for number, group in enumerate(groups.values())]


def _course(records: Sequence[Record], names: Mapping[str, str], styles: Mapping[str, int], salt: str) -> Course:
    first, curves = records[0], tuple(_curves(records, names, styles))
    terms = f"{public(first).protocol}; n = {first.n}, {first.n_test:,} test images"
    chart = accuracy_by_epoch(curves, first.counted_in, salt)
    return Course(f"{first.network}, {first.stored}", terms, first.counted_in, curves, chart)


def _curves(records: Sequence[Record], names: Mapping[str, str], styles: Mapping[str, int]) -> Iterator[Curve]:
    for record in records:
        yield _curve(names[record.path], styles[names[record.path]], record)
    judged = [record.accuracies for record in records]
    baselines = [record.baseline for record in records if record.baseline is not None and record.baseline.curves]
    drawn = {baseline.accuracies: baseline for baseline in baselines}
    for baseline in drawn.values():
        if baseline.accuracies not in judged:
            yield _curve("random real images", None, baseline)


def _curve(name: str, style: int | None, result: Result) -> Curve:
    """The mean over the seeds."""
    epochs = tuple(epoch for epoch, _ in result.curves[0])
    seeds = [[accuracy for _, accuracy in curve] for curve in result.curves]
    means = tuple(map(statistics.fmean, zip(*seeds, strict=True)))
    return Curve(name, style, epochs, means, statistics.fmean(map(max, seeds)))
