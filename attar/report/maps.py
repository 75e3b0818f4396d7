"""Maps on a page: for each class of a set, where its images lie among the real ones. All sets have the same axes.

Where starts are drawn in a domain of their own, they are on a second map, of that domain.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from attar.report.charts import COLOURS, INK, MUTED, PAPER, SERIES, svg
from attar.sets.distilled import DistilledSet
from attar.sets.near_copies import read_nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from attar.sets.maps import PrincipalMap

SPACES = {
    "latents": "latents",
    "prior": "features of the prior",
    "teacher": "features of a teacher",
    "pixels": "pixels",
}
"""What a map is of, in words; where several kinds of features were compared, of the first of these."""
NOISE = "noise"
"""The kind of a map of starts."""
DEVIATIONS = 2
"""How far the ellipse of what is fitted to real latents reaches, in deviations."""
INCHES = 1.3
"""Its side."""
SHOWN = 100
"""Points of a kind at most."""
MARGIN = 0.06
"""Of the range that the points take, on each side."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Map:
    """One class of a set among the real images."""

    id: str
    symbol: str
    """An SVG `symbol` in the style sheet's colours."""
    space: str
    """What was compared, in words."""
    variance: str
    """How much of the real images' variance the axes hold, in words."""
    summary: str
    """What it shows, in words."""
    starts: bool
    """Whether prototypes are on it."""


@dataclass(frozen=True)
class _Measured:
    """A map in numbers, with what is shown of it."""

    kind: str
    variance: Sequence[float]
    real: Sequence[Point]
    images: Sequence[Point]
    starts: Sequence[Point]
    spread: Sequence[Point] = ()
    """The covariance (2, 2) of what is fitted to the real latents, whose mean is at 0."""

    @classmethod
    def of(cls, kind: str, one: PrincipalMap) -> _Measured:
        def points(name: Literal["real", "images", "starts"]) -> list[Point]:
            return [(point[0], point[1]) for point in one[name][:SHOWN]]

        return cls(kind, one["variance"], points("real"), points("images"), points("starts"))

    @property
    def space(self) -> tuple[str, tuple[Point, ...]]:
        """What tells its axes from others: the real images on it."""
        return self.kind, tuple(self.real)

    @property
    def points(self) -> list[Point]:
        """All that is on it."""
        return [*self.real, *self.images, *self.starts, *self.ellipse[0]]

    @property
    def ellipse(self) -> tuple[list[Point], float, float, float]:
        """Corners of the square around what is fitted; its width, height and angle in degrees. None: no corners."""
        if not self.spread:
            return [], 0.0, 0.0, 0.0
        squares, axes = np.linalg.eigh(np.array(self.spread))
        height, width = (2 * DEVIATIONS * np.sqrt(squares.clip(0))).tolist()
        angle = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))
        return [(-width / 2, -width / 2), (width / 2, width / 2)], width, height, angle


def maps_of(
    sets: Sequence[DistilledSet], labels: Sequence[Sequence[int]], styles: Sequence[int]
) -> list[dict[int, Map]]:
    """For each set, label -> the map of that class, where `attar nearest` made one.

    Args:
        labels: for each set, those that are shown.
        styles: for each set, the number of its colour.
    """
    return _drawn([_measured(distilled, own) for distilled, own in zip(sets, labels, strict=True)], styles, "m")


def noise_maps_of(sets: Sequence[DistilledSet], styles: Sequence[int]) -> list[dict[int, Map]]:
    """For each set, label -> where the starts of some classes lie in the domain that they are drawn in."""
    return _drawn([_of_noise(distilled) for distilled in sets], styles, "n")


def _of_noise(distilled: DistilledSet) -> dict[int, _Measured]:
    def points(values: Sequence[Sequence[float]]) -> list[Point]:
        return [(value[0], value[1]) for value in values]

    return {
        one["label"]: _Measured(
            NOISE, one["shares"], points(one["real"]), [], points(one["starts"]), points(one["spread"])
        )
        for one in distilled.manifest.get("noise", ())
    }


