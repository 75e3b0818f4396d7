"""The chart of a waterfall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attar.evaluation.records import signed
from attar.evaluation.waterfall import Bar

STYLES: Mapping[str, dict[str, Any]] = {
    "whole": {"color": "0.6"},
    "up": {"color": "C0"},
    "down": {"color": "C3"},
    "best": {"color": "white", "edgecolor": "0.4", "hatch": "///"},
}


def draw(found: Sequence[Bar], title: str, file: Path) -> None:
    """A chart of the bars as PNG: whole bars for the ends, floating ones for the differences, and n in the title."""
    from matplotlib.figure import Figure

    rows = _rows(found)
    figure = Figure(figsize=(8.5, 1.2 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    ends: list[float] = []
    for place, (_, bar, left, right, style) in enumerate(rows):
        axes.barh(place, right - left, left=left, height=0.62, **STYLES[style])
        spread = bar.std if style == "whole" else bar.difference_std
        axes.errorbar(right, place, xerr=spread, color="black", capsize=3, lw=1, ls="none")
        ends += [
            left or right,
            right - (spread or 0),
            right + (spread or 0),
            right if bar.random is None else bar.random,
        ]
        text = f"{bar.mean:.1f}" if style == "whole" else signed(bar.difference or 0.0)
        axes.annotate(text, (max(left, right + (spread or 0)), place), (5, 0), textcoords="offset points", va="center")
        if bar.random is not None:
            axes.plot(bar.random, place, "kD", ms=4, label="random real images" if place == 0 else None)
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows], fontsize=8)
    axes.invert_yaxis()
    room = max(max(ends) - min(ends), 1.0)
    axes.set_xlim(max(0.0, min(ends) - 0.15 * room), max(ends) + 0.2 * room)
    axes.set_xlabel(f"test accuracy, %, mean and deviation over n = {len(found[0].accuracies)}")
    axes.set_title(title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    if any(bar.random is not None for bar in found):
        axes.legend(fontsize=8)
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})


def _rows(found: Sequence[Bar]) -> list[tuple[str, Bar, float, float, str]]:
    """(label, bar, left, right, style); where the steps are cumulative, the last recipe once more as a whole bar."""
    steps = [bar for bar in found if not bar.best]
    rows: list[tuple[str, Bar, float, float, str]] = []
    for bar in found:
        label = _shortened(bar.told or bar.name)
        if bar.against is None:
            rows.append((label, bar, 0.0, bar.mean, "whole"))
        else:
            style = "best" if bar.best else "up" if (bar.difference or 0.0) >= 0 else "down"
            rows.append((label, bar, found[bar.against].mean, bar.mean, style))
        if bar is steps[-1] and len(steps) > 2 and bar.against == len(steps) - 2:
            rows.append((bar.recipe, bar, 0.0, bar.mean, "whole"))
    return rows


def _shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
