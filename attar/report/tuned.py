"""How fine-tuning changed what a prior makes: the measures that were taken as it went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from attar.report.figures import COLOURS, INK, MARKERS, SERIES, plain, svg
from attar.sets.distilled import DistilledSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = {
    "precision": "share of generated latents that lie among real ones (5 neighbours)",
    "recall": "share of real latents that lie among generated ones",
    "density": "how many real latents' neighbourhoods a generated one lies in, over 5",
    "coverage": "share of real latents with a generated one in their neighbourhood",
    "farthest": "1 - a generated latent's smallest cosine to real ones: what representativeness makes small",
    "nearest": "its largest cosine to another generated one: what diversity makes small",
}
"""Those that are drawn, with what they are."""


@dataclass(frozen=True)
class Tuning:
    """One method's fine-tuning, over all of its groups of classes."""

    name: str
    style: int
    steps: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]
    """Measure -> its mean over the groups after each of the steps."""

    @property
    def changes(self) -> list[str]:
        """ "before → after" of each measure."""
        return [f"{values[0]:.2f} \N{RIGHTWARDS ARROW} {values[-1]:.2f}" for values in self.values.values()]

    @property
    def marker(self) -> str:
        """The character that stands for its method's marker in the charts."""
        return list(MARKERS.values())[self.style % len(MARKERS)]


def tunings(sets: Sequence[DistilledSet], names: Mapping[str, str], styles: Mapping[str, int]) -> list[Tuning]:
    """One for each method whose sets tell of a fine-tuning; sets of several IPCs tell of the same one."""
    found = {}
    for one in sets:
        groups = [group["looks"] for group in one.manifest.get("measures", [])]
        name = names[str(one.folder.resolve())]
        if groups and name not in found:
            looks = list(zip(*groups, strict=False))
            values = {m: tuple(sum(_value(look, m) for look in at) / len(at) for at in looks) for m in MEASURES}
            found[name] = Tuning(name, styles[name], tuple(at[0]["step"] for at in looks), values)
    return list(found.values())


def _value(look: Mapping[str, float | None], measure: str) -> float:
    value = look.get(measure)
    return math.nan if value is None else value


def panels(shown: Sequence[Tuning]) -> str:
    """An SVG element with a panel for each measure, a line for each method."""
    return svg(partial(_draw, shown), (9.0, 4.4), "tuning")


def _draw(shown: Sequence[Tuning], figure: Figure) -> None:
    for axes, measure in zip(figure.subplots(2, 3).flat, MEASURES, strict=True):
        for one in shown:
            colour, marker = SERIES[one.style % COLOURS], list(MARKERS)[one.style % len(MARKERS)]
            axes.plot(one.steps, one.values[measure], color=colour, marker=marker, ms=5)
        axes.set_title(measure, color=INK)
        axes.set_xlabel("steps", color=INK)
        axes.locator_params(nbins=5)
        plain(axes)
