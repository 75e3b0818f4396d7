"""All charts: SVG elements for the page, in its colours; PNG files for experiments."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attar.core.store import replacing
from attar.evaluation.records import signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from attar.experiments.summary import Cell, Panel, Summary
    from attar.experiments.tuned import Tuned
    from attar.experiments.waterfall import Bar, Waterfall
    from attar.sets.near_copies import Nearest

MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"}
"""The markers of methods, and the characters that stand for them in tables."""
COLOURS = 8
"""The style sheet's colours of methods: --series-0 ... --series-7. With seven markers, 56 methods differ."""
STAND_INS = {
    **{f"#0000{20 + k:02x}": f"var(--series-{k})" for k in range(COLOURS)},
    "#0000f0": "var(--muted)",
    "#0000f1": "var(--line)",
    "#0000f2": "currentColor",
    "#0000f3": "var(--paper)",
}
"""Colours that matplotlib can draw with -> those of the style sheet that they become."""
SERIES = list(STAND_INS)[:COLOURS]
MUTED, FAINT, INK, PAPER = list(STAND_INS)[COLOURS:]
BINS = 20
"""Bins of the histograms of distances to real images."""
BAR_STYLES: Mapping[str, dict[str, Any]] = {
    "whole": {"color": "0.6"},
    "up": {"color": "C0"},
    "down": {"color": "C3"},
    "best": {"color": "white", "edgecolor": "0.4", "hatch": "///"},
}
"""How the bars of a waterfall are filled."""


def symbol(style: int | None) -> str:
    """The character that stands for a method's marker in tables; None is that of the baseline."""
    return "○" if style is None else list(MARKERS.values())[style % len(MARKERS)]


@dataclass(frozen=True)
class Line:
    """A line of the chart: mean accuracy by IPC, with the spread of the seeds where there are several."""

    points: Mapping[int, tuple[float, float]]
    """IPC -> (mean, standard deviation or 0)."""
    style: int | None
    """Which colour and marker; None is the baseline's."""


def accuracy_by_ipc(lines: Sequence[Line], ceiling: float | None, salt: str) -> str:
    """An SVG element of accuracy (per cent) against IPC, or of the methods side by side where there is one IPC.

    Its colours are those of the page's style sheet.

    It holds no text but numbers and the axes' names: the table beside it is its legend. `salt` keeps the names of
    its parts apart from those of other charts on the page.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        ipcs = sorted({ipc for line in lines for ipc in line.points})
        for place, line in enumerate(lines):
            _draw_line(axes, line if len(ipcs) > 1 else replace(line, points={place: line.points[ipcs[0]]}))
        if ceiling is not None:
            axes.axhline(ceiling, color=MUTED, lw=1, ls=":")
        if len(ipcs) > 1:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator(ipcs))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticklabels([str(ipc) for ipc in ipcs])
            axes.set_xlabel("images per class (IPC)", color=INK)
        else:
            axes.set_xticks(range(len(lines)), [symbol(line.style) for line in lines])
            axes.set_xlim(-0.6, len(lines) - 0.4)
            axes.set_xlabel(f"methods at IPC {ipcs[0]}", color=INK)
        axes.set_ylabel("test accuracy, %", color=INK)
        _plain(axes)

    return svg(draw, (4.8, 3.1), salt)


def _draw_line(axes: Any, line: Line) -> None:
    ipcs, values = zip(*sorted(line.points.items()), strict=True)
    means, deviations = zip(*values, strict=True)
    colour, marker = (MUTED, "o") if line.style is None else _look(line.style)
    shown = [deviation or float("nan") for deviation in deviations]
    drawn = axes.errorbar(ipcs, means, shown, color=colour, marker=marker, ms=5, capsize=3)
    if line.style is None:
        drawn.lines[0].set(linestyle="--", markerfacecolor="none")


@dataclass(frozen=True)
class FineTuning:
    """One method's fine-tuning, over all of its groups of classes."""

    name: str
    """The method's name on the page."""
    style: int
    """The number of its colour and marker."""
    steps: tuple[int, ...]
    """The steps at which it was measured."""
    values: Mapping[str, tuple[float, ...]]
    """Measure -> its mean over the groups after each of the steps."""

    @property
    def changes(self) -> list[str]:
        """ "before → after" of each measure."""
        return [f"{values[0]:.2f} \N{RIGHTWARDS ARROW} {values[-1]:.2f}" for values in self.values.values()]


