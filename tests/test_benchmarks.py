"""The benchmarks run, each path at its smallest size, and make their page; what they measure is not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CHECKOUT
from toys import own_signals, save_folder, save_tiny_dit

from attar.methods import METHODS, load_method
from attar.methods.base import LatentMethod
from attar.priors import load_prior
from benchmarks import equality, growth, profile, timing

PATHS = sorted(file.stem for file in (CHECKOUT / "benchmarks" / "paths").glob("[!_]*.py"))


def benchmarks(*given: str, cache: Path, module: str = "benchmarks") -> None:
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "ATTAR_CACHE": str(cache), "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-m", module, *given], cwd=CHECKOUT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_each_path_is_timed_beside_both_others_and_has_its_row(tmp_path: Path) -> None:
    given = ["--sizes", "tiny", "--rounds", "1", "--threads", "1", "--device", "cpu"]
    benchmarks(*given, "--json", str(tmp_path / "speed.json"), cache=tmp_path / "cache")
    benchmarks("--write", "--json", str(tmp_path / "speed.json"), cache=tmp_path / "cache")
    timed, page = json.loads((tmp_path / "speed.json").read_text()), (tmp_path / "speed.md").read_text()
    for path in PATHS:
        found: dict[str, Any] = timed[f"{path}/tiny/cpu/float32"]
        assert set(found["seconds"]) == {"ours", "best", "straight"}
        assert min(found["seconds"].values()) > 0
        for who in ("best", "straight"):
            middle, least, most = found[f"against {who}"]
            assert 0 < least <= middle <= most
        assert f"| {path}, tiny | {found['work']} | float32 |" in page
        assert f"not yet measured: `python -m benchmarks --device cuda --only {path} --sizes tiny`" in page
        for size in import_module(f"benchmarks.paths.{path}").SIZES.keys() - {"tiny"}:
            assert f"| {path}, {size} | not yet measured: `python -m benchmarks --only {path} --sizes {size}` |" in page
    fastest = max(case["machine"]["GFLOP/s"] for case in timed.values())
    assert f"{fastest:g} GFLOP/s in float32" in page


def test_the_page_is_made_from_the_timings_beside_it(tmp_path: Path) -> None:
    docs = CHECKOUT / "docs"
    copy = tmp_path / "performance.json"
    copy.write_text((docs / "performance.json").read_text())
    benchmarks("--write", "--json", str(copy), cache=tmp_path / "cache")
    assert copy.with_suffix(".md").read_text() == (docs / "performance.md").read_text()


def test_fast_ways_are_the_plain_ones_to_a_ten_thousandth(shared: Callable[[str], Path], tmp_path: Path) -> None:
    prior = load_prior(str(shared("priors/cifar10-dit")), device="cpu", dtype="float32")
    with torch.no_grad():
        for name, (plain, ours) in equality.ways(shared("priors/cifar10-dit"), rows=1).items():
            assert max(equality.apart(plain, ours(prior))) < 1e-4, name


def test_the_plain_way_that_counts_is_the_fastest_once_all_are_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {
        "ours": iter([9.0, 2.0]),
        "small": iter([7.0, 1.0, 1.0]),
        "large": iter([3.0] * 3),
        "b": iter([9.0, 8.0]),
    }
    monkeypatch.setattr(timing, "_seconds", lambda way, where: way())
    case = timing.Case(
        ours=lambda: next(seconds["ours"]),
        best={name: lambda name=name: next(seconds[name]) for name in ("small", "large")},  # type: ignore[misc]
        straight=lambda: next(seconds["b"]),
        work="",
    )
    found = timing.measured(case, timing.Where(torch.device("cpu"), torch.float32), rounds=1)
    assert found["best"] == "small"
    assert (found["against best"][0], found["against straight"][0]) == (0.5, 4.0)


def test_exponents_of_a_cost_that_is_a_power_are_that_power() -> None:
    sizes = [1_000, 2_000, 4_000]
    assert growth.exponents(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx((1.5, 1.5))
    assert growth.exponents(sizes, [1.0, 1.0, 2.0])[1] == pytest.approx(1.0)


def test_a_cost_and_the_operations_of_a_path_are_measured(tmp_path: Path) -> None:
    seconds, memory = growth.point(tmp_path, "random", images=40, classes=10, ipc=1)
    assert seconds > 0
    assert memory > 2**26
    benchmarks("--help", module="benchmarks.profile", cache=tmp_path)
    shares = profile.shares(lambda: torch.ones(64, 64) @ torch.ones(64, 64))
    assert {"mm", "fill_"} <= shares.keys()
    assert sum(shares.values()) <= 1


def benchmark(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    monkeypatch.syspath_prepend(CHECKOUT)
    return import_module(f"benchmarks.{name}")


def test_full_size_priors_meet_every_method_that_asks_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = benchmark(monkeypatch, "fullsize").ROWS
    asking = {name for name in METHODS if isinstance(METHODS.open(name), LatentMethod)}
    assert {load_method(name, settings) and name for name, settings in rows.values()} >= asking


def test_steps_are_timed_of_attar_and_of_the_plain_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    steps, fullsize = benchmark(monkeypatch, "steps"), benchmark(monkeypatch, "fullsize")
    prior = save_tiny_dit(tmp_path / "dit", [f"class{number}" for number in range(1000)])
    save_folder(tmp_path / "photos", [*fullsize.CLASSES], each=2)
    for row, ways in {"diffusers": steps.of_diffusers, "prior": steps.of_attar}.items():
        _, *words = fullsize.words_of(row, tmp_path / "photos", prior, tmp_path / "out")
        with own_signals():
            found = ways(words[0], words[1:]) if row == "diffusers" else ways(words)
        assert len(found) == 2
        assert min(found) > 0
