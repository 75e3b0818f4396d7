"""Settings chosen on the held-out tenth of the data: a grid of candidates, halved until one is left; resumable.

Successive halving (Jamieson and Talwalkar, AISTATS 2016): many candidates are tried cheaply, the best few in full.
"""

from __future__ import annotations

import itertools
import math
import re
import shlex
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from attar.core.config import by_ipc
from attar.core.engine import LOCAL, Engine
from attar.core.errors import AttarError
from attar.core.progress import Progress, Say, quiet, silent
from attar.core.store import Store, fingerprint, write_json
from attar.core.wording import counted
from attar.data.output_places import check_place
from attar.evaluation import Recipe, changes, modified
from attar.evaluation.records import signed
from attar.experiments.compare import Grid
from attar.experiments.forecast import forecast
from attar.experiments.settings import Fields, Tuning
from attar.experiments.spec import Contender, Evaluation, Experiment
from attar.experiments.summary import Cell, PairedDifference, judged, paired, summarise
from attar.job import Spec
from attar.methods import load_method
from attar.methods.base import LatentMethod

GRIDS: Mapping[str, Mapping[str, Sequence[Any]]] = {"exemplars": {"fit.time": ("280", "600")}}
"""What is varied if nothing else is asked for, beside the guidance: by method."""
GUIDANCE: Mapping[str, Sequence[Any]] = {"sampler.guidance": ("2", "4")}
"""The same of every method that samples a prior."""


@dataclass(frozen=True)
class Rung:
    """A step of the ladder: how many candidates are trained, each for a part of the recipe."""

    candidates: int
    divisor: int
    """What the recipe's steps or epochs are divided by; the last rung's is 1."""


@dataclass(frozen=True)
class CandidateScore:
    """A candidate in one rung."""

    networks: Mapping[str, Cell]

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
    rounds: tuple[Round, ...]
    """The rungs that are done; the first has all candidates."""
    over: bool

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
    choices: Mapping[str, Fields]
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


def tune(
    tuning: Tuning,
    *,
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = quiet,
    show: Callable[[Tuned], None] = lambda tuned: None,
    dry_run: bool = False,
    engine: Engine = LOCAL,
) -> Tuned:
    """Runs what is missing of a tuning; keeps results.json and tuned.json in its folder, and shows it after each rung.

    The sets are distilled without the fixed tenth of the data, and judged on it; the test images are never opened.

    Raises:
        AttarError: the grid or another input is wrong, before any long work; or a candidate failed, after the others.
    """
    choices = candidates(tuning)
    ladder = rungs(len(choices), tuning.eta)
    experiment = _experiment(tuning, choices, ladder)
    check_place(tuning.out, "`out`", [tuning.spec.data], adds=("results.json", "tuned.md", "tuned.json", "tuned.png"))
    grid = Grid(experiment, store, progress, say, engine)
    say("\n".join(_announced(tuning, choices, ladder)))
    grid.check()
    first = [item for item in grid.items() if item.evaluation.methods == tuple(choices)]
    if dry_run or any(grid.missing(item) for item in first):
        say(forecast(experiment, None, store, progress))
    tuned = Tuned(tuning, choices)
    if dry_run:
        return tuned
    grid.check_teachers()
    with engine.cluster():
        _raise_for(list(grid.distill()))
        for ipc in tuning.ipcs:
            finished = tuned.races
            for race in _raced(tuning, grid, ladder, ipc):
                tuned = replace(tuned, races=(*finished, race))
                write_json(tuning.out / "tuned.json", tuned.as_json())
                show(tuned)
    return tuned


def default_grid(name: str, fixed: Fields) -> dict[str, Sequence[Any]]:
    """What is varied of a method if nothing else is asked for; fields that are `fixed` are left alone.

    Raises:
        AttarError: nothing is, or there is no such method or field.
    """
    sampled = isinstance(load_method(name, dict(fixed)), LatentMethod)
    usual = {**GRIDS.get(name, {}), **(GUIDANCE if sampled else {})}
    if grid := {field: values for field, values in usual.items() if field not in fixed}:
        return grid
    raise AttarError(f"{name}: say what to vary with `grid` FIELD=VALUE,VALUE (`attar describe {name}` lists fields)")


def candidates(tuning: Tuning) -> dict[str, Fields]:
    """Label -> the fields of the grid's candidates, in the grid's order; the last field varies fastest.

    Raises:
        AttarError: a field without values or fixed elsewhere, an unknown one, a value that it cannot take, or fewer
            than two different candidates.
    """
    for field, values in tuning.grid.items():
        if field in tuning.fixed:
            raise AttarError(f"`grid` {field}: the same field is fixed, too; leave one of them out")
        if not values or "" in map(str, values):
            raise AttarError(f"`grid` {field}: a value is missing; write it as {field}=VALUE,VALUE")
    choices: dict[str, Fields] = {}
    labels: dict[Any, str] = {}
    for values in itertools.product(*tuning.grid.values()):
        choice = dict(zip(tuning.grid, values, strict=True))
        label, method = labelled(choice), load_method(tuning.name, {**tuning.fixed, **choice})
        if method in labels:
            raise AttarError(f"`grid`: {labels[method]} and {label} are the same candidate")
        choices[label], labels[method] = choice, label
    if len(choices) < 2:
        raise AttarError("`grid`: there is nothing to choose: give at least two values of a field")
    return choices


def labelled(choice: Fields) -> str:
    """A candidate's name and its folder's, whatever the order of the grid: "fit.time=280,sampler.guidance=2"."""
    text = ",".join(f"{name}={choice[name]}" for name in sorted(choice))
    safe = re.sub(r"[^A-Za-z0-9_.,=+-]", "-", text)[:100]
    return text if safe == text else f"{safe}-{fingerprint(text)[:6]}"


