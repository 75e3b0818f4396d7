"""The commands that write a distilled set for the readers of other codes, and for any trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar.cli.shared import DryRun, SetFolder, say


def export(
    folder: SetFolder,
    layout: Annotated[str, typer.Option(help="minimax, rded, d4m, d3hr, or folder (named by class)")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must not be there yet")],
    dry_run: DryRun = False,
) -> None:
    """Write a distilled set as another code lays it out, for its own evaluation; `attar evaluate --layout` reads it."""
    from attar.sets.distilled import open_distilled
    from attar.sets.layouts import export as write

    write(open_distilled(folder), layout, out, say=say, dry_run=dry_run)


def expand(
    folder: SetFolder,
    out: Annotated[Path, typer.Option(help="Folder to write; it must not be there yet")],
    dry_run: DryRun = False,
) -> None:
    """Write the parts of a set of mosaics, enlarged, as an ordinary set, for any trainer."""
    from attar.sets.distilled import open_distilled
    from attar.sets.expand import expand as write

    write(open_distilled(folder), out, say=say, dry_run=dry_run)
