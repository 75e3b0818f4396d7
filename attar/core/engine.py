"""Where the items of a command are made: here, when they are asked for, or ahead by the workers of a Ray cluster."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

from attar.core.arguments import check_fields
from attar.core.errors import AttarError, suggestion
from attar.core.fingerprints import Artefact
from attar.core.progress import Progress
from attar.core.work_items import Lost, WorkItem


def _check_amount(name: str, value: float | None) -> None:
    if value is None:
        return
    if not 0 <= value < math.inf:
        raise AttarError(f"`{name}` {value}: a number of 0 or more")
    if value > 1 and value != int(value):
        raise AttarError(f"`{name}` {value}: above 1 only whole numbers; Ray shares one device, not several")


@dataclass(frozen=True)
class Engine:
    """Who makes the items of a command, and what each of them takes."""

    engine: Literal["local", "ray"] = "local"
    """Who makes the items of a command: local, this process, one after the other; or ray, the workers of a Ray
    cluster."""
    ray_address: str | None = None
    """A running Ray cluster, as `ray start` names it; none: that of RAY_ADDRESS, or else one over all devices of this
    machine."""
    item_cpus: float | None = None
    """CPUs that an item takes, for ray; none: as many as this command has threads, or 1 beside a GPU."""
    item_gpus: float | None = None
    """GPUs that an item takes, for ray, 0.5 for two items on each; none: 1 where the device is a GPU, else 0."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("ray_address", "item_cpus", "item_gpus"):
            if self.engine != "ray" and getattr(self, name) is not None:
                raise AttarError(f"`{name}` {getattr(self, name)}: has no effect without `engine` ray")
        _check_amount("item_cpus", self.item_cpus)
        _check_amount("item_gpus", self.item_gpus)
        if self.item_cpus == 0:
            raise AttarError("`item_cpus` 0: more than 0; 0.5 lets two items share a CPU")

    @staticmethod
    def of(given: Engine | str) -> Engine:
        """An engine as it is, or by its name."""
        if isinstance(given, Engine):
            return given
        if given not in ("local", "ray"):
            raise AttarError(f"`engine` {given}{suggestion(given, ('local', 'ray'))}: choose local or ray")
        return Engine("ray") if given == "ray" else Engine()

    @property
    def is_local(self) -> bool:
        """Whether nothing is made ahead: each stage makes what it misses."""
        return self.engine == "local"

    def check(self, device: str) -> None:
        """Raises AttarError where Ray is not installed, or the device is one that its workers do not have."""
        if self.is_local:
            return
        if device.startswith("cuda:"):
            raise AttarError(f"`device` {device}: Ray gives each worker a GPU of its own; leave the number out")
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise AttarError("`engine` ray: Ray is not installed; `pip install attar[ray]`") from error

    def cluster(self) -> AbstractContextManager[None]:
        """Connected to the cluster of several calls of `ahead`; local: nothing.

        Raises:
            AttarError: Ray is not installed, or no cluster answers.
        """
        if self.is_local:
            return nullcontext()
        self.check("auto")
        from attar.core.ray_workers import cluster

        return cluster(self.ray_address)

    def ahead(self, items: Sequence[WorkItem], device: str, progress: Progress) -> list[Lost]:
        """Has the workers make the items that are not done, and returns those that failed; local: does nothing.

        Raises:
            AttarError: there is no such cluster, it has no room for an item, or its workers do not see this cache.
        """
        self.check(device)
        missing = [] if self.is_local else [item for item in items if not item.done]
        if not missing:
            return []
        from attar.core.ray_workers import make_all, takes

        with self.cluster():
            return make_all(missing, takes(self.item_cpus, self.item_gpus, device), progress)


LOCAL = Engine()


def raise_first(lost: Sequence[Lost]) -> None:
    """Raises the error of the first item that failed, if any."""
    for each in lost:
        raise each.error


def check_same(what: str, asked: Sequence[Artefact], own: Sequence[Artefact]) -> None:
    """Raises AttarError where a worker would make something else than the command that asks for it."""
    from attar.core.why_not_cached import differing_inputs

    for one, other in zip(asked, own, strict=True):
        if one.key != other.key:
            first = next(iter(differing_inputs(one, other)), None)
            why = "" if first is None else f" ({first.field} is {first.cached} there, and {first.asked} here)"
            raise AttarError(
                f"{what}: the worker on {platform.node()} would make other bytes{why}; start the command on a machine "
                "like its workers, with the same versions, files and data"
            )
