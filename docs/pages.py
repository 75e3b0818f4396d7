"""What MkDocs cannot know of this repository: pages that lie above docs/, links to its files, code by name, equations.

In a page, the title of an empty Python block names code, and the build puts its lines there, without the docstring:

    ```python title="attar/methods/mgd3.py: TowardMode.__call__"
    ```

A block of `math` holds LaTeX, which becomes MathML: browsers draw that without a script.
"""

from __future__ import annotations

import ast
import posixpath
import re
import textwrap
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parent.parent
ABOVE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages above docs/, and what they are called in the site."""
CODE = re.compile(r'^```python title="(attar/[\w/]+\.py): ([\w.]+)"\n```$', re.MULTILINE)
MATH = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)#:\s]+)(#[^)]*)?\)")
Node = ast.ClassDef | ast.FunctionDef


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages above docs/."""
    from mkdocs.structure.files import File

    for above, name in ABOVE.items():
        files.append(File.generated(config, name, abs_src_path=str(CHECKOUT / above)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links, code and equations of a page as the site shows them."""
    own = page.file.src_uri
    place = next((above for above, name in ABOVE.items() if name == own), f"docs/{own}")

    def linked(found: re.Match[str]) -> str:
        text, target, anchor = found.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        if (CHECKOUT / path).is_dir():
            return text[1:-1]
        uri = ABOVE.get(path, path.removeprefix("docs/"))
        if (CHECKOUT / path).is_file() and files.get_file_from_path(uri) is None:
            files.append(_copied(config, uri, CHECKOUT / path))
        return f"{text}({posixpath.relpath(uri, posixpath.dirname(own) or '.')}{anchor})"

    markdown = "".join(
        part if part.startswith("```") else LINK.sub(linked, part)
        for part in re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    )
    markdown = CODE.sub(lambda found: f"{found[0][:-4]}\n{code(*found.groups())}\n```", markdown)
    return MATH.sub(lambda found: _drawn(found[1]), markdown)


def code(file: str, name: str) -> str:
    """The lines of a class, function or method by its dotted name, without its docstring.

    Raises:
        LookupError: the file has none of this name.
    """
    text = (CHECKOUT / file).read_text(encoding="utf-8")
    node: ast.Module | Node = ast.parse(text)
    for part in name.split("."):
        named = [child for child in node.body if isinstance(child, Node) and child.name == part]
        if not named:
            raise LookupError(f"{file} has no {name}: the page that shows it must follow")
        node = named[0]
    lines = text.splitlines()
    begin, end = node.lineno - 1, node.end_lineno
    if ast.get_docstring(node) is not None and len(node.body) > 1:
        docstring = node.body[0]
        body = lines[begin : docstring.lineno - 1] + lines[docstring.end_lineno : end]
    else:
        body = lines[begin:end]
    return textwrap.dedent("\n".join(body)).strip()


def _copied(config: Any, uri: str, source: Path) -> Any:
    from mkdocs.structure.files import File

    return File.generated(config, uri, abs_src_path=str(source))


def _drawn(latex: str) -> str:
    from latex2mathml.converter import convert

    lines = (convert(line, display="block") for line in latex.strip().split("\n\n"))
    return f'<div class="equation">{"".join(lines)}</div>'
