"""Startup: processes from nothing until they could begin."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.timing import Case, Where

SIZES = {"tiny": "--help", "small": "list methods"}
"""What `attar` is asked."""


def case(size: str, where: Where) -> Case:
    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

    return Case(
        ours=lambda: run(
            f"import sys; sys.argv = {['attar', *SIZES[size].split()]!r}\nfrom attar.cli import main\nmain()"
        ),
        best={"import torch": lambda: run("import torch")},
        straight=lambda: run("import torch, torchvision, diffusers; from diffusers import DiTPipeline"),
        work=f"attar {SIZES[size]}",
    )