def _experiment(tuning: Tuning, choices: Mapping[str, Fields], ladder: Sequence[Rung]) -> Experiment:
    """The grid with all rungs; who will reach the later ones is not yet known, and the first stand in for them."""
    spec = replace(tuning.spec, hold_out=True)
    labels = tuple(choices)
    return Experiment(
        file=tuning.out / "tuned.json",
        title=f"{tuning.name} tuned",
        status="",
        out=tuning.out,
        ipcs=tuning.ipcs,
        distillation_seeds=(spec.seed,),
        test="held-out",
        references=(),
        contenders=tuple(
            Contender(label, tuning.name, load_method(tuning.name, {**tuning.fixed, **choice}), spec)
            for label, choice in choices.items()
        ),
        evaluations=tuple(
            _evaluation(tuning, ladder, number, ipc, labels[: ladder[number].candidates])
            for ipc in tuning.ipcs
            for number in range(len(ladder))
        ),
        published=(),
        planned=None,
    )


def _evaluation(tuning: Tuning, ladder: Sequence[Rung], number: int, ipc: int, labels: tuple[str, ...]) -> Evaluation:
    conditions, recipe = tuning.conditions, shortened(tuning.recipe, ladder[number].divisor, ipc)
    seeds = conditions.seeds if number == len(ladder) - 1 else conditions.seeds[:1]
    label = f"rung {number + 1} of {len(ladder)}, {length(recipe, ipc)}"
    return Evaluation(label, recipe, conditions.networks, labels, (ipc,), seeds, conditions.teacher)


def _announced(tuning: Tuning, choices: Mapping[str, Fields], ladder: Sequence[Rung]) -> Iterator[str]:
    yield f"{counted(len(choices), 'candidate')}: {'; '.join(choices)}"
    trainings = 0
    for number, rung in enumerate(ladder):
        seeds = len(tuning.conditions.seeds) if rung.divisor == 1 else 1
        trainings += rung.candidates * seeds * len(tuning.conditions.networks) * len(tuning.ipcs)
        part = "the whole recipe" if rung.divisor == 1 else f"1/{rung.divisor} of the recipe"
        tried = counted(rung.candidates, "candidate")
        yield f"  rung {number + 1}: {tried} by {part}, {counted(seeds, 'training seed')}"
    yield f"{counted(trainings, 'training')} at most; what is in the cache is not done again"
    yield "Distilled without the held-out tenth of the data, judged on it; the test images are never opened"


def _raced(tuning: Tuning, grid: Grid, ladder: Sequence[Rung], ipc: int) -> Iterator[Race]:
    """The race of one IPC after each of its rungs."""
    rounds: list[Round] = []
    labels = tuple(contender.label for contender in grid.experiment.contenders)
    for number, rung in enumerate(ladder):
        if rounds:
            labels = best(rounds[-1].means, rung.candidates)
        evaluation = _evaluation(tuning, ladder, number, ipc, labels)
        own = replace(grid, experiment=replace(grid.experiment, evaluations=(evaluation,)))
        _raise_for([failure for item in own.items() for failure in own.evaluate(item, lambda: None)])
        records, terms = own.records(), judged(own.experiment, evaluation)
        panels = summarise(own.experiment, records).panels
        scores = {
            label: CandidateScore({panel.network: panel.cells[label, ipc] for panel in panels}) for label in labels
        }
        tested = next(record.n_test for record in records if record.trial and record.trial.judged == terms)
        rounds.append(Round(evaluation, scores, tested))
        means = "; ".join(f"{label} {mean:.1f} %" for label, mean in rounds[-1].means.items())
        grid.say(f"IPC {ipc}, {evaluation.label}: {means}")
        yield Race(ipc, tuple(rounds), over=number == len(ladder) - 1)


def _raise_for(failures: Sequence[str]) -> None:
    if failures:
        raise AttarError(
            "\n".join([*failures, "without these nothing can be chosen; the same command goes on from here"])
        )


def rungs(candidates: int, eta: int) -> tuple[Rung, ...]:
    """The rounds: 1/eta of the candidates (rounded up) go on to eta times the training, until at most eta are left.

    Rounded up, so that the last rung, which is the whole recipe, compares at least two of them.
    """
    counts = [candidates]
    while counts[-1] > eta:
        counts.append(-(-counts[-1] // eta))
    return tuple(Rung(count, eta ** (len(counts) - 1 - number)) for number, count in enumerate(counts))


def best(scores: Mapping[str, float], count: int) -> tuple[str, ...]:
    """The names of the `count` highest scores, in their given order, by which ties are broken, too."""
    ranked = sorted(scores, key=lambda name: -scores[name])[:count]
    return tuple(name for name in scores if name in ranked)


def shortened(recipe: Recipe, divisor: int, ipc: int) -> Recipe:
    """The recipe with its steps or epochs divided, at least one left; warmup gives way (`evaluator.training_plan`)."""
    changes: dict[str, Any] = {}
    if recipe.steps is not None:
        changes["steps"] = max(1, round(recipe.steps / divisor))
    if recipe.epochs is not None:
        changes["epochs"] = max(1, round(by_ipc(recipe.epochs, ipc, "epochs") / divisor))
    return recipe if divisor == 1 else modified(recipe, changes)


def length(recipe: Recipe, ipc: int) -> str:
    """How long the recipe trains, in words."""
    if recipe.epochs is None:
        return f"{recipe.steps} steps"
    return f"{by_ipc(recipe.epochs, ipc, 'epochs')} epochs"