def measures_by_step(tunings: Sequence[FineTuning]) -> str:
    """An SVG element with a panel for each measure of fine-tunings, a line for each method."""

    def draw(figure: Figure) -> None:
        for axes, measure in zip(figure.subplots(2, 3).flat, tunings[0].values, strict=True):
            for tuning in tunings:
                colour, marker = _look(tuning.style)
                axes.plot(tuning.steps, tuning.values[measure], color=colour, marker=marker, ms=5)
            axes.set_title(measure, color=INK)
            axes.set_xlabel("steps", color=INK)
            axes.locator_params(nbins=5)
            _plain(axes)

    return svg(draw, (9.0, 4.4), "tuning")


@dataclass(frozen=True)
class Way:
    """How far the images of a set were from the latents that they are drawn to, on their way from noise."""

    name: str
    """The method's name on the page, and the set's IPC."""
    style: int
    """The number of its colour and marker."""
    times: tuple[int, ...]
    """The times of the steps, falling."""
    distances: tuple[float, ...]
    """At each, the root mean square of the difference of predicted clean latents and those aimed at."""


@dataclass(frozen=True)
class Curve:
    """How accuracy rose in a training."""

    name: str
    """The method's name on the page."""
    style: int | None
    """The number of its colour and marker; None is the baseline's."""
    epochs: tuple[int, ...]
    """After which it was tested, rising; steps, where the recipe counts these."""
    accuracies: tuple[float, ...]
    """Top-1 in per cent, mean over the seeds."""
    best: float
    """Mean of each seed's best."""


