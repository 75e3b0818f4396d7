"""The commands; flags are named nowhere else.

The commands are imported by `main`, so that an interruption of the imports ends well, too.
"""

from __future__ import annotations

import sys
from typing import Any


def main() -> None:
    """The command `attar`."""
    from attar.cli import failures

    failures.watch()
    try:
        from attar.cli.commands import app

        app()
    except BaseException as error:
        sys.exit(failures.report(error))


def __getattr__(name: str) -> Any:
    if name == "app":
        from attar.cli.commands import app

        return app
    raise AttributeError(f"module 'attar.cli' has no attribute {name!r}")
