"""Imports run downward only, importing does nothing, and files stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "attar"
HOUSE = (
    {"cli"},
    {"cli_describe"},
    {"demo", "api"},
    {"comparison"},
    {"report", "bar"},
    {"nearest", "relabel", "regenerate"},
    {"results", "run"},
    {"experiment"},
    {"plan", "estimate", "layouts", "pictures"},
    {"cost"},
    {"driver"},
    {"methods"},
    {"job"},
    {"selection"},
    {"features"},
    {"evaluation"},
    {"teachers", "soft_labels"},
    {"priors"},
    {"training"},
    {"networks", "augment", "label_schemes"},
    {"diffusion", "latents"},
    {"codec"},
    {"tile"},
    {"places"},
    {"distilled", "engine"},
    {"manifest"},
    {"data"},
    {"written", "card", "shape"},
    {"store", "fields", "limits"},
    {"files", "finite"},
    {"keys", "errors", "progress"},
)
"""Floors from the top: a file may import from lower floors and from its own part of the house."""

FLOOR = {name: floor for floor, names in enumerate(HOUSE) for name in names}


def imported(file: Path) -> set[str]:
    """The parts of attar that a file imports anywhere, but for types only."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("attar"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("attar.")}
    return found - {"__version__"}


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_run_downward(file: Path) -> None:
    part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    upward = {name for name in imported(file) - {part} if FLOOR[name] <= FLOOR[part]}
    assert not upward, f"{part} (floor {FLOOR[part]}) imports {upward}, which are not below it"


def test_the_walk_sees_imports() -> None:
    assert {"driver", "plan", "distilled"} <= imported(PACKAGE / "run.py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_fits_in_a_head(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 500


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
        "import attar.distill.run, attar.distill.pipeline, attar.evaluation.evaluator, attar.methods.d3hr.method, attar.priors.training.train;"
        "assert before == (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist());"
        "assert not torch.cuda.is_initialized()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
