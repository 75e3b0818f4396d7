"""All tables in text: Markdown, CSV and LaTeX of experiments, waterfalls and tunings; scores for the terminal."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attar.core.store import replacing
from attar.evaluation import Recipe, changes
from attar.evaluation.recipes import MODIFIED
from attar.evaluation.records import Record, in_words, signed, spread
from attar.sets.mosaics import grid_words

if TYPE_CHECKING:
    from attar.experiments.scoring import Scores
    from attar.experiments.spec import Experiment, Published
    from attar.experiments.summary import Cell, PairedDifference, Panel, Summary
    from attar.experiments.tuned import CandidateScore, Race, Tuned
    from attar.experiments.waterfall import Bar

MISSING = "not yet measured here"
MEASURED = ("mean", "std", "n", "seconds", "bytes", "pixels")
"""Of a cell, in the CSV."""
NOTES = """Top-1 accuracy in % after the last epoch: mean ± sample deviation over n runs, a run being one distillation
seed with one training seed. Differences are means over the runs with equal seeds, with their 95 % t interval; runs on
one distilled set are taken as independent, so that with few distillation seeds the intervals are too narrow. Methods
that draw nothing at random make the same set by every distillation seed."""
STORED = """Of a whole set; bytes are those of its PNG files and of the soft labels that it holds. With (2 x 2) after a
method, each of its images is a mosaic of four, and networks learn from all of these: compare methods that store as many
pixels."""
TUNING_NOTES = """Top-1 accuracy in % on the tenth of the training data that was held out when the sets were distilled;
the test images were never opened. A candidate's figure is the mean over the networks{networks}, ± its sample deviation
over the training seeds; the best of each rung go on to the next. All rungs but the last have one training seed, so that
one of several close candidates may have dropped out by chance. The winner's own figure is a little too high, as the
best of several: judge it on the test images."""
SCORES = {
    "HLR": "all data minus the set, hard labels: lower is better",
    "IOR": "the set minus random images, own protocol",
    "LRS": "label-robust score: 26.9 is a set as good as random and as all data",
    "ARS": "augmentation-robust score: 26.9 is a set as good as random",
}
"""What DD-Ranking's scores are."""


def write_tables(summary: Summary) -> None:
    """Writes table.md, table.csv and table.tex into an experiment's folder."""
    for suffix, text in (("md", markdown(summary)), ("csv", as_csv(summary)), ("tex", latex(summary))):
        _write(summary.experiment.out / f"table.{suffix}", text)


def write_tuned_table(tuned: Tuned) -> None:
    """Writes tuned.md into a tuning's folder."""
    _write(tuned.tuning.out / "tuned.md", tuned_markdown(tuned))


def write_waterfall_tables(bars: Sequence[Bar], out: Path) -> None:
    """Writes waterfall.md and waterfall.csv into `out`."""
    _write(out / "waterfall.md", waterfall_markdown(bars))
    _write(out / "waterfall.csv", waterfall_csv(bars))


def _write(file: Path, text: str) -> None:
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def markdown(summary: Summary) -> str:
    """A table for each recipe and network, one of differences for each reference, and the sources."""
    experiment, sources = summary.experiment, _sources(summary.experiment)
    parts = [
        f"# {experiment.title}",
        experiment.status,
        f"`attar compare {experiment.file}`",
        _inputs(experiment),
        NOTES,
    ]
    for panel in summary.panels:
        head = ["method", *(f"IPC {ipc}" for ipc in panel.evaluation.ipcs)]
        align = "l" + "r" * len(panel.evaluation.ipcs)
        rows = [[name, *cells] for name, cells in _rows(experiment, panel, sources)]
        parts += [f"## {heading(experiment, panel)}", _markdown(head, align, rows)]
        for reference in experiment.references:
            if rows := [[label, *cells] for label, cells in _differences(experiment, panel, reference)]:
                parts += [f"Difference to {reference}, in points:", _markdown(head, align, rows)]
    parts += _stored(summary)
    parts.append("\n".join(f"[{number}] {_escaped(source)}" for source, number in sources.items()))
    return "\n\n".join(part for part in parts if part) + "\n"


def as_csv(summary: Summary) -> str:
    """A line for each recipe, network, method and IPC; what is not measured or not published stays empty."""
    references = summary.experiment.references
    compared = [f"{name} {part}" for name in references for part in ("difference", "low", "high", "pairs")]
    head = ["evaluation", "recipe", "network", "method", "ipc", *MEASURED]
    head += ["published", "published std", "published recipe", "source", *compared]
    return _csv(head, (row for panel in summary.panels for row in _csv_rows(panel, references)))


def _csv_rows(panel: Panel, references: Sequence[str]) -> Iterator[list[object]]:
    evaluation = panel.evaluation
    for label in _labels(panel):
        for ipc in evaluation.ipcs:
            cell, published = panel.cells.get((label, ipc)), _published(panel, label, ipc)
            if cell is None and published is None and label not in evaluation.methods:
                continue
            row: list[object] = [evaluation.label, evaluation.recipe.name, panel.network, label, ipc]
            row += [""] * 6 if cell is None else [getattr(cell, name) for name in MEASURED]
            row += [""] * 4 if published is None else [*published.accuracy[ipc], published.recipe, published.source]
            for reference in references:
                gap = panel.difference(label, reference, ipc)
                row += [""] * 4 if gap is None else [gap.mean, gap.low, gap.high, gap.pairs]
            yield [round(value, 4) if isinstance(value, float) else value for value in row]


