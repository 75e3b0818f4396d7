"""The command that makes distilled sets of any size from kept statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import ipcs_of, say, showing


def regenerate(
    folder: Annotated[Path, typer.Argument(help="A set that was distilled with --keep-statistics", metavar="DIR")],
    ipc: Annotated[str, typer.Option(help="Images per class; several as 1,10,50")],
    out: Annotated[Path, typer.Option(help="Folder to write; several IPCs go to OUT/ipc-001, OUT/ipc-010 ...")],
    prior: Annotated[str | None, typer.Option(help="Where the set's prior lies now, if it was moved")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness (default: the set's own)")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, estimate the cost, and stop")] = False,
) -> None:
    """Make sets of any IPC from the statistics kept with a d3hr set and its prior, without the data."""
    from attar.distill.regenerate import regenerate as run

    ipcs = ipcs_of(ipc)
    with showing() as progress:
        run(folder, ipcs, out, prior=prior, seed=seed, device=device, progress=progress, say=say, dry_run=dry_run)
