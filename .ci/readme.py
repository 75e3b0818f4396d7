"""Runs the commands of some sections of the README as it gives them, and looks for what they are to write.

Usage: PYTHON .ci/readme.py SECTION ...

The commands run in an empty folder, in the environment of PYTHON. `make test` is left out: it is a check of its own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
LEFT_OUT = "make test"
OUTPUTS = ("--out", "--json")


def commands(section: str) -> list[str]:
    """Those of the section's text above its first subsection."""
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^##)", readme, re.MULTILINE | re.DOTALL)
    if not found:
        sys.exit(f"README.md has no section '{section}'")
    blocks = re.findall(r"^```sh\n(.*?)^```", found[1], re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    told = [" ".join(shlex.split(line, comments=True)) for line in lines]
    if not any(told):
        sys.exit(f"README.md gives no commands in '{section}'")
    return [line for line, words in zip(lines, told, strict=True) if words and words != LEFT_OUT]


def outputs(command: str) -> list[Path]:
    """What the command is told to write."""
    words = shlex.split(command, comments=True)
    if words[:2] == ["make", "demo"]:
        return [Path("demo/report.html"), Path("demo/results.json")]
    return [Path(value) for flag, value in pairwise(words) if flag in OUTPUTS]


def main(sections: list[str], folder: Path) -> None:
    environment = Path(sys.prefix)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy2(CHECKOUT / name, folder)
    os.chdir(folder)
    os.environ["PATH"] = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    os.environ["VENV"] = str(environment)
    os.environ.setdefault("ATTAR_CACHE", str(folder / "cache"))
    for command in (line for section in sections for line in commands(section)):
        print(f"$ {command}", flush=True)
        begun = time.monotonic()
        done = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            sys.exit(f"README.md: exit {done.returncode} from: {command}")
        if missing := [str(path) for path in outputs(command) if not path.exists()]:
            sys.exit(f"README.md: {', '.join(missing)} was not written by: {command}")
        print(f"  {time.monotonic() - begun:.0f} s", flush=True)
    print(f"README.md: the commands of {' and '.join(sections)} work", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(sys.argv[1:], Path(scratch))
