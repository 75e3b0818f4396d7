"""The contract of a distiller: what is learnt, where candidates begin, which are kept, how those are improved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from attar.diffusion import Sampler
from attar.selection import Select

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from attar.job import Job
    from attar.priors.prior import Prior

Tensors = dict[str, "Tensor"]
Group = Sequence[int]


class Fit(Protocol):
    """What is learnt from the real data. Frozen: its fields and its inputs are all that it depends on."""

    learns: bool
    """Whether there is anything to run."""
    tunes: bool
    """Whether the prior is adapted to each group, so that batches must not mix groups."""
    uses_prior: bool
    """Whether it runs the prior's network; if not, it learns from latents alone, whichever prior they are for."""

    @property
    def needs(self) -> int:
        """Images of a class that it needs."""
        ...

    def check(self, prior: Prior) -> None:
        """Raises AttarError where it cannot work with this prior."""
        ...

    def for_ipc(self, ipc: int) -> Fit:
        """This fit for sets of so many images per class: itself, unless that decides what it learns."""
        ...

    def groups(self, labels: Sequence[int]) -> list[Group]:
        """The classes that are fitted together."""
        ...

    def passes(self, counts: Sequence[int]) -> int:
        """Network passes, in images, that one group takes whose classes have so many images: for the estimate.

        A step of training counts as three passes of its batch.
        """
        ...

    def encodings(self, counts: Sequence[int]) -> int:
        """Images that it needs the latents of, mirrored ones too, of a group whose classes have so many."""
        ...

    def training_steps(self, counts: Sequence[int]) -> int:
        """Steps of training that one group takes; 0 where nothing is trained."""
        ...

    def run(self, job: Job, group: Group, scratch: Path) -> Tensors:
        """Learns from one group; may keep checkpoints in `scratch`, under names that begin with a dot; others stay.

        What it calls `prototypes`, clean latents (N, C, H, W) of a single class, is kept with the set as pictures.
        """
        ...

    def adapted(self, prior: Prior, fitted: Tensors) -> AbstractContextManager[Prior]:
        """The prior as this fit leaves it."""
        ...


def real_choice(fit: Fit) -> Select | None:
    """The rule by which a fit chooses among real images; None of fits that take them as they come."""
    return getattr(fit, "select", None)


@dataclass(frozen=True)
class Nothing:
    """No fit: nothing is learnt from the real data."""

    learns = False
    tunes = False
    uses_prior = False
    needs = 1

    def check(self, prior: Prior) -> None:
        pass

    def for_ipc(self, ipc: int) -> Nothing:
        return self

    def groups(self, labels: Sequence[int]) -> list[Group]:
        return [[label] for label in labels]

    def passes(self, counts: Sequence[int]) -> int:
        return 0

    def encodings(self, counts: Sequence[int]) -> int:
        return 0

    def training_steps(self, counts: Sequence[int]) -> int:
        return 0

    def run(self, job: Job, group: Group, scratch: Path) -> Tensors:
        return {}

    def adapted(self, prior: Prior, fitted: Tensors) -> AbstractContextManager[Prior]:
        return nullcontext(prior)


@dataclass(frozen=True, eq=False)
class Start:
    """Where the candidates of a class begin."""

    z: Tensor
    """(N, C, H, W), float32, on the CPU."""
    t: int


class Refine(Protocol):
    """How kept latents are improved at t = 0. Frozen; classes are refined independently."""

    def check(self, job: Job) -> None:
        """Raises AttarError where it cannot work with the job's images."""
        ...

    def seconds(self, job: Job, n: int) -> float:
        """Seconds that refining n latents of a class takes, measured on a small part of it: for the estimate."""
        ...

    def __call__(self, job: Job, prior: Prior, label: int, z: Tensor) -> Tensor: ...


class Method(Protocol):
    """A distiller. Frozen, each part too."""

    @property
    def fit(self) -> Fit: ...

    @property
    def sampler(self) -> Sampler | None:
        """None: no prior. The candidates are the class's real images, copied pixel for pixel; or see `Composed`."""
        ...

    @property
    def select(self) -> Select: ...

    @property
    def refine(self) -> Refine | None: ...

    def start_time(self, prior: Prior) -> int:
        """The time that candidates begin at; not asked where `sampler` is None."""
        ...

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        """Where n candidates of a class begin; not asked where `sampler` is None."""
        ...

    def start_seconds(self, job: Job, n: int) -> float:
        """Seconds that finding n starts takes, measured on a small part of it: for the estimate of the cost."""
        ...


class Composed:
    """What a method fills in that makes finished images of real ones, without a prior: its base class.

    The driver stores what `prepare` gives of each class, under a key that holds what `inputs` says, the class's images
    and the seed; from that, `images` makes the set of any IPC.
    """

    fit = Nothing()
    sampler = None
    select = Select()
    refine = None

    def check(self, job: Job, ipcs: Sequence[int]) -> None:
        """Raises AttarError for what can be known to be wrong before any long work."""
        raise NotImplementedError

    def needs(self, job: Job, ipc: int) -> int:
        """Real images of a class that it needs."""
        raise NotImplementedError

    def inputs(self, job: Job) -> dict[str, Any]:
        """All that `prepare` depends on beside the class's images and the seed: for keys and the manifest.

        Its "device" is where it computes.
        """
        raise NotImplementedError

    def estimate(self, job: Job, labels: Sequence[int]) -> str:
        """What preparing these classes takes, in words; measured on a small part."""
        raise NotImplementedError

    def prepare(self, job: Job, label: int) -> Tensors:
        """The long work on a class, whatever the IPC."""
        raise NotImplementedError

    def images(self, job: Job, label: int, prepared: Tensors, ipc: int) -> Iterator[np.ndarray]:
        """The distilled images of a class, uint8 (H, W, 3)."""
        raise NotImplementedError

    def start_time(self, prior: Prior) -> int:
        raise AssertionError("no prior, no start")

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        raise AssertionError("no prior, no start")

    def start_seconds(self, job: Job, n: int) -> float:
        return 0.0


__all__ = ["Composed", "Fit", "Group", "Method", "Nothing", "Refine", "Select", "Start", "Tensors", "real_choice"]
