"""Settings chosen on the held-out tenth of the data: a grid of candidates, halved until one is left; resumable.

Successive halving (Jamieson and Talwalkar, AISTATS 2016): many candidates are tried cheaply, the best few in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attar.core.config import by_ipc
from attar.core.engine import LOCAL, Engine
from attar.core.errors import AttarError
from attar.core.progress import Progress, Say, quiet, silent
from attar.core.store import Store, write_json
from attar.core.whole_grid import WholeGrid
from attar.core.wording import counted
from attar.data.output_places import check_place
from attar.evaluation import Recipe, modified
from attar.experiments.candidates import candidates
from attar.experiments.compare import Grid
from attar.experiments.forecast import Forecast, forecast
from attar.experiments.settings import FieldValues, Tuning
from attar.experiments.spec import Contender, Evaluation, Experiment
from attar.experiments.summary import judging_fingerprint, summarise
from attar.experiments.tuned import CandidateScore, Race, Round, Tuned
from attar.methods import load_method


@dataclass(frozen=True)
class Rung:
    """A step of the ladder: how many candidates are trained, each for a part of the recipe."""

    candidates: int
    """How many are trained."""
    divisor: int
    """What the recipe's steps or epochs are divided by; the last rung's is 1."""


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
    grid = Grid(experiment, store, WholeGrid(progress), say, engine)
    say("\n".join(_announced(tuning, choices, ladder)))
    grid.check()
    first = [item for item in grid.items() if item.evaluation.methods == tuple(choices)]
    expected = forecast(experiment, None, store, progress)
    if dry_run or any(grid.missing(item) for item in first):
        say(expected.words)
    grid.foresee(expected.trainings)
    tuned = begun = Tuned(tuning, choices)
    if dry_run:
        return tuned
    grid.check_teachers()
    with engine.cluster():
        _raise_for(list(grid.distill()))
        for tuned in _run(begun, grid, ladder, expected):
            write_json(tuning.out / "tuned.json", tuned.as_json())
            show(tuned)
    return tuned


def _experiment(tuning: Tuning, choices: Mapping[str, FieldValues], ladder: Sequence[Rung]) -> Experiment:
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


def _announced(tuning: Tuning, choices: Mapping[str, FieldValues], ladder: Sequence[Rung]) -> Iterator[str]:
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


def _run(tuned: Tuned, grid: Grid, ladder: Sequence[Rung], expected: Forecast) -> Iterator[Tuned]:
    """What the tuning comes to after each rung of each IPC."""
    for ipc in tuned.tuning.ipcs:
        finished = tuned.races
        for race in _raced(tuned.tuning, grid, ladder, ipc, expected):
            tuned = replace(tuned, races=(*finished, race))
            yield tuned


def _raced(tuning: Tuning, grid: Grid, ladder: Sequence[Rung], ipc: int, expected: Forecast) -> Iterator[Race]:
    """The race of one IPC after each of its rungs."""
    rounds: list[Round] = []
    labels = tuple(contender.label for contender in grid.experiment.contenders)
    for number, rung in enumerate(ladder):
        if rounds:
            labels = best(rounds[-1].means, rung.candidates)
        evaluation = _evaluation(tuning, ladder, number, ipc, labels)
        own = replace(grid, experiment=replace(grid.experiment, evaluations=(evaluation,)))
        if rounds:
            grid.over(evaluation.label, ipc)
            own.foresee(expected.trainings)
        _raise_for([failure for item in own.items() for failure in own.evaluate(item, lambda: None)])
        records = own.records()
        terms = judging_fingerprint(own.experiment, evaluation, own.experiment.contenders[0])
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
