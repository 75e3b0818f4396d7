"""The example of CONTRIBUTING is a method that works, and resumes as any does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from toys import save_folder, save_tiny_dit

import attar
from attar.core.errors import AttarError
from attar.sets.distilled import open_distilled

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
CALL = 'data="digits", prior="digits"'


def test_its_method_makes_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_folder(tmp_path / "data", ["ant", "bee"], each=6)
    save_tiny_dit(tmp_path / "dit", ["ant", "bee"])
    assert CALL in EXAMPLE
    here = EXAMPLE.replace(CALL, f'data="imagefolder:{tmp_path / "data"}", prior="{tmp_path / "dit"}", device="cpu"')
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(here.replace("steps=50", "steps=5"), "example", "exec", dont_inherit=True), names)
    one, many = (open_distilled(tmp_path / "runs" / "gaussian" / f"ipc-{ipc:03}") for ipc in (1, 10))
    assert [len(files) for files in one.files()] == [1, 1]
    assert [len(files) for files in many.files()] == [10, 10]
    assert one.manifest["method"]["name"] == "Gaussian"
    assert one.manifest["method"]["strength"] == 0.7


def test_its_method_is_short() -> None:
    code = [line for line in EXAMPLE.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(code) <= 42


def test_what_is_no_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AttarError, match="a frozen dataclass that is RealImages"):
        attar.distill("digits", method=object(), ipc=1, out=tmp_path / "out")  # type: ignore[arg-type]
