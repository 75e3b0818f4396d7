"""How accuracy rose while networks were trained, as a page shows it: of records that were tested on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attar.evaluation.records import Record
from attar.report.charts import Curve


def curves_of(records: Sequence[Record], names: Mapping[str, str], styles: Mapping[str, int]) -> list[Curve]:
    """One for each record that has any: the mean over the seeds."""
    curves = []
    for record in records:
        if record.curves and record.path in names:
            epochs, first = zip(*record.curves[0], strict=True)
            values = [first, *([accuracy for _, accuracy in curve] for curve in record.curves[1:])]
            means = tuple(sum(at_once) / len(values) for at_once in zip(*values, strict=True))
            name = names[record.path]
            curves.append(Curve(f"{name}, {record.stored}, {record.network}", styles[name], epochs, means))
    return curves
