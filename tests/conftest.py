"""What the tests share: where the shared data and the golden arrays are, and a cache of the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: the tests need no network

import pytest

from attar.core.store import Store


@pytest.fixture(scope="session", autouse=True)
def _own_cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever a test does not put into a store of its own: never in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTAR_CACHE", str(tmp_path_factory.mktemp("attar-cache")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = Path(os.environ.get("ATTAR_SHARED", "../shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set ATTAR_SHARED)")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")
