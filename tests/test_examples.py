"""The examples, each at its smallest size: they run, offline, and say what they are for."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from attar.core.store import Store
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import load_method

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL: dict[str, list[str]] = {
    "architecture_search": ["--networks", "convnet3-bn-w4,convnet3-bn-w8", "--steps", "1", "--seeds", "1"],
    "replay_buffer": ["--steps", "1", "--seeds", "1"],
    "smoke_test_set": ["--steps", "1"],
}
"""What makes an example short."""


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    job = Job(Spec(data="digits", device="cpu"), Store(root / "cache"))
    (folder,) = distill_sets(job, "herding", load_method("herding"), (10,), root / "set")
    return folder


def test_networks_are_ranked_on_a_set_and_on_all_of_the_data(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--networks", "convnet3-bn-w4,convnet3-bn-w8", "--steps", "2", "--seeds", "1"]
    ranks = example("architecture_search").main([str(digits), *words])
    assert all(-1 <= rank <= 1 or rank != rank for rank in ranks)  # alike: no rank
    said = capsys.readouterr().out
    assert "rank correlation with all of the data: the set" in said
    assert said.count("convnet3-bn-w") == 2


def test_replay_keeps_what_was_learnt(digits: Path) -> None:
    means = example("replay_buffer").main([str(digits), "--steps", "30", "--seeds", "1"])
    assert list(means) == ["nothing", "random", "distilled"]
    assert means["distilled"] > means["nothing"] + 10


def test_a_broken_pipeline_does_not_learn_the_set(digits: Path) -> None:
    passed = example("smoke_test_set").main([str(digits)])
    assert passed == {
        "none": True,
        "labels of another order": False,
        "frozen layers": False,
        "images not scaled": False,
    }


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_is_its_script(name: str) -> None:
    stored = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert stored == example("notebooks").notebook(EXAMPLES / f"{name}.py"), "run: python examples/notebooks.py"


def test_every_example_of_a_use_has_a_notebook() -> None:
    assert set(SMALL) == set(example("notebooks").SCRIPTS) == {file.stem for file in EXAMPLES.glob("*.ipynb")}


def test_notebooks_run(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one kernel, one after the other, on the set that is there, with little to train."""
    pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    import nbformat
    from nbclient import NotebookClient

    for place in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(place, str(tmp_path / place))
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    together = nbformat.v4.new_notebook()
    for name, small in SMALL.items():
        cells = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4).cells
        assert cells[1].source.startswith("!attar distill --data digits ")
        assert cells[-1].source.startswith('main(["runs/')
        cells[-1].source = f"main({[str(digits), *small]!r})"
        together.cells += [cells[0], *cells[2:]]
    for number, cell in enumerate(together.cells):
        cell.id = f"cell-{number}"
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(together, timeout=600, kernel_name="python3", resources=where).execute()
    said = "".join(part.get("text", "") for cell in together.cells for part in cell.get("outputs", []))
    assert "rank correlation with all of the data" in said
    assert "replaying distilled" in said
    assert "bug: frozen layers" in said
