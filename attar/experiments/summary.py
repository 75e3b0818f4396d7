"""What an experiment came to: its records by recipe and network, with means, deviations and paired differences."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from attar.core.store import fingerprint
from attar.evaluation.records import Record, Trial
from attar.experiments.spec import Contender, Evaluation, Experiment, Published

Run = tuple[int, int]
"""(distillation seed, training seed)."""


@dataclass(frozen=True)
class Cell:
    """One method at one IPC: every run's accuracy, and what the sets cost."""

    accuracies: Mapping[Run, float]
    """Accuracies in per cent, after the last epoch."""
    seconds: float
    """To distill one set, mean over the distillation seeds."""
    bytes: float
    """Size of one set's images and own labels, mean over the distillation seeds."""
    pixels: float | None = None
    """Number of pixels of one set's images, mean over the distillation seeds; None where old records do not say it."""

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
class PairedDifference:
    """A paired difference of accuracies, in points."""

    mean: float
    """Mean of the differences."""
    low: float | None
    """Lower end of the 95 % t interval; None of a single pair."""
    high: float | None
    """Upper end of the interval."""
    pairs: int
    """Number of pairs."""


@dataclass(frozen=True)
class Panel:
    """All that is known of one recipe and network."""

    evaluation: Evaluation
    """The recipe, with the methods and seeds."""
    network: str
    """The network's name."""
    cells: Mapping[tuple[str, int], Cell]
    """(method's label, IPC) -> what was measured; nothing where nothing was."""
    published: tuple[Published, ...]
    """What papers report for this network."""

    def difference(self, label: str, reference: str, ipc: int) -> PairedDifference | None:
        """How far a method lies above another at an IPC; None where either was not measured, or they are the same."""
        cell, other = self.cells.get((label, ipc)), self.cells.get((reference, ipc))
        return None if cell is None or other is None or label == reference else paired(cell, other)


@dataclass(frozen=True)
class Summary:
    """An experiment's results, as far as there are any."""

    experiment: Experiment
    """What was asked for."""
    panels: tuple[Panel, ...]
    """The panels by evaluation and network, in the order of the experiment's file."""
    failures: tuple[str, ...] = ()
    """What failed, a line each."""


def summarise(experiment: Experiment, records: Iterable[Record]) -> Summary:
    """The experiment's own records, summarised; others are left out."""
    by_cell: dict[tuple[str, str, str, int], list[tuple[Record, Trial]]] = {}
    for record in records:
        if record.trial is not None and record.seed in experiment.distillation_seeds:
            key = (record.trial.judged, record.network, record.trial.label, int(record.ipc))
            by_cell.setdefault(key, []).append((record, record.trial))
    panels = []
    for evaluation in experiment.evaluations:
        for network in evaluation.networks:
            cells = {
                (contender.label, ipc): _cell(by_cell[key])
                for contender in experiment.contenders
                for ipc in evaluation.ipcs
                if (key := (judging_fingerprint(experiment, evaluation, contender), network, contender.label, ipc))
                in by_cell
            }
            published = tuple(
                number
                for number in experiment.published
                if number.network == network and number.evaluation in (None, evaluation.label)
            )
            panels.append(Panel(evaluation, network, cells, published))
    return Summary(experiment, tuple(panels))


def judging_fingerprint(experiment: Experiment, evaluation: Evaluation, contender: Contender) -> str:
    """The fingerprint of what a method's sets are judged by but the network: results of other terms are never mixed."""
    by = contender.labelled_by if evaluation.own_labels else None
    labels = () if by is None else (contender.spec.labels, [os.path.normpath(source) for source in by.sources])
    return fingerprint(evaluation.recipe, evaluation.teacher, evaluation.seeds, experiment.test, *labels)


def paired(cell: Cell, other: Cell) -> PairedDifference | None:
    """How many points `cell` lies above `other`, over the runs with equal seeds of both kinds; None: no such runs."""
    common = [run for run in cell.accuracies if run in other.accuracies]
    if not common:
        return None
    differences = [cell.accuracies[run] - other.accuracies[run] for run in common]
    mean = statistics.fmean(differences)
    if len(common) == 1:
        return PairedDifference(mean, None, None, 1)
    half = float(stats.t.ppf(0.975, len(common) - 1)) * statistics.stdev(differences) / math.sqrt(len(common))
    return PairedDifference(mean, mean - half, mean + half, len(common))


def _cell(trials: Sequence[tuple[Record, Trial]]) -> Cell:
    accuracies = {
        (record.seed or 0, seed): accuracy
        for record, trial in trials
        for seed, accuracy in zip(trial.seeds, record.accuracies, strict=True)
    }
    pixels = [trial.pixels for _, trial in trials if trial.pixels is not None]
    return Cell(
        accuracies,
        statistics.fmean(trial.distilling for _, trial in trials),
        statistics.fmean(trial.bytes for _, trial in trials),
        statistics.fmean(pixels) if len(pixels) == len(trials) else None,
    )
