"""The commands that bring distilled sets to the Hugging Face hub or to a URL, and from there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from attar.cli.flags import FieldOptions, Settings, made
from attar.cli.shared import DryRun, SetFolder, say
from attar.core.errors import AttarError
from attar.core.urls import is_url
from attar.sets.hub import Publication

Repository = Annotated[
    str,
    typer.Argument(
        help="A data set of the Hugging Face hub, owner/name; or a URL that fsspec opens, s3://bucket/set",
        metavar="REPO|URL",
    ),
]


def push(
    folder: SetFolder,
    repository: Repository,
    publication: Annotated[Settings, FieldOptions(Publication, only=("licence", "private"))],
    results: Annotated[list[Path] | None, typer.Option("--results", help="Files written by evaluate --json")] = None,
    dry_run: DryRun = False,
) -> None:
    """Upload a distilled set to the Hugging Face hub, with a card of settings, scores and near copies, or to a URL."""
    from attar.evaluation.records_file import read_records
    from attar.sets.distilled import open_distilled
    from attar.sets.hub import push as upload
    from attar.sets.hub_card import Score
    from attar.sets.urls import push_to_url

    distilled = open_distilled(folder)
    if _is_url(repository, {"results": results, **publication}):
        push_to_url(distilled, repository, say=say, dry_run=dry_run)
        return
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
    """Download a distilled set from the Hugging Face hub or a URL, and check every file against its manifest."""
    from attar.sets.hub import pull as download
    from attar.sets.urls import pull_from_url

    if _is_url(repository, {"revision": revision}):
        pull_from_url(repository, out, say=say)
    else:
        download(repository, out, revision, say=say)


def _is_url(place: str, of_the_hub: Mapping[str, object]) -> bool:
    """Whether a set goes to or comes from a URL.

    Raises:
        AttarError: an option is given with it that says something to the hub alone.
    """
    if not is_url(place) or place.startswith("https://huggingface.co/"):
        return False
    if given := [name for name, value in of_the_hub.items() if value]:
        raise AttarError(f"`{given[0]}` is for the hub, and {place} is none of its repositories: leave it out")
    return True
