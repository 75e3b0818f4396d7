"""The contract of a distiller: three kinds of method, each a small base class with defaults.

    RealImages       real images, chosen by a rule and copied pixel for pixel
    ComposedImages   finished images made of real ones, without a prior
    LatentMethod     latents that a prior denoises: fit, start, select, refine

A method is a frozen dataclass of one kind; so is each of its parts. Its fields, with its inputs, are all it depends on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, cast

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.diffusion import Denoiser, Move, Sampler
from attar.selection import Select as Select

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from attar.core.store import Artefact
    from attar.job import Job, Spec
    from attar.priors.prior import Prior

Tensors = dict[str, "Tensor"]
Group = Sequence[int]


class RealImages:
    """Real images of each class, chosen from all of the class by `select`."""

    select: Select
    """How they are chosen."""
    refine = None

    def side(self, job: Job) -> int:
        """Side of the squares that they are brought to, in pixels, where a set is of mosaics."""
        return job.side


class ComposedImages:
    """Finished images made of real ones, without a prior.

    What `prepare` gives of each class is stored, under a key that holds what `inputs` says, the class's images and the
    seed; from that, `images` makes the set of any IPC.
    """

    select = Select()
    refine = None

    def side(self, job: Job) -> int:
        """Side of its images, in pixels."""
        return job.side

    def check(self, job: Job, ipcs: Sequence[int]) -> None:
        """Raises AttarError for what can be known to be wrong before any long work."""

    def needs(self, job: Job, ipc: int) -> int:
        """How many real images of a class it needs."""
        return ipc

    def inputs(self, job: Job) -> dict[str, Any]:
        """All that `prepare` depends on beside the class's images and the seed: for keys and the manifest.

        Its "device" is where it computes.
        """
        raise NotImplementedError

    def estimate(self, job: Job, labels: Sequence[int]) -> tuple[str, float]:
        """What preparing these classes takes, in words and in seconds; measured on a small part."""
        raise NotImplementedError

    def prepare(self, job: Job, label: int) -> Tensors:
        """The long work on a class, whatever the IPC."""
        raise NotImplementedError

    def images(self, job: Job, label: int, prepared: Tensors, ipc: int) -> Iterator[np.ndarray]:
        """The distilled images of a class, uint8 (H, W, 3)."""
        raise NotImplementedError

    def real_places(self, job: Job, prepared: Tensors, ipc: int) -> Sequence[Sequence[int]]:
        """Which real images of a class each of these is made of, by their places in it; empty: that is not told."""
        return []


class Fit:
    """What is learnt from the real data; the defaults are those of a fit of single classes that trains nothing."""

    learns = True
    """Whether there is anything to run."""
    tunes = False
    """Whether the prior is adapted to each group, so that batches must not mix groups."""
    uses_prior = False
    """Whether it runs the prior's network; if not, it learns from latents alone, whichever prior they are for."""

    @property
    def chooses(self) -> Select | None:
        """The rule by which it chooses among real images; None of fits that take them as they come."""
        return None

    @property
    def weighs(self) -> bool:
        """Whether images are to weigh as the clusters do that it learns (`image_weights`)."""
        return False

    @property
    def needs(self) -> int:
        """How many images of a class it needs."""
        return 1

    def check(self, prior: Prior) -> None:
        """Raises AttarError where it cannot work with this prior."""

    def for_ipc(self, ipc: int) -> Self:
        """This fit for sets of this IPC: itself, unless the IPC decides what it learns."""
        return self

    @property
    def keyed(self) -> Self:
        """This fit as keys hold it: what decides what it learns, without how it is measured on the way."""
        return self

    def groups(self, labels: Sequence[int]) -> list[Group]:
        """The classes that are fitted together."""
        return [[label] for label in labels]

    def passes(self, counts: Sequence[int]) -> int:
        """Network passes, in images, that a group takes whose classes have these counts of images: for the estimate.

        A step of training counts as three passes of its batch.
        """
        return 0

    def encodings(self, counts: Sequence[int]) -> int:
        """Images that it needs the latents of, mirrored ones too, of a group whose classes have these counts."""
        return 0

    def deciding_seconds(self, job: Job) -> float:
        """Seconds that it takes to decide on settings by the data, measured on a small part; 0 where none are open."""
        return 0.0

    def deciding_passes(self, job: Job) -> int:
        """Network passes, in images, that it takes to decide on settings by the data; 0 where none are open."""
        return 0

    def decided_by(self, job: Job) -> Sequence[Artefact]:
        """What is made of the data to decide on settings that are open; the last only where those before ask it."""
        return ()

    def training_steps(self, counts: Sequence[int]) -> int:
        """Steps of training that a group takes; 0 where nothing is trained."""
        return 0

    def seconds(self, job: Job, counts: Sequence[int]) -> float:
        """Seconds that a group takes beside passes of the prior, measured on a small part: for the estimate."""
        return 0.0

    def run(self, job: Job, group: Group, scratch: Path) -> Tensors:
        """Learns from one group; may keep checkpoints in `scratch`, under names that begin with a dot; others stay.

        What it calls `prototypes`, clean latents (N, C, H, W) of a single class, is kept with the set as pictures.
        """
        raise NotImplementedError

    def adapted(self, prior: Prior, fitted: Tensors) -> AbstractContextManager[Prior]:
        """The prior as this fit leaves it."""
        return nullcontext(prior)

    def image_weights(self, fitted: Tensors, n: int) -> Tensor | None:
        """What n candidates of a class weigh where networks learn from them, (n,), 0 or more; None: all the same."""
        return None

    def keeps_real(self, fitted: Tensors) -> bool:
        """Whether the images of a class are to be the real ones of `real_places` themselves, which nothing denoises."""
        return False

    def real_places(self, fitted: Tensors, n: int) -> Tensor | None:
        """Which real images of a class n candidates begin as, by their places in it, (n,); None: as no single ones."""
        return None


