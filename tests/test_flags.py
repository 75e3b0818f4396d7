"""Options are made from fields, and messages name fields: only the command line speaks of flags."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
from toys import attar
from typer.testing import CliRunner

import attar as package
from attar.cli.commands import COMMANDS, app, built
from attar.cli.flags import Assignments, FieldOptions, Settings, made
from attar.cli.naming import Names
from attar.core.config import notes
from attar.core.engine import Engine
from attar.core.errors import AttarError
from attar.distillation.regenerate import Overrides
from attar.evaluation.conditions import Conditions
from attar.experiments.settings import Protocol, Tuning
from attar.job import Spec
from attar.methods import METHODS
from attar.priors.training.settings import AdaptedPrior, Autoencoding, NewPrior, Report, Training
from attar.teachers.reference import TeacherReference
from attar.teachers.settings import TeacherTraining

PACKAGE = Path(package.__file__).parent
SHELL = {
    "report/manifest_rows.py": "the commands that made a set and judged it, to copy",
    "experiments/tuned.py": "the command that distills by what was chosen, to copy",
    "evaluation/recipes.py": "where recipes are from: options of other codes, and ours",
    "report/page.py": "variables of a style sheet",
    "report/charts.py": "variables of a style sheet",
}
"""Files below cli/ in whose strings two dashes may stand, and what for."""


@dataclass(frozen=True)
class Part:
    every: int | None = None
    """Steps between two of them; none: one at the end."""


@dataclass(frozen=True)
class Thing:
    data: str
    """Images [any] of *these* kinds."""
    count: int = 3
    """Number of them, as many as `out_size` <at most>."""
    names: tuple[str, ...] = ("a", "b")
    """Their names."""
    on: bool = True
    """Whether it is on."""
    out_size: float | None = None
    """Side, in pixels; none: their own."""
    part: Part = Part()
    """How it is looked at."""


MADE: list[Thing] = []
ThingFields = FieldOptions(Thing, renamed={"part.every": "report_every"})


def command(
    settings: Annotated[Settings, ThingFields],
    sets: Annotated[dict[str, Any], Assignments("Any other field", lambda _: Thing("x"))],
    config: Path | None = None,
) -> None:
    """Make a [thing]."""
    MADE.append(made(Thing, {**settings, **sets}, "command"))


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setitem(COMMANDS, "command", command)
    return CliRunner().invoke(app, ["command", *words], env={"COLUMNS": "200"})


def test_a_field_is_the_same_from_python_toml_and_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    MADE.clear()
    config = tmp_path / "thing.toml"
    config.write_text(
        'data = "d"\ncount = 7\nnames = ["x", "y"]\non = false\nreport-every = 5\n[set]\nout_size = 2.5\n'
    )
    words = "--data d --count 7 --names x --names y --no-on --report-every 5 --set out_size=2.5"
    assert run(monkeypatch, "--config", str(config)).exit_code == 0
    assert run(monkeypatch, *words.split()).exit_code == 0
    assert run(monkeypatch, "--config", str(config), "--count", "8", "--names", "x,z").exit_code == 0
    wanted = Thing("d", 7, ("x", "y"), False, 2.5, Part(5))
    assert [wanted, wanted, Thing("d", 8, ("x", "z"), False, 2.5, Part(5))] == MADE


def test_help_shows_notes_and_defaults_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = " ".join(run(monkeypatch, "--help").output.split())
    for written in (
        "Make a [thing].",
        "--data <str> Images [any] of *these* kinds --",
        "--count <int> Number of them, as many as --out-size <at most> [default: 3] --",
        "--names <str> Their names [default: a,b] --",
        "--on / --no-on Whether it is on [default: on] --",
        "--out-size <float> Side, in pixels; none: their own --",
        "--report-every <int> Steps between two of them; none: one at the end --",
    ):
        assert written in shown


def test_what_is_missing_or_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for words, said in (
        ([], "`data` is missing (on the command line or in `config`)"),
        (["--data", "d", "--count", "many"], "command.count = 'many': must be a whole number"),
        (["--data", "d", "--out-size", "x"], "command.out_size = 'x': must be a number, or none"),
    ):
        assert str(run(monkeypatch, *words).exception) == said


NAMES = Names({"tile": "--tile", "baseline": "--baseline"}, {"--set": lambda _: METHODS.open("exemplars")})


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("`tile` 0: at least 1", "--tile 0: at least 1"),
        ("give `tile=3`, or `tile = 4`", "give --tile 3, or --tile 4"),
        ("evaluate with `baseline=false`", "evaluate with --no-baseline"),
        ("`fit.count` 3", "--set fit.count 3"),
        ("name it with `select.pool=DIR`", "name it with --set select.pool=DIR"),
        ("`noise_level` 3", "`noise_level` 3"),
        ("`lr` is a part's, of one part", "--set refine.lr is a part's, of one part"),
        ("`teacher` may be that of several parts", "`teacher` may be that of several parts"),
        ("`attar relabel` makes them", "`attar relabel` makes them"),
        ("tile 3", "tile 3"),
    ],
)
def test_a_field_in_backticks_is_called_by_what_sets_it(text: str, spoken: str) -> None:
    assert NAMES.spoken(text, {}) == spoken


def test_an_error_names_the_field_and_the_command_line_its_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "`class_map` map.toml: not a table of data class names"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    Path("map.toml").write_text('["three"]\n')
    Path("map.json").write_text("[3]")
    with pytest.raises(AttarError, match=f"^{re.escape(said.replace('.toml', '.json'))}$"):
        package.distill("digits", method="prior", ipc=1, out="out", prior="digits", class_map="map.json", dry_run=True)
    words = ["--data", "digits", "--method", "prior", "--prior", "digits", "--ipc", "1", "--out", "out", "--dry-run"]
    assert attar(monkeypatch, "distill", *words, "--class-map", "map.json") == 2
    assert "error: --class-map map.json: not a table of data class names\n" in capsys.readouterr().err
    Path("file.toml").write_text(
        'data = "digits"\nipc = 1\nout = "out"\ntile = 0\n[methods.random]\n'
        '[evaluations.quick]\nnetworks = ["convnet3"]\n'
    )
    assert attar(monkeypatch, "compare", "file.toml") == 2
    assert "error: file.toml: `tile` 0: at least 1\n" in capsys.readouterr().err


def test_a_field_of_the_method_is_called_by_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", "digits", "--ipc", "1", "--out", tmp_path / "out"]
    assert attar(monkeypatch, "distill", *words, "--method", "confident") == 2
    assert "name it with --set select.teacher=DIR" in capsys.readouterr().err
    assert attar(monkeypatch, "distill", *words, "--method", "confident", "--set", "select.teacher=nowhere") == 2
    assert "error: --set select.teacher nowhere: there is no such folder" in capsys.readouterr().err
    assert attar(monkeypatch, "distill", *words, "--method", "rded", "--set", "teacher=nowhere") == 2
    assert "error: --set teacher nowhere: there is no such folder" in capsys.readouterr().err


def strings(source: str) -> list[str]:
    """The constant texts of a file but its docstrings, the notes of fields among them."""
    tree = ast.parse(source)
    docs = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in docs)
    return [node.value for node in nodes if isinstance(node.value, str)]


def test_the_walk_finds_a_flag_in_a_message_alone() -> None:
    source = 'def f(x):\n    """As --tile."""\n    raise AttarError(f"--tile {x}: at least 1")\n'
    assert [text for text in strings(source) if "--" in text] == ["--tile "]


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_flag_is_named_below_the_command_line(file: Path) -> None:
    place = str(file.relative_to(PACKAGE))
    if place.startswith("cli/") or place in SHELL:
        return
    assert not [text for text in strings(file.read_text(encoding="utf-8")) if re.search(r"(?<![-\w])--[a-z]", text)]


@pytest.mark.parametrize(
    "thing",
    [
        Engine,
        Spec,
        NewPrior,
        AdaptedPrior,
        Training,
        Autoencoding,
        Report,
        TeacherTraining,
        TeacherReference,
        Conditions,
        Protocol,
        Tuning,
        Overrides,
    ],
)
def test_every_field_that_an_option_is_made_of_has_a_note(thing: type) -> None:
    written = notes(thing)
    for field in fields(thing):
        note = written[field.name]
        assert note[0].isupper(), f"{field.name}: a full phrase"
        assert note.endswith("."), f"{field.name}: a full phrase"


def test_every_option_has_a_help_text() -> None:
    for name in COMMANDS:
        assert all(param.help for param in built(name).params), name


def test_options_of_a_command_are_read_without_torch() -> None:
    """And only those of the command that is asked for."""
    code = (
        "import sys; from attar.cli import commands; sys.argv = ['attar', 'train-prior', '--help'];"
        "asked = []; build = commands.built; commands.built = lambda name: asked.append(name) or build(name)\n"
        "try: commands.app()\n"
        "except SystemExit: pass\n"
        "assert asked == ['train-prior'], asked\n"
        "for name in commands.COMMANDS: build(name)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