def latex(summary: Summary) -> str:
    """A tabular for each recipe and network (with booktabs)."""
    sources = _sources(summary.experiment)
    parts = [r"% needs \usepackage{booktabs}", *(f"% [{number}] {source}" for source, number in sources.items())]
    for panel in summary.panels:
        ipcs = panel.evaluation.ipcs
        lines = [
            f"% {heading(summary.experiment, panel)}",
            rf"\begin{{tabular}}{{l{'r' * len(ipcs)}}}",
            r"\toprule",
            " & ".join(["method", *(f"IPC {ipc}" for ipc in ipcs)]) + r" \\",
            r"\midrule",
        ]
        for name, cells in _rows(summary.experiment, panel, sources):
            lines.append(" & ".join(_tex(text) for text in (name, *cells)) + r" \\")
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}"]))
    return "\n\n".join(parts) + "\n"


def heading(experiment: Experiment, panel: Panel) -> str:
    """An evaluation in words: its label, the network, the recipe with its changes, the test images."""
    evaluation = panel.evaluation
    terms, taught = _terms(evaluation.recipe, experiment.test), ""
    if evaluation.teacher is not None:
        taught = f", teacher {evaluation.teacher}"
    elif evaluation.own_labels:
        judged = (contender for contender in experiment.contenders if contender.label in evaluation.methods)
        by = dict.fromkeys(str(contender.labelled_by) for contender in judged)
        taught = f", the labels of the sets, by {' and '.join(by)}"
    return f"{evaluation.label}, {panel.network}: {terms}{taught}"


def _terms(recipe: Recipe, test: str | None = None) -> str:
    return in_words(recipe.name.removesuffix(MODIFIED), changes(recipe), test)


def _inputs(experiment: Experiment) -> str:
    specs = [contender.spec for contender in experiment.contenders]
    data = ", ".join(dict.fromkeys(spec.data for spec in specs))
    priors = ", ".join(dict.fromkeys(spec.prior for spec in specs if spec.prior))
    return f"Data {data}{f'; prior {priors}' if priors else ''}; tested on {experiment.test or 'its test split'}."


def _labels(panel: Panel) -> list[str]:
    """The methods that are measured, then those of which only a paper reports."""
    return list(dict.fromkeys([*panel.evaluation.methods, *(number.method for number in panel.published)]))


def _named(experiment: Experiment, label: str) -> str:
    """A method as tables call it: by its label, and its formation, "herding (2 x 2)"."""
    formation = next((one.spec.formation for one in experiment.contenders if one.label == label), 1)
    return f"{label} ({grid_words(formation)})" if formation > 1 else label


def _stored(summary: Summary) -> list[str]:
    """What the sets hold, in a table with a line above it; nothing where nothing was measured."""
    cells = {place: cell for panel in summary.panels for place, cell in panel.cells.items() if cell.pixels is not None}
    if not cells:
        return []
    experiment, ipcs = summary.experiment, [ipc for ipc in summary.experiment.ipcs if any(ipc == of for _, of in cells)]
    rows = []
    for label in dict.fromkeys(label for label, _ in cells):
        held = [cells.get((label, ipc)) for ipc in ipcs]
        texts = ["" if cell is None else f"{cell.pixels:,.0f} pixels, {cell.bytes:,.0f} bytes" for cell in held]
        rows.append([_named(experiment, label), *texts])
    head = ["method", *(f"IPC {ipc}" for ipc in ipcs)]
    return ["## What the sets store", STORED, _markdown(head, "l" + "r" * len(ipcs), rows)]


def _rows(experiment: Experiment, panel: Panel, sources: dict[str, int]) -> Iterator[tuple[str, list[str]]]:
    """(name, a text for each IPC): each method as measured here, below it what is published of it."""
    ipcs = panel.evaluation.ipcs
    for label in _labels(panel):
        if label in panel.evaluation.methods:
            yield _named(experiment, label), [_measured(panel.cells.get((label, ipc))) for ipc in ipcs]
        for number in panel.published:
            if number.method == label and any(ipc in number.accuracy for ipc in ipcs):
                recipe = f", {number.recipe}" if number.recipe else ""
                cells = [_accuracy(*number.accuracy[ipc]) if ipc in number.accuracy else "" for ipc in ipcs]
                yield f"{label}, published [{sources[number.source]}]{recipe}", cells


def _differences(experiment: Experiment, panel: Panel, reference: str) -> Iterator[tuple[str, list[str]]]:
    for contender in experiment.contenders:
        gaps = [panel.difference(contender.label, reference, ipc) for ipc in panel.evaluation.ipcs]
        if any(gaps):
            yield _named(experiment, contender.label), [_interval(gap) if gap else "" for gap in gaps]


