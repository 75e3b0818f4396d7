"""Makes the notebooks of this folder from its scripts: `python examples/notebooks.py`. Edit the scripts, not them.

A script's docstring becomes the text, its commands the first cell and the last, and each definition a cell.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SCRIPTS = ("architecture_search", "replay_buffer", "smoke_test_set")
COMMANDS = re.compile(r"\n    attar (.*)\n    python \S+ (.*)\n")


def notebook(script: Path) -> dict[str, Any]:
    """A script as a notebook of format 4.5."""
    text = script.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    found = COMMANDS.search(docstring)
    assert found is not None, f"{script} tells no commands"
    title, about = docstring.replace(found[0], "").split("\n", 1)
    call = f"main({json.dumps(found[2].split())})"
    sources = [f"!attar {found[1]}", *definitions(text), call]
    cells = [{"cell_type": "markdown", "metadata": {}, "source": f"# {title.rstrip('.')}\n\n{about.strip()}"}]
    cells += [
        {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
        for source in sources
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def definitions(text: str) -> Iterator[str]:
    """A script's code, a cell for each function or class and for all that stands between two, without its end."""
    lines = text.splitlines()
    statements = [node for node in ast.parse(text).body[1:] if not _left_out(node)]
    for alone, group in groupby(statements, lambda node: node if hasattr(node, "body") else None):
        nodes = list(group)
        begin = min([nodes[0].lineno, *(node.lineno for node in getattr(alone, "decorator_list", []))])
        yield "\n".join(lines[begin - 1 : nodes[-1].end_lineno])


def _left_out(node: ast.stmt) -> bool:
    """Whether a notebook has no use for a statement: the call of main, and what must be a file's first."""
    return isinstance(node, ast.If) or (isinstance(node, ast.ImportFrom) and node.module == "__future__")


def main() -> None:
    """Writes all of them."""
    for name in SCRIPTS:
        made = json.dumps(notebook(FOLDER / f"{name}.py"), indent=1, ensure_ascii=False) + "\n"
        (FOLDER / f"{name}.ipynb").write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
