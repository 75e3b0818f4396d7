"""The benchmarks run, each path at its smallest size, and make their page; what they measure is not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT

PATHS = sorted(file.stem for file in (CHECKOUT / "benchmarks" / "paths").glob("[!_]*.py"))


def benchmarks(*given: str, cache: Path) -> None:
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "ATTAR_CACHE": str(cache), "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *given], cwd=CHECKOUT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("benchmarks")
    given = [
        "--sizes",
        "tiny",
        "--rounds",
        "1",
        "--threads",
        "1",
        "--device",
        "cpu",
        "--json",
        str(root / "speed.json"),
    ]
    benchmarks(*given, cache=root / "cache")
    benchmarks("--write", "--json", str(root / "speed.json"), cache=root / "cache")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_timed_beside_both_others_and_has_its_row(path: str, measured: Path) -> None:
    found: dict[str, Any] = json.loads((measured / "speed.json").read_text())[f"{path}/tiny/cpu/float32"]
    assert set(found["seconds"]) == {"ours", "best", "straight"}
    assert min(found["seconds"].values()) > 0
    for who in ("best", "straight"):
        middle, least, most = found[f"against {who}"]
        assert 0 < least <= middle <= most
    page = (measured / "speed.md").read_text()
    assert f"| {path}, tiny | {found['work']} | float32 |" in page
    assert f"not yet measured: `python -m benchmarks --device cuda --only {path} --sizes tiny`" in page


def test_the_page_is_made_from_the_timings_beside_it(tmp_path: Path) -> None:
    docs = CHECKOUT / "docs"
    copy = tmp_path / "performance.json"
    copy.write_text((docs / "performance.json").read_text())
    benchmarks("--write", "--json", str(copy), cache=tmp_path / "cache")
    assert copy.with_suffix(".md").read_text() == (docs / "performance.md").read_text()
