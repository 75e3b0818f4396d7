"""The command that writes a distilled set for the readers of other codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import say
from attar.core.errors import AttarError


def export(
    folder: Annotated[Path, typer.Argument(help="A distilled set", metavar="DIR")],
    layout: Annotated[str | None, typer.Option(help="minimax, rded, d4m, d3hr, or folder (named by class)")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; it must not be there yet")] = None,
) -> None:
    """Write a distilled set as another code lays it out, for its own evaluation; `attar evaluate --layout` reads it."""
    if layout is None or out is None:
        raise AttarError(f"--{'layout' if layout is None else 'out'} is missing")
    from attar.sets.distilled import open_distilled
    from attar.sets.layouts import export as write

    one = open_distilled(folder)
    write(one, layout, out)
    count = sum(map(len, one.files()))
    say(f"wrote {out.resolve()}: {count} images in layout {layout}; classes.json says which class each folder is")
