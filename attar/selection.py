"""Which candidates of a class are kept: rules that work on any pool, real or generated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from attar.job import Job


class Select(Protocol):
    """A selection rule. Frozen."""

    def candidates(self, ipc: int) -> int:
        """How many candidates are to be made for `ipc` of them to be kept."""
        ...

    def __call__(self, job: Job, label: int, pool: int, ipc: int) -> Tensor:
        """Indices (ipc,) of those kept among a pool of so many candidates."""
        ...


@dataclass(frozen=True)
class First:
    """The first of those made."""

    def candidates(self, ipc: int) -> int:
        return ipc

    def __call__(self, job: Job, label: int, pool: int, ipc: int) -> Tensor:
        import torch

        return torch.arange(ipc)


@dataclass(frozen=True)
class Random:
    """A random choice without replacement; a smaller IPC's choice is the beginning of a larger one's."""

    def candidates(self, ipc: int) -> int:
        return ipc

    def __call__(self, job: Job, label: int, pool: int, ipc: int) -> Tensor:
        import torch

        return torch.randperm(pool, generator=job.generator("select", label))[:ipc]


RULES: dict[str, type[First] | type[Random]] = {"first": First, "random": Random}
