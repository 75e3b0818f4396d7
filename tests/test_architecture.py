"""Imports run downward only, importing does nothing, and files stay small."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "attar"
PAGE = ROOT / "docs" / "architecture.md"
FLOORS = (
    {"cli"},
    {"api"},
    {"report"},
    {"experiments"},
    {"distillation"},
    {"methods"},
    {"evaluation"},
    {"sets"},
    {"selection"},
    {"job"},
    {"teachers"},
    {"priors"},
    {"data", "diffusion", "networks", "training"},
    {"core"},
)
"""The rooms, from the top: a file imports from lower floors and from its own room, for its types too."""

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file not in (PACKAGE / "__init__.py", PACKAGE / "__main__.py"))


def _house() -> Any:
    spec = importlib.util.spec_from_file_location("house", ROOT / "docs" / "house.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


house = _house()


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def upward(file: Path, source: str) -> set[str]:
    """The rooms that a file must not import: unknown ones, those above it, and others on its floor."""
    own = FLOOR[room_of(file)]
    return {room for room in house.imported_by(source) - {room_of(file)} if FLOOR.get(room, -1) <= own}


def test_the_rooms_are_those_that_the_house_has() -> None:
    assert {room_of(file) for file in FILES} == set(FLOOR)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_run_downward(file: Path) -> None:
    assert not upward(file, file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        "from attar.cli import flags",
        "from attar import cli",
        "import attar.distillation.run",
        "def f():\n    from attar.methods import base",
        "if TYPE_CHECKING:\n    from attar.job import Job",
        "from attar.nowhere import thing",
        "from attar.networks import build",
    ],
)
def test_the_walk_finds_an_arrow_that_does_not_run_downward(source: str) -> None:
    assert upward(PACKAGE / "data" / "spec.py", source)


def files_in_a_circle(sources: dict[str, str]) -> set[str]:
    """The modules that reach themselves by their imports, those for types and in functions included."""
    reached = {name: house.modules_imported_by(source, sources.keys()) - {name} for name, source in sources.items()}
    for through in sources:
        for others in reached.values():
            if through in others:
                others |= reached[through]
    return {module for module, others in reached.items() if module in others}


def test_files_import_one_another_in_no_circle() -> None:
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}
    assert not files_in_a_circle({name: file.read_text(encoding="utf-8") for name, file in names.items()})


@pytest.mark.parametrize("form", ["from a.b import {}", "import a.b.{}", "def f():\n    from a.b.{} import thing"])
def test_a_circle_of_files_is_found(form: str) -> None:
    sources = {f"a.b.{name}": form.format(other) for name, other in (("x", "y"), ("y", "z"), ("z", "x"))}
    assert files_in_a_circle({**sources, "a.b.w": form.format("x")}) == set(sources)


def test_the_page_shows_the_house_as_it_stands() -> None:
    assert house.drawn() in PAGE.read_text(encoding="utf-8"), "run `python docs/house.py`"


def test_the_page_names_files_that_there_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = re.findall(r"[a-z0-9_/]+/[a-z0-9_]+\.py", text)
    assert len(named) > 15
    assert not [
        name for name in named if not (PACKAGE / name.removeprefix("attar/")).exists() and not (ROOT / name).exists()
    ]


def test_rooms_in_a_circle_have_no_floors() -> None:
    with pytest.raises(ValueError, match="a circle among first, second"):
        house.floors({"top": {"first"}, "first": {"second"}, "second": {"first"}})


SAME = {"build", "latent_space", "load", "names", "sample", "splits"}
"""Functions of one job in several files: of each form of a prior, each data source, each library of networks ..."""


def defined_twice(sources: dict[str, str]) -> set[str]:
    """The public classes, types and functions that two files define, though neither is a command or the API."""
    files: dict[str, set[str]] = {}
    for file, source in sources.items():
        for node in ast.parse(source).body:
            named = (
                [target.id for target in node.targets if isinstance(target, ast.Name)]
                if isinstance(node, ast.Assign)
                else []
            )
            names = [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else named
            for name in names:
                if not name.startswith("_") and not name.isupper():
                    files.setdefault(name, set()).add(file)
    return {name for name, where in files.items() if len(where) > 1}


def test_one_name_means_one_thing() -> None:
    """But a command, its function of the API, and what they both call have one verb."""
    own = [file for file in FILES if room_of(file) not in ("cli", "api")]
    assert defined_twice({str(file): file.read_text(encoding="utf-8") for file in own}) <= SAME


def test_a_name_of_two_things_is_found() -> None:
    assert defined_twice({"a": "class Row: ...", "b": "Row = tuple[str, str]", "c": "def row(): ..."}) == {"Row"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_fits_in_a_head(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 500


def unwieldy(source: str, signatures: bool = True) -> list[str]:
    """Functions of more than 40 lines or 8 parameters; without their signatures, those of more than 40 lines below."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and node.body[1:] else node.body
            lines = (node.end_lineno or 0) - (node.lineno if signatures else body[0].lineno) + 1
            parameters = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
            parameters -= bool(node.args.args) and node.args.args[0].arg in ("self", "cls")
            if lines > 40 or (signatures and parameters > 8):
                names.append(node.name)
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_function_fits_on_a_screen(file: Path) -> None:
    """A command's signature is what a user can say, however much that is."""
    assert not unwieldy(file.read_text(encoding="utf-8"), signatures=room_of(file) not in ("cli", "api"))


def test_an_unwieldy_function_is_found() -> None:
    long, wide = "def f():\n" + "    x = 1\n" * 40, f"def f({', '.join('abcdefghi')}):\n    pass\n"
    assert unwieldy(long) == unwieldy(wide) == ["f"]
    assert not unwieldy(long, signatures=False)
    assert not unwieldy(wide.replace("(a", "(self"))


@pytest.mark.parametrize(
    "code",
    [
        "import attar",
        "import attar.cli, typer.testing; "
        "assert typer.testing.CliRunner().invoke(attar.cli.app, ['--help']).exit_code == 0",
        "from attar.cli.lists import list_; list_('methods'); list_('recipes'); list_('networks')",
    ],
)
def test_no_torch_until_it_is_needed(code: str) -> None:
    check = f"{code}; import sys; assert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_leaves_the_generators_alone() -> None:
    code = (
        "import random, numpy, torch; random.seed(1); numpy.random.seed(1); torch.manual_seed(1);"
        "before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist();"
        "import attar.distillation.run, attar.distillation.pipeline, attar.evaluation.evaluator;"
        "import attar.methods.d3hr.method, attar.priors.training.train;"
        "assert before == (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist());"
        "assert not torch.cuda.is_initialized()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
