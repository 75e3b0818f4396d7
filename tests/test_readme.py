"""What README and docs tell is there: targets of make, the Python interface, files; links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documented import COMMANDS, PAGES, ROOT, lines

from attar.methods import METHODS

README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
TARGETS = [line.split()[1] for page in PAGES for line in lines(page) if line.startswith("make ")]


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 60
    assert {"demo", "test"} <= set(TARGETS)


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


def test_every_method_has_its_row() -> None:
    table = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").partition("\n\nWhat holds")[0]
    rows = re.findall(r"^\| \[?`([\w-]+)`", table, re.MULTILINE)
    assert list(METHODS) == [name for name in METHODS if name in rows]


def test_it_is_short_and_its_picture_small() -> None:
    assert len(README.splitlines()) < 150
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert (ROOT / picture).stat().st_size < 200_000
