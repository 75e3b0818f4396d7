"""Draws the house into docs/architecture.md, from the imports of the package and the first sentence of each room.

Command: python docs/house.py
"""

from __future__ import annotations

import ast
import re
from collections.abc import Set
from pathlib import Path

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "attar"
PAGE = DOCS / "architecture.md"
PLACE = re.compile(r"(?<=<!-- house -->\n```\n).*?(?=```\n)", re.DOTALL)


def rooms(package: Path = PACKAGE) -> dict[str, Path]:
    """The file that tells what each room is for, by the room's name."""
    folders = {file.parent.name: file for file in package.glob("*/__init__.py")}
    return folders | {file.stem: file for file in package.glob("*.py") if file.stem not in ("__init__", "__main__")}


def imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """The rooms that each room imports anywhere: at a file's top, in its functions, or for its types."""
    imported: dict[str, set[str]] = {room: set() for room in rooms(package)}
    for room, others in imported.items():
        for file in [*package.glob(f"{room}.py"), *(package / room).rglob("*.py")]:
            others |= imported_by(file.read_text(encoding="utf-8")) - {room}
    return imported


def imported_by(source: str) -> set[str]:
    """The rooms that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "attar":
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("attar.")}
    return names - {"__version__"}


def modules_imported_by(source: str, known: Set[str]) -> set[str]:
    """Those of the known modules that a file imports anywhere, or takes names from."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in known else node.module for name in full}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & known


def floors(imported: dict[str, set[str]]) -> list[list[str]]:
    """The rooms from the top down: each as high as those that import it allow.

    Raises:
        ValueError: rooms import one another in a circle.
    """
    left, rows = dict(imported), []
    while left:
        row = [room for room in left if not any(room in others for others in left.values())]
        if not row:
            raise ValueError(f"a circle among {', '.join(sorted(left))}")
        rows.append(sorted(row, key=lambda room: (-len(imported[room]), room)))
        left = {room: others for room, others in left.items() if room not in row}
    return rows


def drawn(package: Path = PACKAGE) -> str:
    """A line for each room, from the top: its name, what it imports (its columns are the rooms), what it is for."""
    imported, files = imports(package), rooms(package)
    order = [room for row in floors(imported) for room in row]
    lines = []
    for number, room in enumerate(order):
        marks = ["\\" if other == room else "x" if other in imported[room] else "." for other in order]
        text = ast.get_docstring(ast.parse(files[room].read_text(encoding="utf-8"))) or ""
        (purpose, *_) = re.split(r"(?<=\.)\s", text)
        lines.append(f"{number + 1:2} {room:13}{' '.join(marks)}  {purpose}\n")
    header = " ".join(str((number + 1) % 10) for number in range(len(order)))
    return "".join([f"{'':16}{header}\n", *lines])


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(PLACE.sub(lambda _: drawn(), page), encoding="utf-8")