@dataclass(frozen=True)
class Nothing(Fit):
    """No fit: nothing is learnt from the real data."""

    learns = False


@dataclass(frozen=True, eq=False)
class Start:
    """Where the candidates of a class begin."""

    z: Tensor
    """(N, C, H, W), float32, on the CPU."""
    t: int | None
    """The time that they are denoised from; None: they are finished as they are."""
    aims: Tensor | None = None
    """What the method's guide is given of each, (N, ...), of one shape for all classes."""
    places: Tensor | None = None
    """Where each lies on the class's map, (N, 2) (see `NoiseMap`)."""

    @property
    def told(self) -> Tensors:
        """What is kept of the starts with the candidates."""
        return {} if self.places is None else {"places": self.places}


@dataclass(frozen=True, eq=False)
class NoiseMap:
    """A plane through the domain that a class's starts are drawn in, and what is fitted to real latents there."""

    shares: Tensor
    """The share of the variance of the real latents along each of its two axes, (2,)."""
    real: Tensor
    """Where some of the real latents lie, (M, 2)."""
    mean: Tensor
    """The middle of what is fitted to them, (2,)."""
    spread: Tensor
    """Its covariance, (2, 2)."""


class Guide(Protocol):
    """What moves latents on their way, between the prior's own steps. Frozen; its fields are part of the key."""

    looks_back: bool
    """Whether it asks for what is finished of the class: its images are then made one after another."""
    together: bool
    """Whether it is given all images of a class at once, and nothing else: they are then denoised together."""

    def __call__(self, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        """What is added to the mean of the next latents (N, C, H, W).

        Rows must not depend on one another, unless it moves those of a class `together`.

        Args:
            aims: what the starts say of each row (N, ...), on the latents' device.
            finished: of each row's class the latents that are finished, (N, K, C, H, W); K is 0 unless it looks back.
        """
        ...


class Told(Protocol):
    """What the prior is told on the way in place of the class's label. Frozen; its fields are part of the key."""

    def __call__(self, job: Job, prior: Prior, rows: Sequence[tuple[int, int]]) -> Denoiser:
        """The prior as it denoises these rows, (label, index) each, whatever labels it is given."""
        ...


class Refine(Protocol):
    """How kept latents, or the pixels of their images, are improved at t = 0. Frozen; classes are refined alone."""

    @property
    def space(self) -> Literal["latents", "pixels"]:
        """What is given and moved: latents, or the images that they make, at the size that a set stores them at."""
        ...

    def inputs(self, spec: Spec) -> dict[str, Any]:
        """What of a job it depends on beside what is moved, the class's images and the seed: for keys."""
        ...

    def check(self, job: Job) -> None:
        """Raises AttarError where it cannot work with the job's images."""
        ...

    def seconds(self, job: Job, n: int) -> float:
        """Seconds that refining n images of a class takes, measured on a small part of it: for the estimate."""
        ...

    def __call__(self, job: Job, prior: Prior, label: int, z: Tensor) -> Tensor:
        """What is given, moved: latents (N, C, H, W), or images (N, 3, S, S) from -1 to 1; float32, on the CPU."""
        ...


class LatentMethod:
    """Latents that a prior denoises, each from its own start."""

    fit: Fit
    """What is learnt from the real data."""
    sampler: Sampler
    """How starts are denoised."""
    guide: Guide | None = None
    """What moves latents on their way; None: nothing. A method that has one has a field of this name."""
    told: Told | None = None
    """What the prior is told in place of labels; None: the labels."""
    select: Select
    """Which candidates are kept."""
    refine: Refine | None = None
    """How what is kept is improved; None: not at all."""
    keeps_statistics = False
    """Whether a set can keep all that its starts are made from (`--keep-statistics`)."""
    of_clusters = False
    """Whether each image stands for a cluster of its fit, one after another, so that it can weigh as that does."""
    aims_at_latents = False
    """Whether what its starts say to its guide are latents: how far each image is from its own is then kept by step."""

    @property
    def refines_pixels(self) -> bool:
        """Whether its images are finished by refinement, at the size that the set stores, and not decoded after it."""
        return self.refine is not None and self.refine.space == "pixels"

    def for_ipc(self, ipc: int) -> Self:
        """This method for sets of this IPC: its fit may depend on that."""
        fit = self.fit.for_ipc(ipc)
        return self if fit == self.fit else cast("Self", replace(cast(Any, self), fit=fit))

    def side(self, job: Job) -> int:
        """Side of its images, in pixels."""
        from attar.priors import known_side

        return known_side(job.spec.prior, job.spec.codec) or job.codec.size

    def start_time(self, prior: Prior) -> int:
        """The time that candidates begin at."""
        raise NotImplementedError

    def start(self, job: Job, fitted: Tensors, label: int, n: int) -> Start:
        """Where n candidates of a class begin, given what was learnt of it."""
        raise NotImplementedError

    def guiding(self, job: Job, fitted: Mapping[int, Tensors]) -> Guide | None:
        """The guide of some classes, given what was learnt of each: where it needs more than the starts can say."""
        return self.guide

    def statistics(self, fitted: Tensors) -> Tensors:
        """All that starts of a class are made from; asked only where the method `keeps_statistics`."""
        raise NotImplementedError

    def noise_map(self, fitted: Tensors) -> NoiseMap | None:
        """The map that a class's starts have `places` on; None where they have none."""
        return None

    def start_seconds(self, job: Job, n: int) -> float:
        """Seconds that finding n starts takes, and what the guide adds, measured on a small part: for the estimate."""
        return 0.0


Method = RealImages | ComposedImages | LatentMethod


def own(method: Method) -> Method:
    """A method that Attar has no name for, as it is.

    Raises:
        AttarError: it is not of one of the three kinds, or not a frozen dataclass.
    """
    frozen = is_dataclass(method) and type(method).__dataclass_params__.frozen
    if not isinstance(method, Method) or not frozen:
        raise AttarError(
            f"method {method!r}: a name, or a frozen dataclass that is RealImages, ComposedImages or LatentMethod"
        )
    check_fields(method)
    return method
