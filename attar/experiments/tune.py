"""Settings chosen on the held-out tenth of the data: a grid of candidates, halved until one is left; resumable."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attar.core.errors import AttarError
from attar.core.progress import Progress, Say, silent
from attar.core.store import Store, fingerprint
from attar.data.places import check_place
from attar.distill.run import quiet
from attar.evaluation import Recipe
from attar.evaluation.records import read_records
from attar.evaluation.teaching import check_given
from attar.experiments.compare import Grid
from attar.experiments.forecast import forecast
from attar.experiments.halving import Rung, best, length, rungs, shortened
from attar.experiments.spec import Contender, Evaluation, Experiment
from attar.experiments.summary import judged, panels
from attar.experiments.tuned import Fields, Race, Round, Score, markdown, write
from attar.job import Spec
from attar.methods import load_method
from attar.networks import check
from attar.teachers.reference import TeacherReference

GRIDS: Mapping[str, Mapping[str, Sequence[Any]]] = {"exemplars": {"fit.time": ("280", "600")}}
"""By method, what is varied if nothing else is asked for, beside the guidance."""
GUIDANCE: Mapping[str, Sequence[Any]] = {"sampler.guidance": ("2", "4")}
"""The same of every method that samples a prior."""


@dataclass(frozen=True)
class Tuning:
    """A method whose fields are to be chosen, and how the candidates are judged."""

    spec: Spec
    """The data are always taken without the held-out tenth."""
    name: str
    """Of the method."""
    fixed: Fields
    """Fields of the method that all candidates share."""
    grid: Mapping[str, Sequence[Any]]
    """Field -> the values that it is tried with."""
    ipcs: tuple[int, ...]
    """Each is chosen for by itself."""
    out: Path
    recipe: Recipe
    networks: tuple[str, ...]
    seeds: tuple[int, ...]
    """Of the trainings of the last rung; those before it take the first of them."""
    eta: int = 3
    """1/eta of the candidates go on to eta times the training."""
    teacher: TeacherReference | None = None
    """Who labels, where the recipe learns from soft labels."""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise AttarError("--seeds 0: at least 1")
        if self.eta < 2:
            raise AttarError(f"--eta {self.eta}: at least 2")
        for network in self.networks:
            check(network)
        check_given(self.recipe, self.teacher, None)


def default_grid(name: str, fixed: Fields) -> dict[str, Sequence[Any]]:
    """What is varied of a method if nothing else is asked for; fields that are `fixed` are left alone.

    Raises:
        AttarError: nothing is, or there is no such method or field.
    """
    sampled = load_method(name, dict(fixed)).sampler is not None
    usual = {**GRIDS.get(name, {}), **(GUIDANCE if sampled else {})}
    if grid := {field: values for field, values in usual.items() if field not in fixed}:
        return grid
    raise AttarError(f"{name}: say what to vary with --grid FIELD=VALUE,VALUE (`attar describe {name}` lists fields)")


def tune(
    tuning: Tuning,
    *,
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = quiet,
    dry_run: bool = False,
) -> dict[int, dict[str, Any]]:
    """Runs what is missing of a tuning; writes results.json, tuned.md, tuned.json and tuned.png into its folder.

    The sets are distilled without the fixed tenth of the data, and judged on it; the test images are never opened.

    Returns:
        IPC -> the fields of the method that did best; nothing of a dry run.

    Raises:
        AttarError: the grid or another input is wrong, before any long work; or a candidate failed, after the others.
    """
    choices = candidates(tuning)
    ladder = rungs(len(choices), tuning.eta)
    experiment = _experiment(tuning, choices, ladder)
    check_place(tuning.out, "--out", [tuning.spec.data], adds=("results.json", "tuned.md", "tuned.json", "tuned.png"))
    grid = Grid(experiment, store, progress, say)
    say("\n".join(_announced(tuning, choices, ladder)))
    grid.check()
    first = [item for item in grid.items() if item.evaluation.methods == tuple(choices)]
    if dry_run or any(grid.missing(item) for item in first):
        say(forecast(experiment, None, store, progress))
    if dry_run:
        return {}
    grid.check_teachers()
    _raise_for(list(grid.distill()))
    races: dict[int, Race] = {}
    for ipc in tuning.ipcs:
        for race in _raced(tuning, grid, ladder, ipc):
            races[ipc] = race
            write(tuning, choices, list(races.values()))
    say(f"\n{markdown(tuning, choices, list(races.values()))}")
    say(f"wrote {tuning.out}/tuned.md, tuned.json, tuned.png and results.json")
    return {ipc: {**tuning.fixed, **choices[race.winner]} for ipc, race in races.items() if race.winner is not None}


def candidates(tuning: Tuning) -> dict[str, Fields]:
    """Label -> the fields of the grid's candidates, in the grid's order; the last field varies fastest.

    Raises:
        AttarError: a field without values or fixed elsewhere, an unknown one, a value that it cannot take, or fewer
            than two different candidates.
    """
    for field, values in tuning.grid.items():
        if field in tuning.fixed:
            raise AttarError(f"--grid {field}: the same field is fixed with --set; leave one of them out")
        if not values or "" in map(str, values):
            raise AttarError(f"--grid {field}: a value is missing; write it as {field}=VALUE,VALUE")
    found: dict[str, Fields] = {}
    known: dict[Any, str] = {}
    for values in itertools.product(*tuning.grid.values()):
        fields = dict(zip(tuning.grid, values, strict=True))
        label, method = labelled(fields), load_method(tuning.name, {**tuning.fixed, **fields})
        if method in known:
            raise AttarError(f"--grid: {known[method]} and {label} are the same candidate")
        found[label], known[method] = fields, label
    if len(found) < 2:
        raise AttarError("--grid: there is nothing to choose: give at least two values of a field")
    return found


def labelled(fields: Fields) -> str:
    """A candidate's name and its folder's, whatever the order of the grid: "fit.time=280,sampler.guidance=2"."""
    text = ",".join(f"{name}={fields[name]}" for name in sorted(fields))
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
            Contender(label, tuning.name, load_method(tuning.name, {**tuning.fixed, **fields}), spec)
            for label, fields in choices.items()
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
    recipe = shortened(tuning.recipe, ladder[number].divisor, ipc)
    seeds = tuning.seeds if number == len(ladder) - 1 else tuning.seeds[:1]
    label = f"rung {number + 1} of {len(ladder)}, {length(recipe, ipc)}"
    return Evaluation(label, recipe, tuning.networks, labels, (ipc,), seeds, tuning.teacher)


def _announced(tuning: Tuning, choices: Mapping[str, Fields], ladder: Sequence[Rung]) -> Iterator[str]:
    yield f"{len(choices)} candidates: {'; '.join(choices)}"
    trainings = 0
    for number, rung in enumerate(ladder):
        seeds = len(tuning.seeds) if rung.divisor == 1 else 1
        trainings += rung.candidates * seeds * len(tuning.networks) * len(tuning.ipcs)
        part = "the whole recipe" if rung.divisor == 1 else f"1/{rung.divisor} of the recipe"
        yield f"  rung {number + 1}: {rung.candidates} candidates by {part}, {seeds} training seed{'s' * (seeds > 1)}"
    yield f"{trainings} trainings at most; those that are in the cache are not done again"
    yield "Distilled without the held-out tenth of the data, judged on it; the test images are never opened"


def _raced(tuning: Tuning, grid: Grid, ladder: Sequence[Rung], ipc: int) -> Iterator[Race]:
    """The race of one IPC after each of its rungs."""
    rounds: list[Round] = []
    left = tuple(contender.label for contender in grid.experiment.contenders)
    for number, rung in enumerate(ladder):
        if rounds:
            left = best(rounds[-1].means, rung.candidates)
        evaluation = _evaluation(tuning, ladder, number, ipc, left)
        own = replace(grid, experiment=replace(grid.experiment, evaluations=(evaluation,)))
        _raise_for([failure for item in own.items() for failure in own.evaluate(item, lambda: None)])
        records = read_records(tuning.out / "results.json")
        of_networks = panels(own.experiment, records)
        scores = {label: Score({panel.network: panel.cells[label, ipc] for panel in of_networks}) for label in left}
        tested = next(one["n_test"] for one in records if one.get("judged") == judged(own.experiment, evaluation))
        rounds.append(Round(evaluation, scores, tested))
        told = "; ".join(f"{label} {mean:.1f} %" for label, mean in rounds[-1].means.items())
        grid.say(f"IPC {ipc}, {evaluation.label}: {told}")
        yield Race(ipc, tuple(rounds), over=number == len(ladder) - 1)


def _raise_for(failures: Sequence[str]) -> None:
    if failures:
        raise AttarError(
            "\n".join([*failures, "without these nothing can be chosen; the same command goes on from here"])
        )
