"""The command that makes distilled sets of any size from kept statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import FieldOptions, Settings, made
from attar.cli.shared import DryRun, Ipc, Sets, ipcs_of, say, showing
from attar.distillation.regenerate import Overrides


def regenerate(
    folder: Annotated[Path, typer.Argument(help="A set that was distilled with --keep-statistics", metavar="DIR")],
    ipc: Ipc,
    out: Sets,
    overrides: Annotated[Settings, FieldOptions(Overrides)],
    dry_run: DryRun = False,
) -> None:
    """Make sets of any IPC from the statistics kept with a d3hr set and its prior, without the data."""
    from attar.distillation.regenerate import regenerate as run

    ipcs, chosen = ipcs_of(ipc), made(Overrides, overrides, "regenerate")
    with showing() as progress:
        run(folder, ipcs, out, chosen, progress=progress, say=say, dry_run=dry_run)
