"""Items made by the workers of a Ray cluster: Ray places them, restarts what dies, and gives it its item again."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.util import ActorPool

from attar.core.batching import resolve
from attar.core.errors import AttarError
from attar.core.progress import Meter, Progress
from attar.core.wording import counted
from attar.core.work_items import Lost, WorkItem

RESTARTS = 5
"""How often a worker that died is started again, with its item, before the item is given up."""
IDLE = 10.0
"""Seconds that a worker without an item waits for the others before it is let go."""
PATIENCE = 5.0
"""Seconds that a cluster has to answer in."""
OBJECTS = 128 << 20
"""Bytes of shared memory that a cluster of our own reserves: what passes between processes is words."""

_kept: dict[tuple[Any, ...], list[Any]] | None = None
"""Within `cluster`, the workers that are kept, by how they were started."""


class Worker:
    """A process that makes items, one at a time. What is large in them is opened for the first one, and kept."""

    def __init__(self, folder: str, threads: int) -> None:
        os.chdir(folder)
        torch.set_num_threads(threads)

    def make(self, number: int, item: WorkItem) -> tuple[int, AttarError | None]:
        """Makes an item; returns its number, and what was wrong."""
        try:
            item.make()
        except AttarError as error:
            return number, error
        return number, None


def make_all(items: Sequence[WorkItem], takes: dict[str, float], progress: Progress) -> list[Lost]:
    """Within `cluster`: as many workers as there is room for make the items; returns those that failed.

    Raises:
        AttarError: as `Engine.ahead`.
    """
    count = min(len(items), _room(takes))
    pool = ActorPool(_workers(count, takes))
    for numbered in enumerate(items):
        pool.submit(lambda worker, numbered: worker.make.remote(*numbered), numbered)
    outcomes = dict[int, AttarError | None]()
    meter = Meter(progress, counted(count, "worker"), len(items), "items")
    for number, error in _finished(pool):
        outcomes[number] = error
        if error is None and not items[number].done:
            raise AttarError(
                f"{items[number].what}: a worker made it, and it is not in the cache here; set ATTAR_CACHE to a "
                "folder that all nodes of the Ray cluster share"
            )
        meter.add()
    _keep(takes, pool)
    wrong = {number: outcomes.get(number, _died(item)) for number, item in enumerate(items)}
    return [Lost(items[number], error) for number, error in wrong.items() if error is not None]


def _workers(count: int, takes: dict[str, float]) -> list[Any]:
    """Workers for items that take so much: kept ones, and new ones; those for other items are let go."""
    assert _kept is not None
    how = (os.getcwd(), torch.get_num_threads(), RESTARTS, *takes.values())
    kept = _kept.pop(how, [])[:count]
    _kept.clear()
    start = ray.remote(Worker).options(max_restarts=RESTARTS, max_task_retries=RESTARTS, **takes).remote
    return kept + [start(*how[:2]) for _ in range(count - len(kept))]


def _keep(takes: dict[str, float], pool: ActorPool) -> None:
    """Keeps the workers that are left, for the next items."""
    assert _kept is not None
    how = (os.getcwd(), torch.get_num_threads(), RESTARTS, *takes.values())
    _kept[how] = list(iter(pool.pop_idle, None))


def _finished(pool: ActorPool) -> Iterator[tuple[int, AttarError | None]]:
    """What the workers return, as it comes.

    A worker that has waited for the others is let go: its room is for one whose node is lost, which Ray starts again
    where there is room.
    """
    while pool.has_next():
        try:
            yield pool.get_next_unordered(timeout=IDLE)
        except TimeoutError:
            pool.pop_idle()
        except (RayActorError, OutOfMemoryError):  # it died once too often, and its item has no outcome
            continue


def _died(item: WorkItem) -> AttarError:
    return AttarError(
        f"{item.what}: its worker, or the worker's node, died {RESTARTS + 1} times; if memory was short, give an item "
        "more of a node with `item_cpus` or `item_gpus`. The same command goes on from here"
    )


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Connected to the cluster of this address, or to one that is started here; within it, workers are kept.

    Raises:
        AttarError: no cluster answers, or it runs another version of Ray or Python.
    """
    global _kept
    if _kept is not None:
        yield
        return
    connected = ray.is_initialized()
    if not connected:
        _connect(address or os.environ.get("RAY_ADDRESS") or "local")
    _kept = {}
    try:
        yield
    finally:
        _kept = None
        if not connected:
            ray.shutdown()


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _check_reachable(address)
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECTS} if address == "local" else {}
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise AttarError(f"`ray_address` {address}: {why}; `ray start` makes a cluster") from error
    finally:
        if signal.getsignal(signal.SIGTERM) != terminated:
            signal.signal(signal.SIGTERM, terminated)


def _check_reachable(address: str) -> None:
    """Raises AttarError where nothing answers at HOST:PORT; Ray itself would wait for half a minute."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise AttarError(f"`ray_address` {address}: nothing answers ({error}); `ray start` makes a cluster") from error


def takes(cpus: float | None, gpus: float | None, device: str) -> dict[str, float]:
    """The CPUs and GPUs of an item, as Ray takes them."""
    if gpus is None:
        gpus = 1 if resolve(device, "auto")[0].type == "cuda" else 0
    if cpus is None:
        cpus = 1 if gpus else torch.get_num_threads()
    return {"num_cpus": cpus, "num_gpus": gpus}


def _room(takes: dict[str, float]) -> int:
    """How many workers the nodes have room for.

    Raises:
        AttarError: none.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    needed = {name: takes[f"num_{name.lower()}s"] for name in ("CPU", "GPU") if takes[f"num_{name.lower()}s"]}
    for name, amount in needed.items():
        if (most := max(node.get(name, 0.0) for node in nodes)) < amount:
            raise AttarError(f"`item_{name.lower()}s` {amount:g}: no node of the Ray cluster has more than {most:g}")
    room = sum(min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in needed.items()) for node in nodes)
    if not room:
        raise AttarError(
            "no node of the Ray cluster has both the CPUs and the GPUs of an item: `item_cpus`, `item_gpus`"
        )
    return room
