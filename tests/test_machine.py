"""What `attar doctor` says of a machine."""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path

import pytest
import torch
from toys import attar

from attar.core import machine
from attar.core.machine import Finding


def findings() -> dict[str, Finding]:
    return {finding.about: finding for finding in machine.examined("1.2.3")}


def test_memory_is_the_machines_or_what_its_container_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, sizes = tmp_path / "memory.max", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(machine, "CONTAINER", (limit, tmp_path / "none"))
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    for text, expected in {"max\n": 4_096_000, "2048\n": 2048, "9223372036854771712\n": 4_096_000}.items():
        limit.write_text(text)
        assert machine.memory() == expected
    limit.unlink()
    assert machine.memory() == 4_096_000
    sizes["SC_PHYS_PAGES"] = -1
    assert machine.memory() == machine.UNKNOWN
    monkeypatch.delattr(os, "sysconf")
    assert machine.memory() == machine.UNKNOWN


def test_all_that_attar_needs_is_looked_at() -> None:
    about = findings()
    assert about["attar"].state == "1.2.3"
    assert about["torch"].state == torch.__version__.partition("+")[0]
    assert {*machine.LIBRARIES, *machine.EXTRAS, "python", "processor", "threads", "memory", "cache", "hub"} <= {*about}
    assert "works: " in about["cpu"].state
    assert "float32" in about["cpu"].state
    assert "bfloat16" in about["cpu"].state


def test_a_missing_part_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    about = findings()
    assert about["timm"].state == "missing"
    assert about["peft"] == Finding("peft", "not installed", "for LoRA: pip install 'attar[lora]'")


@pytest.mark.parametrize(("load", "advice"), [(0.0, ""), (3.0, "OMP_NUM_THREADS=1 may be faster")])
def test_threads_that_would_wait_for_a_busy_core(load: float, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    assert findings()["threads"].advice.endswith(advice)
    assert bool(advice) == bool(findings()["threads"].advice)


@pytest.mark.parametrize(("load", "told"), [(4.0, False), (5.0, True)])
def test_cores_that_are_all_taken(load: float, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    assert ("other work has all cores" in findings()["threads"].advice) == told


def test_the_load_of_other_cores_is_no_load_of_these(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (30.0, 0.0, 0.0), raising=False)
    assert not findings()["threads"].advice


def test_a_device_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> float:
        raise RuntimeError("CUDA error: no kernel image\nmore of it")

    monkeypatch.setattr(machine, "_rate", failing)
    why = "float32: CUDA error: no kernel image; bfloat16: CUDA error: no kernel image"
    assert findings()["cpu"] == Finding("cpu", "does not work", why)


def test_a_device_that_lacks_a_number_format_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def rate(device: torch.device, dtype: torch.dtype) -> float:
        if dtype == torch.bfloat16:
            raise TypeError("BFloat16 is not supported on MPS")
        return 5.0

    monkeypatch.setattr(machine, "_rate", rate)
    told = "works: 5 GFLOP/s in float32, not in bfloat16: BFloat16 is not supported on MPS"
    assert findings()["cpu"] == Finding("cpu", told)


def test_it_says_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    for others in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(others, "is_available", lambda: False)
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setenv("ATTAR_CPU_DTYPE", dtype)
        assert findings()["auto"] == Finding("auto", f"cpu, {dtype}")
    monkeypatch.setenv("ATTAR_CPU_DTYPE", "half")
    assert "ATTAR_CPU_DTYPE is half" in findings()["auto"].advice


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "file"))
    assert str(tmp_path / "file") in findings()["cache"].advice


def test_a_disk_that_is_nearly_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROOM", 2**80)
    assert findings()["cache"].advice == machine.SCARCE


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(machine.EXTRAS, "a-library-that-is-nowhere", "lora")
    assert attar(monkeypatch, "doctor") == 0
    told = capsys.readouterr().out
    assert "-> for LoRA: pip install 'attar[lora]'" in told
    assert attar(monkeypatch, "doctor", "--json") == 0
    about = {finding["about"] for finding in json.loads(capsys.readouterr().out)}
    assert about == set(findings())
