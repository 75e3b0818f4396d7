"""The command that makes a distilled set again and compares both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attar.cli.flags import Assignments, FieldOptions, Settings, made
from attar.cli.shared import DryRun, SetFolder, say, showing
from attar.distillation.reproduce import MadeAgain
from attar.methods import METHODS

if TYPE_CHECKING:
    from attar.methods.base import Method


def _its_method(options: Mapping[str, Any]) -> Method:
    from attar.sets.distilled import open_distilled

    return METHODS.open(open_distilled(Path(options["folder"])).manifest["method"]["name"])


def reproduce(
    folder: SetFolder,
    out: Annotated[Path, typer.Option(help="Folder for the set that is made now")],
    places: Annotated[Settings, FieldOptions(MadeAgain)],
    sets: Annotated[
        dict[str, Any],
        Assignments("A field that the manifest cannot hold: --set teacher=FOLDER, of rded", _its_method),
    ],
    dry_run: DryRun = False,
) -> None:
    """Make a distilled set again from its manifest, and say whether its images have the same bytes.

    On the same kind of device, with the same versions, they have. Elsewhere it says how far they differ, and what is
    otherwise. It ends with 1 where images differ though nothing else does.
    """
    from attar.distillation.reproduce import reproduce as run

    where = made(MadeAgain, places, "reproduce")
    with showing() as progress:
        result = run(folder, out, where, sets, progress=progress, say=say, dry_run=dry_run)
    if result is not None:
        say(str(result))
        raise typer.Exit(1 if result.differences and not result.otherwise else 0)
