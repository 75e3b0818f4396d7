"""The command that compares methods."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated

import typer

from attar.cli import failures
from attar.cli.flags import made
from attar.cli.shared import DryRun, Engines, say, showing
from attar.core.engine import Engine
from attar.experiments import spec


def compare(
    file: Annotated[Path, typer.Argument(help="A TOML file (its keys: below)", metavar="FILE.toml")],
    engines: Engines,
    only: Annotated[
        list[str] | None, typer.Option(help="Run only this method, by its label; several: repeat it")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Compare methods: distill and evaluate all that a TOML file names, and write tables and figures of it.

    Run the same command again after an interruption: it goes on where it was, and does nothing twice.
    """
    from attar.report.written_experiments import compare_and_write

    asked, engine = spec.read_experiment(file), made(Engine, engines, "compare")
    failures.running.options["out"] = asked.out
    with showing() as progress:
        failed = compare_and_write(asked, only=only or (), progress=progress, say=say, dry_run=dry_run, engine=engine)
    if failed:
        say("\n".join([f"{len(failed)} failed:", *(f"  {failure}" for failure in failed)]))
        raise typer.Exit(1)


_KEYS = "\n\n".join(f"\b\n{part}" for part in (spec.__doc__ or "").split("\n\n"))  # \b: not to be wrapped
compare.__doc__ = f"{inspect.getdoc(compare)}\n\n{_KEYS}"
