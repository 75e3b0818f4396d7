"""The chart of a tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attar.experiments.tuned import Race


def draw(races: Sequence[Race], title: str, file: Path) -> None:
    """As PNG, for each IPC: candidates in rows, a dot for each rung, deviations over seeds; the best one is shaded."""
    import matplotlib
    from matplotlib.figure import Figure

    labels = list(races[0].rounds[0].scores)
    figure = Figure(figsize=(2.6 + 3.6 * len(races), 1.7 + 0.36 * len(labels)), layout="constrained")
    for axes, race in zip(figure.subplots(1, len(races), squeeze=False)[0], races, strict=True):
        shades = matplotlib.colormaps["viridis_r"]
        for number, one in enumerate(race.rounds):
            cells = [score.whole for score in one.scores.values()]
            colour = shades((number + 1) / len(race.rounds))
            axes.errorbar(
                [cell.mean for cell in cells],
                [labels.index(label) for label in one.scores],
                xerr=[cell.std or 0.0 for cell in cells],
                fmt="o",
                color=colour,
                capsize=3,
                label=f"rung {number + 1}, n = {len(one.evaluation.seeds)}",
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
    figure.suptitle(f"{title} (grey: the best)", fontsize=10)
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
