"""An experiment's results as Markdown, CSV and LaTeX: methods by IPC, differences, published numbers beside."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from attar.core.store import replacing
from attar.evaluation import changes
from attar.evaluation.records import signed, terms
from attar.experiments.spec import Experiment, Published
from attar.experiments.summary import Cell, Difference, Panel, paired

MISSING = "not yet measured here"
NOTES = """Top-1 accuracy in % after the last epoch: mean ± sample deviation over n runs, a run being one distillation
seed with one training seed. Differences are means over the runs with equal seeds, with their 95 % t interval; runs on
one distilled set are taken as independent, so that with few distillation seeds the intervals are too narrow. Methods
that draw nothing at random make the same set by every distillation seed."""


def write_tables(experiment: Experiment, panels: Sequence[Panel]) -> None:
    """Writes table.md, table.csv and table.tex into the experiment's folder."""
    texts = {"md": markdown(experiment, panels), "csv": as_csv(experiment, panels), "tex": latex(experiment, panels)}
    for suffix, text in texts.items():
        with replacing(experiment.out / f"table.{suffix}") as temporary:
            temporary.write_text(text, encoding="utf-8")


def markdown(experiment: Experiment, panels: Sequence[Panel]) -> str:
    """A table for each recipe and network, one of differences for each reference, and the sources."""
    parts = [
        f"# {experiment.title}",
        experiment.status,
        f"`attar compare {experiment.file}`",
        _inputs(experiment),
        NOTES,
    ]
    sources = _sources(experiment)
    for panel in panels:
        head = ["method", *(f"IPC {ipc}" for ipc in panel.evaluation.ipcs)]
        rows = [[name, *cells] for name, cells in _rows(experiment, panel, sources)]
        parts += [f"## {heading(experiment, panel)}", _markdown_table(head, rows)]
        for reference in experiment.references:
            if rows := [[label, *cells] for label, cells in _differences(experiment, panel, reference)]:
                parts += [f"Difference to {reference}, in points:", _markdown_table(head, rows)]
    parts.append("\n".join(f"[{number}] {_escaped(source)}" for source, number in sources.items()))
    return "\n\n".join(part for part in parts if part) + "\n"


def as_csv(experiment: Experiment, panels: Sequence[Panel]) -> str:
    """A line for each recipe, network, method and IPC; what is not measured or not published stays empty."""
    out = io.StringIO()
    references = [f"{name} {part}" for name in experiment.references for part in ("difference", "low", "high", "pairs")]
    head = ["evaluation", "recipe", "network", "method", "ipc", "mean", "std", "n", "seconds", "bytes"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*head, "published", "published std", "published recipe", "source", *references])
    for panel in panels:
        labels = dict.fromkeys([*panel.evaluation.methods, *(one.method for one in panel.published)])
        for label in labels:
            for ipc in panel.evaluation.ipcs:
                cell, told = panel.cells.get((label, ipc)), _published(panel, label, ipc)
                if cell is None and told is None and label not in panel.evaluation.methods:
                    continue
                about = [panel.evaluation.label, panel.evaluation.recipe.name, panel.network, label, ipc]
                measured = [""] * 5 if cell is None else [cell.mean, cell.std, cell.n, cell.seconds, cell.bytes]
                beside = [""] * 4 if told is None else [*told.accuracy[ipc], told.recipe, told.source]
                gaps = [_gap(panel, label, name, ipc) for name in experiment.references]
                compared = [
                    value
                    for gap in gaps
                    for value in ([""] * 4 if gap is None else [gap.mean, gap.low, gap.high, gap.pairs])
                ]
                writer.writerow([_number(value) for value in [*about, *measured, *beside, *compared]])
    return out.getvalue()


