"""The commands that the README and the guide tell are commands that there are; links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from attar.cli.commands import built
from attar.methods import METHODS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("guide", "photographs"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCKS = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)).replace("\\\n", " ")
COMMANDS = [line for line in BLOCKS.splitlines() if line.startswith("attar ")]
TARGETS = re.findall(r"^make (\w+)", BLOCKS, re.MULTILINE)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 20
    assert {"demo", "test"} <= set(TARGETS)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_understood(command: str) -> None:
    name, *words = shlex.split(command, comments=True)[1:]
    built(name).make_context(name, words)


@pytest.mark.parametrize("target", TARGETS)
def test_its_make_targets_are_there(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_its_python_is_the_interface_that_there_is() -> None:
    import inspect

    import attar

    for name, words in re.findall(r"attar\.(\w+)\(([^)]*)\)", TEXT):
        if name not in attar.__all__:
            continue
        keywords = set(re.findall(r"(\w+)=", re.sub(r"\{.*?\}", "", words)))
        assert keywords <= set(inspect.signature(getattr(attar, name)).parameters)


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


def test_every_method_has_its_row() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs" / "methods.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert list(METHODS) == [name for name in METHODS if name in rows]


def test_it_is_short_and_its_picture_small() -> None:
    assert len(README.splitlines()) < 150
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert (ROOT / picture).stat().st_size < 200_000
