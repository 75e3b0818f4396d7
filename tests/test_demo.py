from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from attar.core.errors import AttarError
from attar.core.progress import silent


def test_the_demonstration_makes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a prior trained for a few steps only: the way to the page, not its numbers."""
    from attar.cli import demo
    from attar.priors import digits

    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digits, "RECIPE", replace(digits.RECIPE, steps=8))
    monkeypatch.setattr(demo, "IPCS", (1, 2))
    monkeypatch.setattr(demo, "STEPS", 10)
    monkeypatch.setattr(demo, "FIELDS", {"d3hr": {"fit.per_class": 10, "subsets": 100}})
    said: list[str] = []
    page = demo.run_demo(tmp_path / "demo", 2, silent, said.append)
    assert page == tmp_path / "demo" / "report.html"
    records = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert {(record["method"], record["ipc"]) for record in records if record["method"] != "all data"} == {
        (method, ipc) for method in demo.METHODS for ipc in (1, 2)
    }
    ceiling = next(record for record in records if record["method"] == "all data")
    assert ceiling["n_train"] > 1400
    html = page.read_text()
    exemplars = [json.loads(file.read_text()) for file in (tmp_path / "demo" / "exemplars").glob("ipc-*/manifest.json")]
    began = sum(10 for manifest in exemplars if manifest["learnt"]["denoised"])
    shown = 2 * 10 * 2 * len(demo.METHODS) + began
    assert html.count("data:image/webp;base64,") == shown, "images, the nearest real ones, what denoised ones began as"
    assert all(method in html for method in demo.METHODS)
    chosen = json.loads((tmp_path / "demo" / "exemplars" / "ipc-002" / "manifest.json").read_text())
    assert chosen["exemplars_by"]["named"]["teacher"] == str(tmp_path / "demo" / "teacher")
    assert "share" in chosen["learnt"]
    assert [line for line in said if line.startswith("[11/11]")]


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("results.json", "results.json is damaged: not JSON"),
        ("report.html", "is there, and is not a report of Attar's"),
        ("d3hr/ipc-001/mine.txt", r"holds other things \(mine.txt\), and no distilled set"),
    ],
)
def test_what_is_in_its_way_is_found_first(tmp_path: Path, file: str, told: str) -> None:
    from attar.cli.demo import run_demo

    (tmp_path / "out" / file).parent.mkdir(parents=True)
    (tmp_path / "out" / file).write_text("mine")
    if file != "results.json":
        (tmp_path / "out" / "results.json").write_text("[]")
    said: list[str] = []
    with pytest.raises(AttarError, match=told):
        run_demo(tmp_path / "out", 1, silent, said.append)
    assert not said
