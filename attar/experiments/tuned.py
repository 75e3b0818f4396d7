"""What a tuning came to: every rung's accuracies, the best candidate of each IPC, and how sure that is."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from attar.core.store import replacing, write_json
from attar.evaluation import changes
from attar.evaluation.records import signed, terms
from attar.experiments.spec import Evaluation
from attar.experiments.summary import Cell, Difference, paired
from attar.experiments.tuned_chart import draw

if TYPE_CHECKING:
    from attar.experiments.tune import Tuning

Fields = Mapping[str, Any]
"""Fields of a method by their dotted names."""

NOTES = """Top-1 accuracy in % on the tenth of the training data that was held out when the sets were distilled; the
test images were never opened. A candidate's figure is the mean over the networks{networks}, ± its sample deviation over
the training seeds; the best of each rung go on to the next. All rungs but the last have one training seed, so that one
of several close candidates may have dropped out by chance. The winner's own figure is a little too high, as the best of
several: judge it on the test images."""


@dataclass(frozen=True)
class Score:
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
    scores: Mapping[str, Score]
    """By the candidates' labels, in the grid's order."""
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
    """Those that are done, the first of which has all candidates."""
    over: bool

    @property
    def winner(self) -> str | None:
        """The best of the last rung, the first in the grid of equals; None as long as the race is not over."""
        means = self.rounds[-1].means
        return max(means, key=lambda label: means[label]) if self.over else None

    @property
    def behind(self) -> dict[str, Difference]:
        """How far the others of the last rung lie behind the winner, paired by training seed; the nearest first."""
        scores = self.rounds[-1].scores
        gaps = {
            label: gap
            for label, score in scores.items()
            if self.winner is not None and label != self.winner
            if (gap := paired(scores[self.winner].whole, score.whole)) is not None
        }
        return dict(sorted(gaps.items(), key=lambda one: one[1].mean))


def verdict(race: Race) -> str:
    """How sure the winner is, in words: over the training seeds, and for so many held-out images."""
    assert race.winner is not None, "a race that is not over has no winner"
    last = race.rounds[-1]
    share = last.means[race.winner] / 100
    error = 100 * math.sqrt(share * (1 - share) / last.tested)
    near = {label: gap for label, gap in race.behind.items() if gap.low is None or gap.low <= 0 or gap.mean <= error}
    shown = near or dict(list(race.behind.items())[:1])
    told = "; ".join(f"{label} is {_points(gap)} behind" for label, gap in shown.items())
    pairs = next(iter(shown.values())).pairs
    if pairs == 1:
        return f"{told}. One training seed tells nothing of the noise: take --seeds 3 or more to know."
    over = (
        f"95 % t interval over {pairs} paired training seeds, one distillation seed; an accuracy on {last.tested:,} "
        f"images has a standard error of {error:.1f}"
    )
    if near:
        return f"Within the noise, the winner being perhaps no better: {told} ({over})."
    return f"Beyond the noise: {told} ({over})."


def _points(gap: Difference) -> str:
    if gap.low is None or gap.high is None:
        return f"{gap.mean:.1f} points"
    return f"{gap.mean:.1f} points [{signed(gap.low)}, {signed(gap.high)}]"


def write(tuning: Tuning, choices: Mapping[str, Fields], races: Sequence[Race]) -> None:
    """Writes tuned.json, tuned.md and tuned.png."""
    write_json(tuning.out / "tuned.json", as_json(tuning, choices, races))
    with replacing(tuning.out / "tuned.md") as temporary:
        temporary.write_text(markdown(tuning, choices, races), encoding="utf-8")
    with replacing(tuning.out / "tuned.png") as temporary:
        draw(races, f"{tuning.name} on {tuning.spec.data}", temporary)


def markdown(tuning: Tuning, choices: Mapping[str, Fields], races: Sequence[Race]) -> str:
    """For each IPC a table of candidates by rungs, how sure the winner is, and the command that distills with it."""
    each = f" ({' / '.join(tuning.networks)})" if len(tuning.networks) > 1 else f" (one: {tuning.networks[0]})"
    judged = terms({"recipe": tuning.recipe.name, "changes": changes(tuning.recipe)})
    about = f"Data {tuning.spec.data}; prior {tuning.spec.prior or 'none'}; recipe {judged}."
    fixed = f" Fixed: {', '.join(f'{name}={value}' for name, value in tuning.fixed.items())}." if tuning.fixed else ""
    parts = [f"# {tuning.name}, tuned", about + fixed, NOTES.format(networks=each).replace("\n", " ")]
    for race in races:
        parts += [f"## IPC {race.ipc}", _table(tuning, choices, race)]
        if race.winner is not None:
            parts += [verdict(race), f"```\n{command(tuning, choices[race.winner], race.ipc)}\n```"]
    return "\n\n".join(parts) + "\n"


def _table(tuning: Tuning, choices: Mapping[str, Fields], race: Race) -> str:
    heads = [f"{one.evaluation.label}, n = {len(one.evaluation.seeds)}" for one in race.rounds]
    lines = [[*tuning.grid, *heads, ""], [*["---"] * len(tuning.grid), *["---:"] * len(heads), "---"]]
    for label, own in choices.items():
        cells = [_shown(one.scores[label]) if label in one.scores else "" for one in race.rounds]
        lines.append([*map(str, own.values()), *cells, "**best**" if label == race.winner else ""])
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines)


def _shown(score: Score) -> str:
    whole = score.whole
    spread = "" if whole.std is None else f" ± {whole.std:.1f}"
    each = f" ({' / '.join(f'{cell.mean:.1f}' for cell in score.networks.values())})" if len(score.networks) > 1 else ""
    return f"{whole.mean:.1f}{spread}{each}"


def command(tuning: Tuning, chosen: Fields, ipc: int) -> str:
    """The shell command that distills all of the data, the tenth with it, by these fields."""
    spec = tuning.spec
    skipped = ("data", "prior", "hold_out")
    named = {one.name: getattr(spec, one.name) for one in fields(spec) if one.name not in skipped}
    given = [(name, value) for name, value in named.items() if value != getattr(type(spec), name)]
    parts = [
        f"attar distill --data {shlex.quote(spec.data)}"
        + (f" --prior {shlex.quote(spec.prior)}" if spec.prior else ""),
        *(_flag(name, value) for name, value in given),
        f"--method {tuning.name} --ipc {ipc}",
        *(f"--set {shlex.quote(f'{name}={value}')}" for name, value in {**tuning.fixed, **chosen}.items()),
        f"--out {shlex.quote(str(tuning.out / 'best' / f'ipc-{ipc:03d}'))}",
    ]
    return f"# all of the data again: no --hold-out\n{' '.join(parts)}"


def _flag(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return flag
    return f"{flag} {shlex.quote(','.join(value) if isinstance(value, tuple) else str(value))}"


def as_json(tuning: Tuning, choices: Mapping[str, Fields], races: Sequence[Race]) -> dict[str, Any]:
    """All of it, JSON-ready."""
    return {
        "method": tuning.name,
        "data": tuning.spec.data,
        "prior": tuning.spec.prior,
        "fixed": dict(tuning.fixed),
        "grid": {name: list(values) for name, values in tuning.grid.items()},
        "recipe": tuning.recipe.name,
        "changes": changes(tuning.recipe),
        "networks": list(tuning.networks),
        "eta": tuning.eta,
        "test": "held-out",
        "ipcs": [_race_json(tuning, choices, race) for race in races],
    }


def _race_json(tuning: Tuning, choices: Mapping[str, Fields], race: Race) -> dict[str, Any]:
    own: dict[str, Any] = {"ipc": race.ipc, "rungs": [_round_json(choices, one) for one in race.rounds]}
    if race.winner is None:
        return own
    won = {"best": dict(choices[race.winner]), "verdict": verdict(race)}
    return {**own, **won, "command": command(tuning, choices[race.winner], race.ipc)}


def _round_json(choices: Mapping[str, Fields], one: Round) -> dict[str, Any]:
    def of(label: str, score: Score) -> Iterator[tuple[str, Any]]:
        yield "fields", dict(choices[label])
        yield "mean", score.whole.mean
        yield "std", score.whole.std
        yield "networks", {network: list(cell.accuracies.values()) for network, cell in score.networks.items()}

    about = {"changes": changes(one.evaluation.recipe), "seeds": list(one.evaluation.seeds)}
    return {"rung": one.evaluation.label, **about, "candidates": [dict(of(*pair)) for pair in one.scores.items()]}
