"""What the package promises to those who install it: its interface, its types, the files beside its code."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path

import pytest

import attar

GUIDE = (Path(__file__).parent.parent / "docs" / "guide.md").read_text(encoding="utf-8")


def test_the_interface_is_the_one_that_the_guide_lists() -> None:
    table = GUIDE.partition("## The Python interface")[2]
    named = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(attar.__all__)


@pytest.mark.parametrize("name", sorted(set(attar.__all__) - {"__version__"}))
def test_every_name_of_it_is_there_and_says_what_it_does(name: str) -> None:
    assert (getattr(attar, name).__doc__ or "").strip()


def test_the_version_is_a_semantic_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[\w.]+)?", attar.__version__)


@pytest.mark.parametrize("file", ["py.typed", "report/template.html.jinja", "report/page.css", "report/page.js"])
def test_files_beside_the_code_are_in_the_package(file: str) -> None:
    assert importlib.resources.files("attar").joinpath(file).is_file()
