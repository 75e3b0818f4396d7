"""The documentation site: what its pages name is there. `make docs` builds it and looks at every link."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import attar

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


@pytest.fixture(scope="module")
def hook() -> Any:
    spec = importlib.util.spec_from_file_location("pages", DOCS / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_code_that_pages_show_is_there(hook: Any) -> None:
    shown = [found for page in PAGES for found in hook.CODE.findall(page.read_text(encoding="utf-8"))]
    assert len(shown) >= 15
    assert all(hook.code(file, name).strip() for file, name in shown)


def test_code_is_shown_without_its_docstring(hook: Any) -> None:
    lines = hook.code("attar/methods/mgd3.py", "TowardMode.__call__").splitlines()
    assert lines[0].startswith("def __call__(self, move: Move")
    assert lines[-1] == "    return self.scale * kept * move.deviation * (aims - move.clean)"
    assert not any('"""' in line for line in hook.code("attar/methods/d4m.py", "Prototypes.run").splitlines())


def test_code_that_is_gone_is_named(hook: Any) -> None:
    with pytest.raises(LookupError, match=r"attar/methods/mgd3.py has no TowardMode.gone"):
        hook.code("attar/methods/mgd3.py", "TowardMode.gone")


@pytest.mark.parametrize("page", sorted((DOCS / "methods").glob("*.md")), ids=lambda page: page.stem)
def test_a_method_has_equations_beside_code(page: Path, hook: Any) -> None:
    text = page.read_text(encoding="utf-8")
    assert hook.MATH.search(text)
    assert hook.CODE.search(text)


def test_every_command_of_an_equation_is_drawn(hook: Any) -> None:
    pytest.importorskip("latex2mathml")
    for page in PAGES:
        drawn = [hook._drawn(latex) for latex in hook.MATH.findall(page.read_text(encoding="utf-8"))]
        assert not any("\\" in equation for equation in drawn), page


def test_the_interface_is_there_whole() -> None:
    named = re.findall(r"^::: [\w.]+\.(\w+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(set(attar.__all__) - {"__version__"})


def test_commands_of_the_tutorial_stand_elsewhere() -> None:
    def commands(page: Path) -> set[str]:
        blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        return {" ".join(shlex.split(line, comments=True)) for block in blocks for line in block.splitlines()}

    told = commands(DOCS / "tutorial.md") - {"pip install -e .", "attar doctor"}
    assert told
    assert told <= commands(DOCS / "photographs.md") | commands(ROOT / "README.md")


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f"{page.relative_to(DOCS).as_posix()}\n" in contents for page in PAGES)
