"""The commands that README and docs give, as words."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from string import Template
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Command(NamedTuple):
    """A line of a shell block that calls attar."""

    page: str
    words: tuple[str, ...]
    """From the command's name on; variables that the page sets are put in."""

    def __str__(self) -> str:
        return f"{self.page}: attar {' '.join(self.words)}"


def lines(page: Path) -> list[str]:
    """All lines of the page's shell blocks, continued ones joined, without prompts; of console blocks the input."""
    found: list[str] = []
    for kind, block in re.findall(r"^```(sh|console)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        of_block = block.replace("\\\n", " ").splitlines()
        found += of_block if kind == "sh" else [line[2:] for line in of_block if line.startswith("$ ")]
    return found


def commands(page: Path) -> list[Command]:
    """Those that call attar, by itself or by a launcher of processes."""
    told: list[Command] = []
    variables: dict[str, str] = {}
    for line in lines(page):
        words = shlex.split(line, comments=True)
        set_here = dict(word.split("=", 1) for word in words if re.match(r"[A-Z]+=", word))
        variables |= set_here
        words = [Template(word).safe_substitute(variables) for word in words[len(set_here) :]]
        if words[:1] == ["attar"]:
            told.append(Command(page.name, tuple(words[1:])))
        elif "-m" in words and words[words.index("-m") + 1] == "attar":
            told.append(Command(page.name, tuple(words[words.index("-m") + 2 :])))
    return told


COMMANDS = list({command.words: command for page in PAGES for command in commands(page)}.values())
