"""A run in items for `Engine.ahead`: a group of classes to be fitted, a batch of them to be sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from attar.core.engine import check_same
from attar.core.store import Artefact
from attar.core.wording import counted
from attar.core.work_items import WorkItem
from attar.distillation import pipeline
from attar.distillation.artefacts import Artefacts, artefacts, fit_artefact, prepared_artefact
from attar.distillation.run_plan import RunPlan
from attar.job import Job
from attar.methods.base import ComposedImages, Fit, Group, LatentMethod, RealImages


def item_stages(plan: RunPlan, ipcs: Sequence[int]) -> Iterator[Sequence[WorkItem]]:
    """All that the sets of some IPCs are made from, as items: those of one sequence do not need one another."""
    job, method = plan.job, plan.method
    if isinstance(method, RealImages):
        yield [Compared(job, method, label) for label in job.labels if method.select.needed_features(job)]
    elif isinstance(method, ComposedImages):
        yield [Prepared(job, method, label, prepared_artefact(job, method, label)) for label in job.labels]
    else:
        yield list({item.wanted.key: item for ipc in ipcs for item in _fits(plan, method, ipc)}.values())
        pairs = [(job.spec.made(ipc), asked) for ipc in ipcs for asked in _chunks(plan, ipc)]
        yield [Sampled(job, method.for_ipc(made), made, asked) for made, asked in pairs]


def _fits(plan: RunPlan, method: LatentMethod, ipc: int) -> Iterator[Fitted]:
    fit, asked = method.for_ipc(plan.job.spec.made(ipc)).fit, plan.artefacts[ipc]
    for group in asked.groups if asked.fits else ():
        yield Fitted(plan.job, fit, group, asked.fits[group[0]])


def _chunks(plan: RunPlan, ipc: int) -> Iterator[Artefacts]:
    """Groups of classes that are sampled together: as many as fill a batch of the prior."""
    asked = plan.artefacts[ipc]
    count = asked.candidates[0].inputs["count"] * max(map(len, asked.groups))
    groups = iter(asked.groups)
    while chunk := tuple(islice(groups, max(1, plan.job.prior.batch_size // count))):
        yield asked.of(chunk)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A group of classes: what is learnt of it."""

    job: Job
    fit: Fit
    group: Group
    wanted: Artefact
    """What it makes."""

    @property
    def what(self) -> str:
        """The work, in words."""
        return f"fitting {_named(self.job, self.group)}"

    @property
    def done(self) -> bool:
        """Whether it is in the store."""
        return self.job.store.has(self.wanted)

    def make(self) -> None:
        """Learns it, if it is missing."""
        check_same(self.what, [self.wanted], [fit_artefact(self.job, self.fit, self.group)])
        pipeline.fit_group(self.job, self.fit, self.group, self.wanted)


@dataclass(frozen=True, eq=False)
class Sampled:
    """Some classes of a method that samples a prior: their candidates, and what is kept and refined of them.

    Where the choice is joint, it and what comes after it are left to the run, which sees all classes.
    """

    job: Job
    method: LatentMethod
    """The method for sets of this IPC."""
    ipc: int
    """Images of a class that are kept."""
    asked: Artefacts
    """The artefacts of these classes."""

    @property
    def what(self) -> str:
        """The work, in words."""
        return f"sampling {_named(self.job, list(self.asked.candidates))}"

    @property
    def done(self) -> bool:
        """Whether all of it is in the store."""
        refined = () if self.method.select.joint else self.asked.refined.values()
        return all(map(self.job.store.has, (*self.asked.candidates.values(), *refined)))

    def make(self) -> None:
        """Makes what is missing of it, stage by stage."""
        job, method, asked = self.job, self.method, self.asked
        own = artefacts(job, method, self.ipc, groups=asked.groups)
        if method.select.joint:
            asked, own = asked.unrefined, own.unrefined
        check_same(self.what, asked.stored, own.stored)
        fitted = pipeline.fit(job, method, asked)
        candidates = pipeline.sample(job, method, asked, fitted)
        if not method.select.joint:
            kept = pipeline.select(job, method, candidates, self.ipc)
            pipeline.refine(job, method, asked, fitted, kept, self.ipc)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A class of a method that composes images: prepared."""

    job: Job
    method: ComposedImages
    label: int
    wanted: Artefact
    """What it makes."""

    @property
    def what(self) -> str:
        """The work, in words."""
        return f"preparing {self.job.classes[self.label]!r}"

    @property
    def done(self) -> bool:
        """Whether it is in the store."""
        return self.job.store.has(self.wanted)

    def make(self) -> None:
        """Makes it if it is missing."""
        own = prepared_artefact(self.job, self.method, self.label)
        check_same(self.what, [self.wanted], [own])
        pipeline.prepare_class(self.job, self.method, self.label, own)


@dataclass(frozen=True, eq=False)
class Compared:
    """A class of a method that copies real images: the features that they are chosen by."""

    job: Job
    method: RealImages
    label: int

    @property
    def what(self) -> str:
        """The work, in words."""
        return f"comparing {self.job.classes[self.label]!r}"

    @property
    def done(self) -> bool:
        """Whether they are in the store."""
        return not any(
            features.missing(self.job, self.label) for features in self.method.select.needed_features(self.job)
        )

    def make(self) -> None:
        """Makes those that are missing."""
        for features in self.method.select.needed_features(self.job):
            features.prepare(self.job, [self.label])


def _named(job: Job, labels: Sequence[int]) -> str:
    first = f"{job.classes[labels[0]]!r}"
    return first if len(labels) == 1 else f"{first} and {counted(len(labels) - 1, 'class')} more"