def accuracy_by_epoch(curves: Sequence[Curve], counted_in: str, salt: str) -> str:
    """An SVG element with a line for each curve, by "epochs" or "steps"; `salt` as in `accuracy_by_ipc`."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for curve in curves:
            colour, marker = (MUTED, "o") if curve.style is None else _look(curve.style)
            last = len(curve.epochs) - 1
            places = [*range(last, -1, -max(1, len(curve.epochs) // 10))]
            axes.plot(curve.epochs, curve.accuracies, color=colour, marker=marker, ms=5, markevery=places[::-1])
        axes.set_xlabel(counted_in, color=INK)
        axes.set_ylabel("accuracy, %", color=INK)
        _plain(axes)

    return svg(draw, (4.6, 2.8), salt)


def distances_by_time(ways: Sequence[Way]) -> str:
    """An SVG element with a line for each way."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for way in ways:
            colour, marker = _look(way.style)
            every = max(1, len(way.times) // 10)
            axes.plot(way.times, way.distances, color=colour, marker=marker, ms=5, markevery=every)
        axes.invert_xaxis()
        axes.set_xlabel("time, from noise to the image", color=INK)
        axes.set_ylabel("distance", color=INK)
        axes.set_ylim(bottom=0)
        _plain(axes)

    return svg(draw, (4.6, 2.8), "ways")


def distances_chart(nearest: Nearest, salt: str) -> str:
    """An SVG element: per cent of a set's images, and of real ones, by the distance from the nearest real one."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        edges = np.linspace(0, max([*nearest.all, *nearest.all_real]) or 1, BINS + 1)
        for values, colour, style in ((nearest.all, SERIES[0], "-"), (nearest.all_real, MUTED, "--")):
            if values:
                axes.stairs(per_cent_by_bin(values, edges), edges, color=colour, ls=style, lw=1.5)
        axes.set_xlabel(f"distance to the nearest real image, {nearest.kind}")
        axes.set_ylabel("images, %")
        _plain(axes)

    return svg(draw, (3.6, 2.2), salt)


def per_cent_by_bin(values: Sequence[float], edges: np.ndarray) -> np.ndarray:
    """The per cent of values in each bin."""
    return 100 * np.histogram(values, edges)[0] / len(values)


def write_charts(summary: Summary) -> None:
    """Writes ipc.png (a chart for each recipe and network) and cost.png (two for each) into an experiment's folder."""
    panels, count, out = summary.panels, len(summary.panels), summary.experiment.out
    with _png(out / "ipc.png", (4.6 * count, 3.4)) as figure:
        for axes, panel in zip(figure.subplots(1, count, squeeze=False)[0], panels, strict=True):
            ipcs = panel.evaluation.ipcs
            _draw_panel(axes, summary, panel, "images per class (IPC)", lambda ipc, cell: ipc)
            axes.set_xticks(ipcs, [str(ipc) for ipc in ipcs])
            axes.minorticks_off()
    with _png(out / "cost.png", (4.6 * 2, 3.4 * count)) as figure:
        for (left, right), panel in zip(figure.subplots(count, 2, squeeze=False), panels, strict=True):
            _draw_panel(left, summary, panel, "seconds to distill a set", lambda ipc, cell: max(cell.seconds, 0.01))
            _draw_panel(right, summary, panel, "bytes of a set's images", lambda ipc, cell: cell.bytes)


def _draw_panel(axes: Any, summary: Summary, panel: Panel, name: str, place: Callable[[int, Cell], float]) -> None:
    """A line for each method: mean and deviation of the accuracy at the place that each cell has."""
    for number, contender in enumerate(summary.experiment.contenders):
        label = contender.label
        cells = [(ipc, panel.cells[label, ipc]) for ipc in panel.evaluation.ipcs if (label, ipc) in panel.cells]
        if cells:
            places, means = [place(ipc, cell) for ipc, cell in cells], [cell.mean for _, cell in cells]
            deviations = [cell.std or float("nan") for _, cell in cells]
            dashed = "--" if label in summary.experiment.references else "-"
            style = {"color": f"C{number % 10}", "marker": "o", "capsize": 3, "ls": dashed}
            axes.errorbar(places, means, deviations, label=label, **style)
    axes.set_xscale("log")
    axes.set_xlabel(name)
    axes.set_ylabel("test accuracy, %")
    axes.set_title(f"{panel.evaluation.label}, {panel.network}", fontsize=9)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def write_tuned_chart(tuned: Tuned) -> None:
    """Writes tuned.png: for each IPC candidates in rows, a dot and deviation for each rung, the best shaded."""
    import matplotlib

    tuning, races = tuned.tuning, tuned.races
    labels = list(races[0].rounds[0].scores)
    size = (2.6 + 3.6 * len(races), 1.7 + 0.36 * len(labels))
    with _png(tuning.out / "tuned.png", size) as figure:
        for axes, race in zip(figure.subplots(1, len(races), squeeze=False)[0], races, strict=True):
            shades = matplotlib.colormaps["viridis_r"]
            for number, done in enumerate(race.rounds):
                cells = [score.whole for score in done.scores.values()]
                axes.errorbar(
                    [cell.mean for cell in cells],
                    [labels.index(label) for label in done.scores],
                    xerr=[cell.std or 0.0 for cell in cells],
                    fmt="o",
                    color=shades((number + 1) / len(race.rounds)),
                    capsize=3,
                    label=f"rung {number + 1}, n = {len(done.evaluation.seeds)}",
                )
            axes.set_yticks(range(len(labels)), labels if race is races[0] else [""] * len(labels), fontsize=8)
            if race.winner is not None:
                axes.axhspan(*(labels.index(race.winner) + half for half in (-0.4, 0.4)), color="0.9", zorder=0)
            axes.set_ylim(len(labels) - 0.4, -0.6)
            axes.set_xlabel("held-out accuracy, %")
            axes.set_title(f"IPC {race.ipc}", fontsize=10)
            axes.grid(axis="x", alpha=0.3)
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, fontsize=8, loc="outside lower center", ncols=len(names))
        figure.suptitle(f"{tuning.name} on {tuning.spec.data} (grey: the best)", fontsize=10)