def _published(panel: Panel, label: str, ipc: int) -> Published | None:
    return next((number for number in panel.published if number.method == label and ipc in number.accuracy), None)


def _sources(experiment: Experiment) -> dict[str, int]:
    sources = dict.fromkeys(number.source for number in experiment.published)
    return {source: position for position, source in enumerate(sources, 1)}


def _measured(cell: Cell | None) -> str:
    return MISSING if cell is None else f"{_accuracy(cell.mean, cell.std)} (n = {cell.n})"


def _accuracy(mean: float, std: float | None) -> str:
    return spread(f"{mean:.1f}", std)


def _interval(gap: PairedDifference) -> str:
    if gap.low is None or gap.high is None:
        return f"{signed(gap.mean)} (one pair)"
    return f"{signed(gap.mean)} [{signed(gap.low)}, {signed(gap.high)}]"


def waterfall_markdown(bars: Sequence[Bar]) -> str:
    """A table for documents: per cent and points, mean ± sample deviation over the training seeds."""
    rows = [
        [bar.name, bar.summary, bar.accuracy, bar.gap, str(len(bar.accuracies)), _random(bar.random)] for bar in bars
    ]
    return _markdown(("step", "change", "accuracy", "difference", "n", "random"), "llrrrr", rows) + "\n"


def _random(mean: float | None) -> str:
    return "" if mean is None else f"{mean:.1f}"


def waterfall_csv(bars: Sequence[Bar]) -> str:
    """The same as CSV, with unrounded numbers and every seed's accuracy."""
    head = ["step", "change", "mean", "std", "difference", "difference_std", "n", "random", "accuracies"]
    rows: list[list[object]] = []
    for bar in bars:
        numbers = (bar.mean, bar.std, bar.difference, bar.difference_std, len(bar.accuracies), bar.random)
        rows.append([bar.name, bar.summary, *numbers, " ".join(map(str, bar.accuracies))])
    return _csv(head, rows)


def tuned_markdown(tuned: Tuned) -> str:
    """For each IPC a table of candidates by rungs, how sure the winner is, and the command that distills with it."""
    tuning = tuned.tuning
    each = (
        f" ({' / '.join(tuning.conditions.networks)})"
        if len(tuning.conditions.networks) > 1
        else f" (one: {tuning.conditions.networks[0]})"
    )
    recipe = _terms(tuning.recipe)
    about = f"Data {tuning.spec.data}; prior {tuning.spec.prior or 'none'}; recipe {recipe}."
    if tuning.fixed:
        about += f" Fixed: {', '.join(f'{name}={value}' for name, value in tuning.fixed.items())}."
    parts = [f"# {tuning.name}, tuned", about, TUNING_NOTES.format(networks=each).replace("\n", " ")]
    for race in tuned.races:
        parts += [f"## IPC {race.ipc}", _race_table(tuned, race)]
        if race.winner is not None:
            parts += [race.verdict, f"```\n{tuned.command(race.ipc)}\n```"]
    return "\n\n".join(parts) + "\n"


def _race_table(tuned: Tuned, race: Race) -> str:
    grid, rows = tuned.tuning.grid, []
    rungs = [f"{done.evaluation.label}, n = {len(done.evaluation.seeds)}" for done in race.rounds]
    for label, choice in tuned.choices.items():
        cells = [_score(done.scores[label]) if label in done.scores else "" for done in race.rounds]
        rows.append([*map(str, choice.values()), *cells, "**best**" if label == race.winner else ""])
    return _markdown([*grid, *rungs, ""], "l" * len(grid) + "r" * len(rungs) + "l", rows)


def _score(score: CandidateScore) -> str:
    each = f" ({' / '.join(f'{cell.mean:.1f}' for cell in score.networks.values())})" if len(score.networks) > 1 else ""
    return f"{_accuracy(score.whole.mean, score.whole.std)}{each}"


def scores_text(scores: Scores) -> str:
    """A set's scores in lines for the terminal, in per cent."""
    own, plain, hard = scores.own, scores.plain, scores.hard
    lines = [
        f"own protocol {own.mean:.1f} %, random {_baseline(own)} %; hard labels {hard.mean:.1f} %; without "
        f"augmentation {plain.mean:.1f} %, random {_baseline(plain)} % (n = {own.n}, last epoch)"
    ]
    for name, fractions in scores.by_name.items():
        values = [100 * fraction for fraction in fractions]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        lines.append(f"{name}  {spread(f'{statistics.fmean(values):6.1f}', deviation)}  {SCORES[name]}")
    return "\n".join([*lines, "in per cent, by DD-Ranking's formulas on fractions: its package's own numbers differ"])


def _baseline(record: Record) -> str:
    return _random(record.baseline.mean if record.baseline else None)


def _markdown(head: Sequence[str], align: str, rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; `align` has an l or an r for each column."""
    marks = ["---:" if side == "r" else "---" for side in align]
    lines = [map(_escaped, head), marks, *(map(_escaped, row) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "\N{MINUS SIGN}": "$-$", "~": r"\textasciitilde{}"}
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text.replace("^", " "))
