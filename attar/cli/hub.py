"""The commands that bring distilled sets to the Hugging Face hub, and from there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import FieldOptions, Settings, made
from attar.cli.shared import DryRun, SetFolder, say
from attar.sets.hub import Publication

Repository = Annotated[str, typer.Argument(help="A data set of the Hugging Face hub: owner/name", metavar="REPO")]


def push(
    folder: SetFolder,
    repository: Repository,
    publication: Annotated[Settings, FieldOptions(Publication, only=("licence", "private"))],
    results: Annotated[list[Path] | None, typer.Option("--results", help="Files written by evaluate --json")] = None,
    dry_run: DryRun = False,
) -> None:
    """Upload a distilled set to the Hugging Face hub, with a card of its method, settings, scores and near copies."""
    from attar.evaluation.records_file import read_records
    from attar.sets.distilled import open_distilled
    from attar.sets.hub import push as upload
    from attar.sets.hub_card import Score

    distilled = open_distilled(folder)
    records = [record for file in results or [] for record in read_records(file)]
    own = {record.identity: record for record in records if record.path == str(folder.resolve())}.values()
    scores = [
        Score(
            f"{record.network}, {record.protocol}",
            f"{record.accuracy} % (n = {record.n}, {record.n_test:,} test images)",
            f"{record.baseline.accuracy} %" if record.baseline else "",
        )
        for record in own
    ]
    wanted = made(Publication, {"repository": repository, **publication}, "push")
    upload(distilled, wanted, scores, say=say, dry_run=dry_run)


def pull(
    repository: Repository,
    out: Annotated[Path, typer.Option(help="Folder to write; it must not be there yet")],
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit of the repository")] = None,
) -> None:
    """Download a distilled set from the Hugging Face hub, and check every file against its manifest."""
    from attar.sets.hub import pull as download

    download(repository, out, revision, say=say)
