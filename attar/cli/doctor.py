"""The command that looks whether this machine has what Attar needs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from attar import __version__
from attar.cli.shared import say, say_json


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts")] = False) -> None:
    """Look over this machine: versions, processor, threads, devices, memory, cache; and say what could be better.

    Put its output into bug reports.
    """
    from attar.core.machine import examined

    findings = examined(__version__)
    if as_json:
        say_json([asdict(finding) for finding in findings])
        return
    width = max(len(finding.about) for finding in findings)
    for finding in findings:
        say(f"{finding.about:<{width}}  {finding.state}")
        if finding.advice:
            say(f"{'':<{width}}  -> {finding.advice}")
