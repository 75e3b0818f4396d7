"""How much a command tells, and to whom: `--quiet` for people, `--stats` for programs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from attar.cli import failures
from attar.core.errors import AttarError, reason
from attar.core.files import writing

BEGINNING = '{"seconds": '
"""Of each line of a log for programs."""


def note(**what: Any) -> None:
    """Keeps a line for programs, with the seconds since the command began, where `--stats` asked for them."""
    if (file := failures.running.stats) is None:
        return
    seconds = round(time.time() - failures.running.begun, 3)
    _add(file, f"{json.dumps({'seconds': seconds, **what})}\n")


def _add(file: Path, line: str) -> None:
    try:
        with writing(file, "name another file with --stats"), file.open("a", encoding="utf-8") as lines:
            lines.write(line)
    except OSError as error:
        raise AttarError(f"--stats {file}: {reason(error)}; name a file in a folder that there is") from error


def _quiet(value: bool) -> None:
    failures.running.quiet = value


def _stats(value: Path | None) -> None:
    """Takes the file; what is no log of ours is not added to."""
    if value is not None and value.is_file() and value.stat().st_size:
        from attar.data.output_places import check_file

        check_file(value, "`stats`", BEGINNING, "a log of Attar's")
    failures.running.stats = value
    if value is not None:
        _add(value, "")


options = typer.Typer(add_completion=False)


@options.command()
def declared(
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Say nothing but warnings and errors", callback=_quiet)
    ] = False,
    stats: Annotated[
        Path | None,
        typer.Option(callback=_stats, help="Add what is said and done to this file, a line of JSON each, for programs"),
    ] = None,
) -> None:
    """Never called: it declares the options."""


def shared_options() -> list[Any]:
    """The options of every command that may be long."""
    params = [param for param in typer.main.get_command(options).params if param.name in ("quiet", "stats")]
    for param in params:
        param.expose_value = False
    return params
