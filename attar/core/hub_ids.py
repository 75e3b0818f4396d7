"""Names that may be those of a file or folder, or ids of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from attar.core.errors import AttarError, nearest, written_hint
from attar.core.files import expanded

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def check_there(source: str, name: str, known: Iterable[str] = ()) -> None:
    """Raises AttarError for the name of a file or folder that is not there; a name that may be a hub id passes.

    Args:
        known: words that may stand in its place, suggested for a mistyped one.
    """
    if not expanded(source).exists() and not _ID.fullmatch(source):
        raise AttarError(
            f"{name} {source}{near(source, known)}: there is no such file or folder; an id of the hub reads owner/name"
        )


def unloaded(source: str, what: str, error: Exception) -> str:
    """Why `what`, a file or folder or what the hub has of that id, could not be loaded, in words."""
    why = " ".join(str(error).split())
    if expanded(source).exists():
        return f"{source}: cannot be loaded as {what}: {why}"
    return (
        f"{source}{near(source)}: there is no such folder here, and from the hub it cannot be loaded as {what}: {why}"
    )


def near(source: str, known: Iterable[str] = ()) -> str:
    """ " (did you mean 'runs/prior-1'?)": what is called alike where an absent file or folder should be."""
    missing = expanded(source)
    while not missing.parent.exists():
        missing = missing.parent
    listable = missing.parent.is_dir() and os.access(missing.parent, os.R_OK | os.X_OK)
    there = os.listdir(missing.parent) if listable else []
    names = [str(missing.with_name(name)) for name in nearest(missing.name, there)]
    return written_hint([*nearest(source, known), *names][:3])
