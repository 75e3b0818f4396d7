"""The command that looks for near copies of real images in distilled sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from attar.cli.shared import Device, DryRun, SetFolders, TeacherOption, named_teacher, say, showing
from attar.core.errors import AttarError, suggestion

if TYPE_CHECKING:
    from attar.selection.features import FeatureKind

KINDS = ("pixels", "teacher", "prior", "latents")


def nearest(
    folders: SetFolders,
    teacher: TeacherOption,
    device: Device,
    features: Annotated[
        str | None,
        typer.Option(
            help="What is compared: pixels, teacher, prior, latents; several as pixels,prior (default pixels)"
        ),
    ] = None,
    prior: Annotated[str | None, typer.Option(help="The prior to ask, if not the one that made the set")] = None,
    dry_run: DryRun = False,
) -> None:
    """Measure how far each image is from the nearest real one of its class; `attar report` shows what was found.

    It also says which share of the real images a set covers (those that are nearer to one of its images than to their
    fifth neighbour), how far its images are from one another, and how sure a teacher is of them; and draws, for the
    report, a map of each class: where the set's images and its prototypes lie among the real ones.
    """
    from attar.sets.distilled import find_distilled
    from attar.sets.near_copies import Metrics, folder_of
    from attar.sets.near_copies import nearest as measured

    kinds = list(dict.fromkeys((features or "pixels").split(",") + (["teacher"] if teacher else [])))
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise AttarError(f"`features` {unknown[0]}{suggestion(unknown[0], KINDS)}: choose among {', '.join(KINDS)}")
    metrics = Metrics(cast("tuple[FeatureKind, ...]", tuple(kinds)), named_teacher(teacher), prior, **device)
    for distilled in [distilled for folder in folders for distilled in find_distilled(folder)]:
        with showing() as progress:
            measures = measured(distilled, metrics, progress=progress, say=say, dry_run=dry_run)
        for measure in measures:
            say(f"{distilled.folder}: {measure}")
        if not dry_run:
            say(f"wrote {folder_of(distilled)}")
