"""What the tests share: where the shared data are, caches of their own, and nothing of the user's or the machine's."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attar.core.store import Store

CHECKOUT = Path(__file__).parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Sets what torch, huggingface_hub and rich read when they are imported, here and in processes that tests start."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers of `pytest -n` share the cores
    if "gpu" not in config.option.markexpr:  # so that `auto` is the CPU on every machine
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for name in ("FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE", "GITHUB_ACTIONS", "PY_COLORS", "LINES"):
        os.environ.pop(name, None)
    os.environ |= {"TERM": "dumb", "COLUMNS": "80"}
    os.environ["ATTAR_CPU_DTYPE"] = "float32"  # so that `auto` is the same on every processor
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not os.environ.get("CUDA_VISIBLE_DEVICES", "all"):
        pytest.skip("GPUs are hidden but from `pytest -m gpu`")


@pytest.fixture(scope="session", autouse=True)
def _own_cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever a test does not put into a store of its own: never in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTAR_CACHE", str(tmp_path_factory.mktemp("attar-cache")))
        yield


@pytest.fixture(autouse=True)
def _the_same_draws_in_any_order() -> None:
    """What a test draws from torch's global generator does not depend on the tests before it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes on by a second whenever it is read: progress is told at every step, and work takes some time."""
    monkeypatch.setattr(time, "monotonic", itertools.count(0.0).__next__)


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """A file or folder of the shared data by its place in them; a test that needs one that is not there is skipped."""
    folder = Path(os.environ.get("ATTAR_SHARED", CHECKOUT.parent / "shared")).resolve()

    def part(place: str) -> Path:
        if not (folder / place).exists():
            pytest.skip(f"no shared data at {folder / place} (set ATTAR_SHARED)")
        return folder / place

    return part


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")
