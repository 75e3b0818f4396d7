"""Which processes use a cache: what they have used since they began is not taken from under them."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

JOBS = ".jobs"
"""The folder of a cache with a mark for each process that uses it, beside a lock that the process holds."""

_log = logging.getLogger("attar")
_joined: dict[Path, tuple[int, Path, Any]] = {}
"""For each cache: this process, its mark, and the lock that it holds until it ends."""


def join(root: Path) -> None:
    """Notes that this process uses a cache, until it ends; nothing where the cache cannot be written."""
    import filelock

    if root in _joined and _joined[root][0] == os.getpid():
        return
    mark = root / JOBS / f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
    lock = filelock.FileLock(f"{mark}.lock", thread_local=False)
    with suppress(OSError, NotImplementedError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        mark.touch()
    _joined[root] = os.getpid(), mark, lock


def oldest_running(root: Path) -> float | None:
    """When the first of the other processes that use a cache began, by the clock of its disk; None where none does.

    0 where the clock has gone back since.

    The marks of those that were killed are removed. Those whose locks another user keeps from us count as running.
    """
    import filelock

    own = _joined[root][1] if root in _joined else None
    running = []
    for mark in (mark for mark in (root / JOBS).glob("*") if not mark.name.endswith(".lock") and mark != own):
        lock = filelock.FileLock(f"{mark}.lock")
        try:
            begun = mark.stat().st_mtime
            if begun > time.time():  # the clock went back meanwhile: no time tells what was used since
                begun = 0.0
            lock.acquire(timeout=0)
        except filelock.Timeout:
            running.append(begun)
        except FileNotFoundError:  # it ended meanwhile
            continue
        except PermissionError:
            running.append(begun)
            _log.warning("a job of %s may be running: its lock %s.lock cannot be opened", _owner(mark), mark)
        else:
            _remove(mark)
            lock.release()
    return min(running, default=None)


def _owner(file: Path) -> str:
    """The user that a file is of."""
    with suppress(KeyError, OSError):
        return file.owner()
    with suppress(OSError):
        return f"user {file.stat().st_uid}"
    return "another user"


def _remove(mark: Path) -> None:
    with suppress(OSError):
        mark.unlink()
        mark.with_name(f"{mark.name}.lock").unlink()


@atexit.register
def _leave() -> None:
    for process, mark, lock in _joined.values():
        if process == os.getpid():
            _remove(mark)
            lock.release()
