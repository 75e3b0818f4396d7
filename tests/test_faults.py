"""What goes wrong around a run: the disk, the clock, the locks, another process. It resumes, or names what is wrong."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kills import context
from test_cache import QUICK
from toys import save_folder, save_tiny_dit

from attar.core import cache_users
from attar.core.errors import AttarError
from attar.core.prune import prune
from attar.core.store import Artefact, Store
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import load_method
from attar.sets.distilled import open_distilled, verify

DAY = 86_400.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a prior, and the set that nothing disturbed."""
    root = tmp_path_factory.mktemp("faults")
    save_folder(root / "data", ["ant", "bee"], each=6)
    save_tiny_dit(root / "dit", ["ant", "bee"])
    distill(str(root), str(root / "cache"), str(root / "set"))
    return root


def distill(world: str, cache: str, out: str) -> None:
    spec = Spec(data=f"{world}/data", prior=f"{world}/dit", device="cpu")
    distill_sets(Job(spec, Store(Path(cache))), "d3hr", load_method("d3hr", QUICK), (2,), Path(out))


def images(folder: Path) -> Any:
    return open_distilled(folder).manifest["images"]


def holding(text: str) -> Callable[[Path], None]:
    """What makes an artefact of one file with this text."""

    def make(scratch: Path) -> None:
        (scratch / "x").write_text(text)

    return make


def test_two_processes_on_one_output_write_one_set(world: Path, tmp_path: Path) -> None:
    words = (str(world), str(tmp_path / "cache"), str(tmp_path / "set"))
    both = [context.Process(target=distill, args=words) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [one.exitcode for one in both] == [0, 0]
    assert images(tmp_path / "set") == images(world / "set")
    assert verify(tmp_path / "set") == []
    assert {file.name for file in tmp_path.iterdir()} == {"cache", "set"}


@pytest.mark.parametrize("jump", [-DAY, DAY])
def test_a_clock_that_jumps_in_the_middle_changes_nothing(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    read, told = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: read() + (jump if next(told) > 2 else 0.0))
    told_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: told_ns() + int(jump * 1e9))
    plain = os.utime

    def touched(path: Any, times: Any = None, **more: Any) -> None:
        plain(path, (time.time(),) * 2 if times is None else times, **more)

    monkeypatch.setattr(os, "utime", touched)
    distill(str(world), str(tmp_path / "cache"), str(tmp_path / "set"))
    assert images(tmp_path / "set") == images(world / "set")
    assert verify(tmp_path / "set") == []
    store = Store(tmp_path / "cache")
    assert not prune(store.root, older_than=2 * DAY).removed


def test_a_clock_that_went_back_takes_nothing_from_a_running_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "cache")
    folder = store.once(Artefact("kind", {"n": 1}), holding("x"))
    process, mark, lock = cache_users._joined[store.root]
    monkeypatch.setitem(cache_users._joined, store.root, (process, tmp_path / "another's", lock))
    assert not prune(store.root, max_size=0, dry_run=True).removed
    os.utime(mark, (time.time() + DAY,) * 2)  # the job began when the clock was a day ahead
    done = prune(store.root, max_size=0)
    assert not done.removed
    assert [item.folder for item in done.in_use] == [folder]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_cache_on_a_file_system_without_locks_is_named(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The error comes before any work, and the same cache is used once it can be locked."""
    import fcntl

    def refused(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    words = (str(world), str(tmp_path / "cache"), str(tmp_path / "set"))
    with monkeypatch.context() as without:
        without.setattr(fcntl, "flock", refused)
        without.setattr(fcntl, "lockf", refused)
        with pytest.raises(AttarError, match=rf"the cache {tmp_path / 'cache'} cannot be locked .*; set ATTAR_CACHE"):
            distill(*words)
        assert not (tmp_path / "set").exists()
    distill(*words)
    assert images(tmp_path / "set") == images(world / "set")


@pytest.mark.filterwarnings("ignore:.*SoftFileLock:UserWarning")
def test_a_system_that_has_no_call_for_locks_is_named_or_locks_by_files(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of both is filelock's choice, by its version."""
    import fcntl

    def missing(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    words = (str(world), str(tmp_path / "cache"), str(tmp_path / "set"))
    with monkeypatch.context() as without:
        without.setattr(fcntl, "flock", missing)
        with suppress(AttarError):
            distill(*words)
    distill(*words)
    assert images(tmp_path / "set") == images(world / "set")


def test_a_truncated_shard_of_latents_and_a_truncated_fit_are_made_again(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = shutil.copytree(world / "cache", tmp_path / "cache")
    files = [*cache.glob("latents/*/latents.safetensors"), *cache.glob("fit/*/fit.safetensors")]
    for file in files:
        os.truncate(file, file.stat().st_size // 2)
    shutil.rmtree(cache / "candidates")
    distill(str(world), str(cache), str(tmp_path / "set"))
    assert images(tmp_path / "set") == images(world / "set")
    assert {message.split(", of the cache")[0] for message in caplog.messages} == {str(file.parent) for file in files}


def test_an_edited_manifest_is_named_and_nothing_is_written_over_it(world: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(world / "set", tmp_path / "set")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"ipc": 2', '"ipc": 3'))
    edited = manifest.read_bytes()
    with pytest.raises(AttarError, match=rf"{manifest} is damaged: images lists 2 of class 'ant', and ipc is 3"):
        distill(str(world), str(world / "cache"), str(folder))
    manifest.write_text(edited.decode().replace('"ipc": 3', '"ipc": 2').replace('"written": "20', '"written": "19'))
    with pytest.raises(AttarError, match=r"is damaged \(altered: manifest.json, 1 in all\); remove it"):
        distill(str(world), str(world / "cache"), str(folder))
