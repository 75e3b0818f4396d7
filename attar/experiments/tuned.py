"""What a tuning came to: the scores of its candidates in each rung, the winner of each IPC, and how sure it is."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from attar.evaluation import changes
from attar.evaluation.records import signed
from attar.experiments.settings import FieldValues, Tuning
from attar.experiments.spec import Evaluation
from attar.experiments.summary import Cell, PairedDifference, paired
from attar.job import Spec


@dataclass(frozen=True)
class CandidateScore:
    """A candidate in one rung."""

    networks: Mapping[str, Cell]
    """Network -> its accuracies."""

    @property
    def whole(self) -> Cell:
        """Each training seed's mean over the networks."""
        cells = list(self.networks.values())
        means = {run: statistics.fmean(cell.accuracies[run] for cell in cells) for run in cells[0].accuracies}
        return replace(cells[0], accuracies=means)


@dataclass(frozen=True)
class Round:
    """One rung: how the candidates that reached it were judged, and what they came to."""

    evaluation: Evaluation
    """The recipe, networks and seeds of the rung."""
    scores: Mapping[str, CandidateScore]
    """The scores by the candidates' labels, in the grid's order."""
    tested: int
    """Held-out images that they were tested on."""

    @property
    def means(self) -> dict[str, float]:
        """What the candidates are ranked by."""
        return {label: score.whole.mean for label, score in self.scores.items()}


@dataclass(frozen=True)
class Race:
    """The candidates of one IPC."""

    ipc: int
    """Images per class."""
    rounds: tuple[Round, ...]
    """The rungs that are done; the first has all candidates."""
    over: bool
    """Whether the last rung is done."""

    @property
    def winner(self) -> str | None:
        """The best of the last rung, the first in the grid of equals; None as long as the race is not over."""
        means = self.rounds[-1].means
        return max(means, key=lambda label: means[label]) if self.over else None

    @property
    def behind(self) -> dict[str, PairedDifference]:
        """How far the others of the last rung lie behind the winner, paired by training seed; the nearest first."""
        scores = self.rounds[-1].scores
        differences = {
            label: difference
            for label, score in scores.items()
            if self.winner is not None and label != self.winner
            if (difference := paired(scores[self.winner].whole, score.whole)) is not None
        }
        return dict(sorted(differences.items(), key=lambda entry: entry[1].mean))

    @property
    def verdict(self) -> str:
        """How sure the winner is, in words: over the training seeds, and for this many held-out images."""
        assert self.winner is not None, "a race that is not over has no winner"
        last, behind = self.rounds[-1], self.behind
        share = last.means[self.winner] / 100
        error = 100 * math.sqrt(share * (1 - share) / last.tested)
        near = {label: gap for label, gap in behind.items() if gap.low is None or gap.low <= 0 or gap.mean <= error}
        shown = near or dict(list(behind.items())[:1])
        text = "; ".join(f"{label} is {_points(gap)} behind" for label, gap in shown.items())
        pairs = next(iter(shown.values())).pairs
        if pairs == 1:
            return f"{text}. One training seed tells nothing of the noise: take `seeds` 3 or more to know."
        over = (
            f"95 % t interval over {pairs} paired training seeds, one distillation seed; an accuracy on "
            f"{last.tested:,} images has a standard error of {error:.1f}"
        )
        if near:
            return f"Within the noise, the winner being perhaps no better: {text} ({over})."
        return f"Beyond the noise: {text} ({over})."


def _points(gap: PairedDifference) -> str:
    if gap.low is None or gap.high is None:
        return f"{gap.mean:.1f} points"
    return f"{gap.mean:.1f} points [{signed(gap.low)}, {signed(gap.high)}]"


@dataclass(frozen=True)
class Tuned:
    """What a tuning came to, as far as it has run."""

    tuning: Tuning
    """What was asked for."""
    choices: Mapping[str, FieldValues]
    """Label -> the fields of each candidate, in the grid's order."""
    races: tuple[Race, ...] = ()
    """One for each IPC that is done or at work."""

    @property
    def chosen(self) -> dict[int, dict[str, Any]]:
        """IPC -> the fields of the method that did best, for each race that is over."""
        winners = {race.ipc: race.winner for race in self.races if race.winner is not None}
        return {ipc: {**self.tuning.fixed, **self.choices[winner]} for ipc, winner in winners.items()}

    def command(self, ipc: int) -> str:
        """The shell command that distills all of the data, the held-out tenth with it, by the best fields of an IPC."""
        spec, out = self.tuning.spec, self.tuning.out / "best" / f"ipc-{ipc:03d}"
        own = [field.name for field in fields(spec) if field.name not in ("data", "prior", "hold_out")]
        given = {name: getattr(spec, name) for name in own if getattr(spec, name) != getattr(Spec, name)}
        parts = [
            f"attar distill --data {shlex.quote(spec.data)}"
            + (f" --prior {shlex.quote(spec.prior)}" if spec.prior else ""),
            *(_flag(name, value) for name, value in given.items()),
            f"--method {self.tuning.name} --ipc {ipc}",
            *(f"--set {shlex.quote(f'{name}={value}')}" for name, value in self.chosen[ipc].items()),
            f"--out {shlex.quote(str(out))}",
        ]
        return f"# all of the data again: no --hold-out\n{' '.join(parts)}"

    def as_json(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        tuning = self.tuning
        return {
            "method": tuning.name,
            "data": tuning.spec.data,
            "prior": tuning.spec.prior,
            "fixed": dict(tuning.fixed),
            "grid": {name: list(values) for name, values in tuning.grid.items()},
            "recipe": tuning.recipe.name,
            "changes": changes(tuning.recipe),
            "networks": list(tuning.conditions.networks),
            "eta": tuning.eta,
            "test": "held-out",
            "ipcs": [self._race_json(race) for race in self.races],
        }

    def _race_json(self, race: Race) -> dict[str, Any]:
        entry: dict[str, Any] = {"ipc": race.ipc, "rungs": [self._round_json(done) for done in race.rounds]}
        if race.winner is not None:
            best_fields = dict(self.choices[race.winner])
            entry |= {"best": best_fields, "verdict": race.verdict, "command": self.command(race.ipc)}
        return entry

    def _round_json(self, done: Round) -> dict[str, Any]:
        return {
            "rung": done.evaluation.label,
            "changes": changes(done.evaluation.recipe),
            "seeds": list(done.evaluation.seeds),
            "candidates": [
                {
                    "fields": dict(self.choices[label]),
                    "mean": score.whole.mean,
                    "std": score.whole.std,
                    "networks": {name: list(cell.accuracies.values()) for name, cell in score.networks.items()},
                }
                for label, score in done.scores.items()
            ],
        }


def _flag(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return flag
    return f"{flag} {shlex.quote(','.join(value) if isinstance(value, tuple) else str(value))}"
