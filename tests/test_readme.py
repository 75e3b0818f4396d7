"""The commands that the README tells a newcomer are commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from attar.cli.commands import built

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
COMMANDS = [line for line in BLOCKS.splitlines() if line.startswith("attar ")]
TARGETS = re.findall(r"^make (\w+)", BLOCKS, re.MULTILINE)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 5
    assert {"demo", "test"} <= set(TARGETS)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_understood(command: str) -> None:
    name, *words = shlex.split(command, comments=True)[1:]
    built(name).make_context(name, words)


@pytest.mark.parametrize("target", TARGETS)
def test_its_make_targets_are_there(target: str) -> None:
    assert re.search(rf"^{target}:", (Path(__file__).parent.parent / "Makefile").read_text(), re.MULTILINE)


def test_its_python_is_the_interface_that_there_is() -> None:
    import inspect

    import attar

    for name, words in re.findall(r"attar\.(\w+)\(([^)]*)\)", README):
        if name not in attar.__all__:
            continue
        keywords = set(re.findall(r"(\w+)=", re.sub(r"\{.*?\}", "", words)))
        assert keywords <= set(inspect.signature(getattr(attar, name)).parameters)
