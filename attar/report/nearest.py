"""The near copies of a report: what `attar nearest` found of a set."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attar.core.errors import AttarError
from attar.report.figures import MUTED, SERIES, plain, svg
from attar.sets.distilled import DistilledSet
from attar.sets.near_copies import Nearest, folder_of, read_nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 20


@dataclass(frozen=True)
class Copies:
    """The distances of one kind, in words and pictures."""

    kind: str
    closest: str
    median: str
    real: str
    """The median of real images to their nearest."""
    near_copies: str
    chart: str
    """An SVG element: how many images, and how many real ones, lie so far from the nearest."""
    pairs: str
    """A picture of the closest pairs, as a data URI."""


def copies(one: DistilledSet, salt: str) -> list[Copies]:
    """What was found of a set, for each kind of distance; nothing if it was not measured."""
    folder = folder_of(one)
    found = []
    for of in read_nearest(one):
        file = folder / f"closest-{of.kind}.png"
        try:
            picture = base64.b64encode(file.read_bytes()).decode()
        except OSError as error:
            raise AttarError(f"{file} cannot be read ({error}); run `attar nearest` again") from error
        found.append(
            Copies(
                kind=of.kind,
                closest=f"{min(of.all):.3g}",
                median=f"{np.median(of.all):.3g}",
                real=f"{np.median(of.all_real):.3g}" if of.all_real else "",
                near_copies=f"{of.near_copies:.0%}" if of.all_real else "",
                chart=histogram(of, f"{salt}-{of.kind}"),
                pairs=f"data:image/png;base64,{picture}",
            )
        )
    return found


def histogram(of: Nearest, salt: str) -> str:
    """An SVG element: per cent of the set's images, and of real ones, by the distance from the nearest real one."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        edges = np.linspace(0, max([*of.all, *of.all_real]) or 1, BINS + 1)
        for values, colour, style in ((of.all, SERIES[0], "-"), (of.all_real, MUTED, "--")):
            if values:
                axes.stairs(shares(values, edges), edges, color=colour, ls=style, lw=1.5)
        axes.set_xlabel(f"distance to the nearest real image, {of.kind}")
        axes.set_ylabel("images, %")
        plain(axes)

    return svg(draw, (3.6, 2.2), salt)


def shares(values: Sequence[float], edges: np.ndarray) -> np.ndarray:
    """The per cent of values in each bin."""
    return 100 * np.histogram(values, edges)[0] / len(values)
