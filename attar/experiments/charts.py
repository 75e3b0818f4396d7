"""An experiment's results as pictures: accuracy against IPC, against seconds, and against bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attar.core.store import replacing
from attar.experiments.spec import Experiment
from attar.experiments.summary import Cell, Panel


def write_figures(experiment: Experiment, panels: Sequence[Panel]) -> None:
    """Writes ipc.png (a chart for each recipe and network) and cost.png (two for each) into the experiment's folder."""
    from matplotlib.figure import Figure

    count = len(panels)
    curves, costs = (
        Figure(figsize=(4.6 * wide, 3.4 * tall), layout="constrained") for wide, tall in ((count, 1), (2, count))
    )
    for axes, panel in zip(curves.subplots(1, count, squeeze=False)[0], panels, strict=True):
        _draw(axes, experiment, panel, "images per class (IPC)", lambda ipc, cell: ipc)
        axes.set_xticks(panel.evaluation.ipcs, [str(ipc) for ipc in panel.evaluation.ipcs])
        axes.minorticks_off()
    for (left, right), panel in zip(costs.subplots(count, 2, squeeze=False), panels, strict=True):
        _draw(left, experiment, panel, "seconds to distill a set", lambda ipc, cell: max(cell.seconds, 0.01))
        _draw(right, experiment, panel, "bytes of a set's images", lambda ipc, cell: cell.bytes)
    for name, figure in (("ipc", curves), ("cost", costs)):
        with replacing(experiment.out / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})


def _draw(axes: Any, experiment: Experiment, panel: Panel, name: str, where: Callable[[int, Cell], float]) -> None:
    """A line for each method: mean and deviation of the accuracy at the place that each cell has."""
    for number, contender in enumerate(experiment.contenders):
        of = [
            (ipc, panel.cells[contender.label, ipc])
            for ipc in panel.evaluation.ipcs
            if (contender.label, ipc) in panel.cells
        ]
        if of:
            places, means = [where(ipc, cell) for ipc, cell in of], [cell.mean for _, cell in of]
            spreads = [cell.std or float("nan") for _, cell in of]
            dashed = "--" if contender.label in experiment.references else "-"
            style = {"color": f"C{number % 10}", "marker": "o", "capsize": 3, "ls": dashed}
            axes.errorbar(places, means, spreads, label=contender.label, **style)
    axes.set_xscale("log")
    axes.set_xlabel(name)
    axes.set_ylabel("test accuracy, %")
    axes.set_title(f"{panel.evaluation.label}, {panel.network}", fontsize=9)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