def write_waterfall_chart(waterfall: Waterfall, out: Path) -> None:
    """Writes waterfall.png: whole bars for the ends, floating ones for the differences."""
    bars = waterfall.bars
    rows = _waterfall_rows(bars)
    with _png(out / "waterfall.png", (8.5, 1.2 + 0.42 * len(rows))) as figure:
        axes = figure.subplots()
        edges: list[float] = []
        for place, (_, bar, left, right, style) in enumerate(rows):
            axes.barh(place, right - left, left=left, height=0.62, **BAR_STYLES[style])
            deviation = bar.std if style == "whole" else bar.difference_std
            axes.errorbar(right, place, xerr=deviation, color="black", capsize=3, lw=1, ls="none")
            low, high = right - (deviation or 0), right + (deviation or 0)
            edges += [left or right, low, high, right if bar.random is None else bar.random]
            text = f"{bar.mean:.1f}" if style == "whole" else signed(bar.difference or 0.0)
            axes.annotate(text, (max(left, high), place), (5, 0), textcoords="offset points", va="center")
            if bar.random is not None:
                axes.plot(bar.random, place, "kD", ms=4, label="random real images" if place == 0 else None)
        axes.set_yticks(range(len(rows)), [label for label, *_ in rows], fontsize=8)
        axes.invert_yaxis()
        room = max(max(edges) - min(edges), 1.0)
        axes.set_xlim(max(0.0, min(edges) - 0.15 * room), max(edges) + 0.2 * room)
        axes.set_xlabel(f"test accuracy, %, mean and deviation over n = {len(bars[0].accuracies)}")
        axes.set_title(f"{waterfall.folder.name}, {waterfall.network}", fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        if any(bar.random is not None for bar in bars):
            axes.legend(fontsize=8)


def _waterfall_rows(bars: Sequence[Bar]) -> list[tuple[str, Bar, float, float, str]]:
    """(label, bar, left, right, style); where the steps are cumulative, the last recipe once more as a whole bar."""
    steps = [bar for bar in bars if not bar.best]
    rows: list[tuple[str, Bar, float, float, str]] = []
    for bar in bars:
        label = _shortened(bar.summary or bar.name)
        if bar.against is None:
            rows.append((label, bar, 0.0, bar.mean, "whole"))
        else:
            style = "best" if bar.best else "up" if (bar.difference or 0.0) >= 0 else "down"
            rows.append((label, bar, bars[bar.against].mean, bar.mean, style))
        if bar is steps[-1] and len(steps) > 2 and bar.against == len(steps) - 2:
            rows.append((bar.recipe, bar, 0.0, bar.mean, "whole"))
    return rows


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _look(style: int) -> tuple[str, str]:
    """The colour and the marker of a method on the page."""
    return SERIES[style % COLOURS], list(MARKERS)[style % len(MARKERS)]


def _plain(axes: Any) -> None:
    """Axes without a box, with faint horizontal lines, in the page's colours."""
    axes.grid(axis="y", color=FAINT, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelcolor=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def svg(draw: Callable[[Figure], None], size: tuple[float, float], salt: str) -> str:
    """What `draw` puts on a figure of this size in inches, as an SVG element in the style sheet's colours."""
    import matplotlib
    from matplotlib.figure import Figure

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", drawn)
    return re.sub(r"#0000[0-9a-f]{2}", lambda colour: STAND_INS.get(colour[0], colour[0]), drawn)


@contextmanager
def _png(file: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of this size in inches, then written to `file`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    yield figure
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
