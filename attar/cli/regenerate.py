"""The command that makes distilled sets of any size from kept statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import Device, DryRun, Ipc, Sets, ipcs_of, say, showing


def regenerate(
    folder: Annotated[Path, typer.Argument(help="A set that was distilled with --keep-statistics", metavar="DIR")],
    ipc: Ipc,
    out: Sets,
    device: Device,
    prior: Annotated[str | None, typer.Option(help="Where the set's prior lies now, if it was moved")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness; none: the set's own")] = None,
    dry_run: DryRun = False,
) -> None:
    """Make sets of any IPC from the statistics kept with a d3hr set and its prior, without the data."""
    from attar.distillation.regenerate import regenerate as run

    ipcs = ipcs_of(ipc)
    with showing() as progress:
        run(folder, ipcs, out, prior=prior, seed=seed, **device, progress=progress, say=say, dry_run=dry_run)
