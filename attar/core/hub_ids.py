"""Names that may be those of a file or folder, or ids of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal

from attar.core.errors import AttarError, similar_names, written_hint
from attar.core.files import expand_user

PATIENCE = 5.0
"""Seconds that the hub has to answer in."""
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def check_there(source: str, name: str, known: Iterable[str] = ()) -> None:
    """Raises AttarError for the name of a file or folder that is not there, nor a repository of the hub.

    Where the hub has to be asked and cannot be reached, that is an error too. An id passes that is in its local cache,
    and any id where HF_HUB_OFFLINE says that it is not to be asked.

    Args:
        known: words that may stand in its place, suggested for a mistyped one.
    """
    if not source:
        raise AttarError(f"{name} is empty: name a file or folder, or an id of the hub")
    if expand_user(source).exists():
        return
    if not _ID.fullmatch(source):
        raise AttarError(
            f"{name} {source}{near(source, known)}: there is no such file or folder; an id of the hub reads owner/name"
        )
    if why := why_not_on_hub(source):
        raise AttarError(f"{name} {source}{near(source, known)}: there is no such folder here, and {why}")


def check_id(repository: str) -> None:
    """Raises AttarError for what cannot be the id of a repository."""
    if not _ID.fullmatch(repository) or ".." in repository or "--" in repository:
        raise AttarError(f"`repository` {repository}: an id of the hub reads owner/name")


def why_not_on_hub(repository: str, kind: Literal["model", "dataset"] = "model") -> str:
    """Why a repository of the hub cannot be loaded, as far as one short question tells; "" where it may be.

    Loading it without asking would wait half a minute for each file where the hub cannot be reached. Where it cannot
    and the repository is in the local cache, the hub is not asked again in this process.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    cached = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repository.replace('/', '--')}"
    if constants.HF_HUB_OFFLINE:
        return ""
    try:
        _ask(repository, kind)
    except RepositoryNotFoundError:
        return "the hub has none of this name, or it is private (`hf auth login`)"
    except HfHubHTTPError:  # it answers: whoever loads the files says what is wrong
        return ""
    except Exception as error:  # of whichever library it is asked with
        if cached.is_dir():
            constants.HF_HUB_OFFLINE = True
            return ""
        return f"the hub cannot be reached ({' '.join(str(error).split())}); name a folder, or go online"
    return ""


@lru_cache
def _ask(repository: str, kind: str) -> None:
    from huggingface_hub import HfApi

    HfApi().repo_info(repository, repo_type=kind, timeout=PATIENCE)


def unloaded(source: str, what: str, error: Exception) -> str:
    """Why `what`, a file or folder or what the hub has of that id, could not be loaded, in words."""
    why = " ".join(str(error).split())
    if expand_user(source).exists():
        return f"{source}: cannot be loaded as {what}: {why}"
    return (
        f"{source}{near(source)}: there is no such folder here, and from the hub it cannot be loaded as {what}: {why}"
    )


def near(source: str, known: Iterable[str] = ()) -> str:
    """ " (did you mean 'runs/prior-1'?)": what is called alike where an absent file or folder should be.

    Of a link that is there all the same: that it leads nowhere.
    """
    missing = whole = expand_user(source)
    if lost := next((path for path in (whole, *whole.parents) if path.is_symlink() and not path.exists()), None):
        return f" ({'a' if lost == whole else f'{lost}: a'} link that leads nowhere)"
    while not missing.parent.exists():
        missing = missing.parent
    listable = missing.parent.is_dir() and os.access(missing.parent, os.R_OK | os.X_OK)
    names = os.listdir(missing.parent) if listable else []
    alike = [missing.with_name(name) for name in similar_names(missing.name, names)]
    whole_paths = [path / whole.relative_to(missing) for path in alike]
    existing = [str(path) for path in whole_paths if path.exists()]
    if not existing and not (missing != whole and _ID.fullmatch(source)):  # the owner of an id is no mistyped folder
        existing = list(map(str, alike))
    return written_hint([*similar_names(source, known), *existing][:3])
