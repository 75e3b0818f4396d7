"""Addresses that fsspec opens, such as s3://bucket/set or file:///shared/set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attar.core.errors import AttarError, suggestion

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/")
"""Two letters or more: one is a drive of Windows."""


def is_url(text: str) -> bool:
    """Whether a text is an address, and no path or id of the hub."""
    found = _SCHEME.match(text)
    return found is not None and text.startswith("/", found.end())


def url_of(path: Path) -> str | None:
    """The address that was given where a path is taken, which costs it a slash; None of a real path."""
    found = _SCHEME.match(str(path))
    if found is None or path.exists():
        return None
    scheme, rest = found[1], str(path)[found.end() :]
    if scheme not in _protocols():
        return None
    return f"{scheme}://{'/' if scheme in ('file', 'local') else ''}{rest}"


def file_system(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        AttarError: no such protocol, a package for it is missing, or the address cannot be read.
    """
    import fsspec

    scheme, known = url.partition("://")[0], _protocols()
    if scheme not in known:
        raise AttarError(f"{url}: fsspec has no protocol {scheme!r}{suggestion(scheme, known)}")
    try:
        files, root = fsspec.url_to_fs(url)
    except ImportError as error:
        raise AttarError(f"{url}: needs a package that is not installed: {error}") from error
    except Exception as error:  # of whichever library it is opened with
        raise AttarError(f"{url}: cannot be opened: {' '.join(str(error).split())}") from error
    return files, str(root)


def _protocols() -> set[str]:
    """Those that fsspec knows, and those that others have told it of."""
    import fsspec

    return {*fsspec.available_protocols(), *fsspec.registry}
