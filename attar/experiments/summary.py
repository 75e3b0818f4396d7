"""Records of an experiment, gathered by recipe and network: means, deviations and paired differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from attar.core.store import fingerprint
from attar.evaluation.records import Record
from attar.experiments.spec import Evaluation, Experiment, Published

Run = tuple[int, int]
"""(distillation seed, training seed)."""


@dataclass(frozen=True)
class Cell:
    """One method at one IPC: every run's accuracy, and what the sets cost."""

    accuracies: Mapping[Run, float]
    """In per cent, after the last epoch."""
    seconds: float
    """To distill one set, mean over the distillation seeds."""
    bytes: float
    """Of one set's images, mean over the distillation seeds."""

    @property
    def n(self) -> int:
        """How many runs there are."""
        return len(self.accuracies)

    @property
    def mean(self) -> float:
        """Over all runs."""
        return statistics.fmean(self.accuracies.values())

    @property
    def std(self) -> float | None:
        """Sample deviation over all runs (n - 1); None of a single one."""
        return statistics.stdev(self.accuracies.values()) if self.n > 1 else None


@dataclass(frozen=True)
class Difference:
    """A paired difference of accuracies, in points."""

    mean: float
    low: float | None
    """Lower end of the 95 % t interval; None of a single pair."""
    high: float | None
    pairs: int


@dataclass(frozen=True)
class Panel:
    """All that is known of one recipe and network."""

    evaluation: Evaluation
    network: str
    cells: Mapping[tuple[str, int], Cell]
    """(method's label, IPC) -> what was measured; nothing where nothing was."""
    published: tuple[Published, ...]
    """What papers report for this network."""


def panels(experiment: Experiment, records: Iterable[Record]) -> list[Panel]:
    """The experiment's records by evaluation and network, in the order of its file; others are left out."""
    of_cell: dict[tuple[str, str, str, int], list[Record]] = {}
    for record in records:
        if record["seed"] in experiment.distillation_seeds and "judged" in record:
            key = (record["judged"], record["network"], record["label"], record["ipc"])
            of_cell.setdefault(key, []).append(record)
    found = []
    for evaluation in experiment.evaluations:
        for network in evaluation.networks:
            cells = {
                (contender.label, ipc): _cell(of_cell[key])
                for contender in experiment.contenders
                for ipc in evaluation.ipcs
                if (key := (judged(experiment, evaluation), network, contender.label, ipc)) in of_cell
            }
            beside = tuple(
                one
                for one in experiment.published
                if one.network == network and one.evaluation in (None, evaluation.label)
            )
            found.append(Panel(evaluation, network, cells, beside))
    return found


def judged(experiment: Experiment, evaluation: Evaluation) -> str:
    """The fingerprint of what sets are judged by but the network: results of other terms are never mixed."""
    return fingerprint(evaluation.recipe, evaluation.teacher, evaluation.seeds, experiment.test)


def paired(of: Cell, to: Cell) -> Difference | None:
    """How many points `of` lies above `to`, over the runs with equal distillation and training seeds; None: no such."""
    from scipy import stats

    common = [run for run in of.accuracies if run in to.accuracies]
    if not common:
        return None
    gaps = [of.accuracies[run] - to.accuracies[run] for run in common]
    mean = statistics.fmean(gaps)
    if len(gaps) == 1:
        return Difference(mean, None, None, 1)
    half = float(stats.t.ppf(0.975, len(gaps) - 1)) * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return Difference(mean, mean - half, mean + half, len(gaps))


def _cell(records: list[Record]) -> Cell:
    accuracies = {
        (record["seed"], seed): accuracy
        for record in records
        for seed, accuracy in zip(record["seeds"], record["accuracies"], strict=True)
    }
    return Cell(
        accuracies,
        statistics.fmean(record["distilling"] for record in records),
        statistics.fmean(record["bytes"] for record in records),
    )
