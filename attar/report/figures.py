"""The pictures of a report: sprites of image walls, and the chart of accuracy against IPC."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.errors import AttarError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

LARGEST_CELL = 128
"""Pixels: larger images are shown as thumbnails of this size."""
LOSSLESS_CELL = 64
"""Pixels: up to here a sprite keeps every pixel."""
SHOWN_CELL = 56
"""About how large a small image stands on the page, in CSS pixels."""
SHOWN_THUMBNAIL = 96
"""How large a thumbnail stands there, at most."""
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"}
"""The chart's markers, and the characters that stand for them in tables."""
COLOURS = 8
"""The style sheet's colours of methods: --series-0 ... --series-7. With seven markers, 56 methods differ."""


@dataclass(frozen=True)
class Strip:
    """A row of a sprite: the images of one class."""

    name: str
    shown: int
    total: int
    y: int
    width: int


@dataclass(frozen=True)
class Sprite:
    """One picture with the images of a set: a row for each class that is shown."""

    uri: str
    width: int
    height: int
    cell: int
    scale: float
    sizes: tuple[tuple[int, int], ...]
    """(width, height) of the images, each once, as they are in their files."""
    strips: tuple[Strip, ...]

    @property
    def pixelated(self) -> bool:
        """Whether the images are shown larger than they are."""
        return self.scale > 1


def sprite(classes: Sequence[tuple[str, Sequence[Path], int]]) -> Sprite:
    """A sprite of (class name, files to show, images that there are) for each class to show.

    Images keep their shape; where sizes differ, smaller ones are enlarged by whole factors and centred.

    Raises:
        AttarError: an image cannot be read.
    """
    from PIL import Image

    opened = [[_open(file) for file in files] for _, files, _ in classes]
    largest = max((max(image.size) for images in opened for image in images), default=1)
    cell = min(largest, LARGEST_CELL)
    gap = max(1, cell // 16)
    step = cell + gap
    columns = max((len(images) for images in opened), default=1)
    sheet = Image.new("RGBA", (max(1, columns * step - gap), max(1, len(opened) * step - gap)))
    strips = []
    for y, ((name, _, total), images) in enumerate(zip(classes, opened, strict=True)):
        for x, image in enumerate(images):
            fitted = _fitted(image, cell)
            sheet.paste(fitted, (x * step + (cell - fitted.width) // 2, y * step + (cell - fitted.height) // 2))
        strips.append(Strip(name, len(images), total, y * step, max(1, len(images) * step - gap)))
    scale = max(1, round(SHOWN_CELL / cell)) if cell <= LOSSLESS_CELL else SHOWN_THUMBNAIL / cell
    sizes = tuple(sorted({image.size for images in opened for image in images}))
    return Sprite(_uri(sheet, cell), sheet.width, sheet.height, cell, scale, sizes, tuple(strips))


def _open(file: Path) -> Image.Image:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except OSError as error:
        raise AttarError(
            f"{file} cannot be read ({error}); `attar verify {file.parent.parent.parent}` checks all"
        ) from (error)


def _fitted(image: Image.Image, cell: int) -> Image.Image:
    from PIL import Image

    scale = cell / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, Image.Resampling.LANCZOS)
    return image.resize((image.width * int(scale), image.height * int(scale)), Image.Resampling.NEAREST)


def _uri(sheet: Image.Image, cell: int) -> str:
    data = io.BytesIO()
    if cell <= LOSSLESS_CELL:
        sheet.save(data, "PNG", optimize=True)
        kind = "png"
    else:
        sheet.save(data, "WEBP", quality=82)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


@dataclass(frozen=True)
class Line:
    """A line of the chart: mean accuracy by IPC, with the spread of the seeds where there are several."""

    points: Mapping[int, tuple[float, float]]
    """IPC -> (mean, standard deviation or 0)."""
    style: int | None
    """Which colour and marker; None is the baseline's."""


STAND_INS = {
    **{f"#0000{20 + k:02x}": f"var(--series-{k})" for k in range(COLOURS)},
    "#0000f0": "var(--muted)",
    "#0000f1": "var(--line)",
    "#0000f2": "currentColor",
}
"""Colours that matplotlib can draw with -> those of the style sheet that they become."""
SERIES = list(STAND_INS)[:COLOURS]
MUTED, FAINT, INK = list(STAND_INS)[COLOURS:]


def chart(lines: Sequence[Line], ceiling: float | None, salt: str) -> str:
    """An SVG element of accuracy (per cent) against IPC; its colours are those of the page's style sheet.

    It holds no text but numbers and the axes' names: the table beside it is its legend. `salt` keeps the names of
    its parts apart from those of other charts on the page.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for line in lines:
            _draw(axes, line)
        if ceiling is not None:
            axes.axhline(ceiling, color=MUTED, lw=1, ls=":")
        _dress(axes, sorted({ipc for line in lines for ipc in line.points}))

    return svg(draw, (4.8, 3.1), salt)


def svg(draw: Callable[[Figure], None], size: tuple[float, float], salt: str) -> str:
    """What `draw` puts on a figure of this size in inches, as an SVG element in the style sheet's colours."""
    import matplotlib
    from matplotlib.figure import Figure

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    return re.sub(r"#0000[0-9a-f]{2}", lambda found: STAND_INS.get(found[0], found[0]), svg)


def _draw(axes: Any, line: Line) -> None:
    ipcs, values = zip(*sorted(line.points.items()), strict=True)
    means, spreads = zip(*values, strict=True)
    bars = [spread or float("nan") for spread in spreads]
    colour = MUTED if line.style is None else SERIES[line.style % COLOURS]
    marker = "o" if line.style is None else list(MARKERS)[line.style % len(MARKERS)]
    drawn = axes.errorbar(ipcs, means, bars, color=colour, marker=marker, ms=5, capsize=3)
    if line.style is None:
        drawn.lines[0].set(linestyle="--", markerfacecolor="none")


def _dress(axes: Any, ipcs: Sequence[int]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ipcs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(ipc) for ipc in ipcs])
    axes.set_xlabel("images per class (IPC)", color=INK)
    axes.set_ylabel("test accuracy, %", color=INK)
    plain(axes)


def plain(axes: Any) -> None:
    """Axes without a box, with faint horizontal lines, in the page's colours."""
    axes.grid(axis="y", color=FAINT, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelcolor=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