def _drawn(measured: Sequence[dict[int, _Measured]], styles: Sequence[int], prefix: str) -> list[dict[int, Map]]:
    """All maps, those with the same axes in the same frame; their ids begin with the prefix."""
    frames: dict[object, list[Point]] = {}
    for one in (one for maps in measured for one in maps.values()):
        frames.setdefault(one.space, []).extend(one.points)
    return [
        {
            label: _map(f"{prefix}{number}-{label}", one, style, _square(frames[one.space]))
            for label, one in maps.items()
        }
        for number, (maps, style) in enumerate(zip(measured, styles, strict=True))
    ]


def _measured(distilled: DistilledSet, labels: Sequence[int]) -> dict[int, _Measured]:
    """Label -> the map of that class by the first of the kinds in SPACES that has maps."""
    by_kind = {nearest.kind: nearest.maps for nearest in read_nearest(distilled) if nearest.maps}
    for kind in SPACES:
        if kind in by_kind:
            return {k: _Measured.of(kind, by_kind[kind][k]) for k in labels if by_kind[kind][k]["variance"]}
    return {}


def _square(points: Sequence[Point]) -> tuple[float, float, float]:
    """Left, bottom and side of the square around some points."""
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    side = (float((high - low).max()) or 1.0) * (1 + 2 * MARGIN)
    left, bottom = ((low + high - side) / 2).tolist()
    return left, bottom, side


def _map(name: str, one: _Measured, style: int, frame: tuple[float, float, float]) -> Map:
    variance = " + ".join(f"{100 * share:.0f} %" for share in one.variance)
    if one.kind == NOISE:
        shown = f"{len(one.starts)} starts among {len(one.real)} inverted real latents"
        summary = f"map of the noises: {shown}; its two axes hold {variance} of the variance of the real ones"
        return Map(name, _symbol(name, one, style, frame), "noises", variance, summary, True)
    space = SPACES[one.kind]
    began = f" and {len(one.starts)} prototypes" if one.starts else ""
    shown = f"{len(one.images)} images{began} among {len(one.real)} real ones"
    summary = f"map of {space}: {shown}; its two axes hold {variance} of the variance of the real ones"
    return Map(name, _symbol(name, one, style, frame), space, variance, summary, bool(one.starts))


def _symbol(name: str, one: _Measured, style: int, frame: tuple[float, float, float]) -> str:
    left, bottom, side = frame
    arm = 0.022 * side

    def dots(points: Sequence[Point]) -> list[tuple[Point, Point]]:
        return [(point, point) for point in points]

    def draw(figure: Figure) -> None:
        from matplotlib.patches import Ellipse

        figure.set_layout_engine("none")
        figure.patch.set_visible(False)
        axes = figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[])
        axes.set(xlim=(left, left + side), ylim=(bottom, bottom + side))
        crosses = [((x - arm, y - k * arm), (x + arm, y + k * arm)) for x, y in one.starts for k in (1, -1)]
        _strokes(axes, dots(one.real), MUTED, 2.0)
        if one.spread:
            _, width, height, angle = one.ellipse
            axes.add_artist(Ellipse((0, 0), width, height, angle=angle, fill=False, ec=MUTED, lw=0.8, clip_on=False))
        _strokes(axes, dots(one.images), PAPER, 6.5)
        _strokes(axes, dots(one.images), SERIES[style % COLOURS], 5.0)
        _strokes(axes, crosses, SERIES[style % COLOURS] if one.spread else INK, 1.0)

    drawn = svg(draw, (INCHES, INCHES), name)
    paths = re.findall(r'<path d="[^"]*" style="[^"]*"/>', re.sub(r"\s+", " ", drawn))
    box = f"0 0 {72 * INCHES:g} {72 * INCHES:g}"
    return f'<symbol id="{name}" viewBox="{box}">{"".join(map(_shortened, paths))}</symbol>'


def _strokes(axes: Any, lines: Sequence[tuple[Point, Point]], colour: str, width: float) -> None:
    """Lines with round ends; those of no length are dots. All in one path, which takes the fewest bytes."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if lines:
        path = Path(np.reshape(lines, (-1, 2)), [Path.MOVETO, Path.LINETO] * len(lines))
        path.should_simplify = False
        axes.add_artist(PathPatch(path, fill=False, ec=colour, lw=width, capstyle="round", clip_on=False))


def _shortened(path: str) -> str:
    """Coordinates to a tenth of a point."""
    return re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), path)
