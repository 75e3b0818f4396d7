"""What the tests share: where the shared data and the golden arrays are, and a cache of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: the tests need no network

import pytest

from attar.store import Store


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = Path(os.environ.get("ATTAR_SHARED", "../shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set ATTAR_SHARED)")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")