def latex(experiment: Experiment, panels: Sequence[Panel]) -> str:
    """A tabular for each recipe and network (with booktabs)."""
    sources = _sources(experiment)
    parts = [r"% needs \usepackage{booktabs}", *(f"% [{number}] {source}" for source, number in sources.items())]
    for panel in panels:
        ipcs = panel.evaluation.ipcs
        lines = [
            f"% {heading(experiment, panel)}",
            rf"\begin{{tabular}}{{l{'r' * len(ipcs)}}}",
            r"\toprule",
            " & ".join(["method", *(f"IPC {ipc}" for ipc in ipcs)]) + r" \\",
            r"\midrule",
        ]
        for name, cells in _rows(experiment, panel, sources):
            lines.append(" & ".join(_tex(text) for text in (name, *cells)) + r" \\")
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}"]))
    return "\n\n".join(parts) + "\n"


def heading(experiment: Experiment, panel: Panel) -> str:
    """An evaluation in words: its label, the network, the recipe with its changes, the test images."""
    recipe = panel.evaluation.recipe
    told = terms({"recipe": recipe.name, "changes": changes(recipe), "test": experiment.test})
    teacher = f", teacher {panel.evaluation.teacher}" if panel.evaluation.teacher else ""
    return f"{panel.evaluation.label}, {panel.network}: {told}{teacher}"


def _inputs(experiment: Experiment) -> str:
    specs = [contender.spec for contender in experiment.contenders]
    data = ", ".join(dict.fromkeys(spec.data for spec in specs))
    priors = ", ".join(dict.fromkeys(spec.prior for spec in specs if spec.prior))
    return f"Data {data}{f'; prior {priors}' if priors else ''}; tested on {experiment.test or 'its test split'}."


def _rows(experiment: Experiment, panel: Panel, sources: dict[str, int]) -> Iterator[tuple[str, list[str]]]:
    """(name, a text for each IPC): each method as measured here, below it what is published of it."""
    ipcs = panel.evaluation.ipcs
    measured = panel.evaluation.methods
    for label in dict.fromkeys([*measured, *(one.method for one in panel.published)]):
        if label in measured:
            yield label, [_shown(panel.cells.get((label, ipc))) for ipc in ipcs]
        for one in panel.published:
            if one.method == label and any(ipc in one.accuracy for ipc in ipcs):
                recipe = f", {one.recipe}" if one.recipe else ""
                told = [_accuracy(*one.accuracy[ipc]) if ipc in one.accuracy else "" for ipc in ipcs]
                yield f"{label}, published [{sources[one.source]}]{recipe}", told


def _differences(experiment: Experiment, panel: Panel, reference: str) -> Iterator[tuple[str, list[str]]]:
    for contender in experiment.contenders:
        gaps = [_gap(panel, contender.label, reference, ipc) for ipc in panel.evaluation.ipcs]
        if contender.label != reference and any(gaps):
            yield contender.label, [_interval(gap) if gap else "" for gap in gaps]


def _gap(panel: Panel, label: str, reference: str, ipc: int) -> Difference | None:
    of, to = panel.cells.get((label, ipc)), panel.cells.get((reference, ipc))
    return None if of is None or to is None or label == reference else paired(of, to)


def _published(panel: Panel, label: str, ipc: int) -> Published | None:
    return next((one for one in panel.published if one.method == label and ipc in one.accuracy), None)


def _sources(experiment: Experiment) -> dict[str, int]:
    return {source: k for k, source in enumerate(dict.fromkeys(one.source for one in experiment.published), 1)}


def _shown(cell: Cell | None) -> str:
    return MISSING if cell is None else f"{_accuracy(cell.mean, cell.std)} (n = {cell.n})"


def _accuracy(mean: float, std: float | None) -> str:
    return f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}"


def _interval(gap: Difference) -> str:
    if gap.low is None or gap.high is None:
        return f"{signed(gap.mean)} (one pair)"
    return f"{signed(gap.mean)} [{signed(gap.low)}, {signed(gap.high)}]"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *([_escaped(text) for text in cells] for cells in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "\N{MINUS SIGN}": "$-$", "~": r"\textasciitilde{}"}
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text.replace("^", " "))


def _number(value: object) -> object:
    return "" if value is None else round(value, 4) if isinstance(value, float) else value
