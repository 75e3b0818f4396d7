"""What a set is made from: the artefacts of each class, made or yet to be made, each keyed by those before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from attar.core.store import fingerprint
from attar.methods.base import ComposedImages, Fit, Group, LatentMethod, Tensors

if TYPE_CHECKING:
    from pathlib import Path

    from attar.job import Job


@dataclass(frozen=True, eq=False)
class Artefact:
    """One piece of work in the store: its kind, and all that it depends on."""

    kind: str
    inputs: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """The fingerprint of the inputs."""
        return fingerprint(self.kind, self.inputs)

    def made(self, job: Job) -> bool:
        """Whether it is in the store."""
        return job.store.has(self.kind, self.key)

    def folder(self, job: Job) -> Path:
        """Where it lies, finished.

        Raises:
            AttarError: it is damaged, or gone.
        """
        return job.store.folder(self.kind, self.key)

    def load(self, job: Job) -> Tensors:
        """Its tensors, on the CPU."""
        return load_file(self.folder(job) / f"{self.kind}.safetensors")

    def seconds(self, job: Job) -> float:
        """How long it took to make."""
        return job.store.seconds(self.kind, self.key)


@dataclass(frozen=True, eq=False)
class Artefacts:
    """All that the set of one IPC is made from, by the job's labels."""

    groups: tuple[Group, ...]
    """Classes that are fitted together."""
    fits: Mapping[int, Artefact]
    """Equal for the classes of a group; empty where nothing is learnt."""
    candidates: Mapping[int, Artefact]
    refined: Mapping[int, Artefact]
    """Empty where nothing is refined."""


def artefacts(job: Job, method: LatentMethod, ipc: int, fits: Mapping[int, Artefact] | None = None) -> Artefacts:
    """The artefacts of the set of one IPC; `method` is as it is for that IPC (`LatentMethod.for_ipc`).

    `fits` are what was learnt elsewhere, and is not to be learnt here.
    """
    groups = tuple(map(tuple, method.fit.groups(job.labels)))
    if fits is None:
        by_group = {group: fit_artefact(job, method.fit, group) for group in groups if method.fit.learns}
        fits = {label: fit for group, fit in by_group.items() for label in group}
    count = method.select.candidates(ipc)
    candidates = {label: candidates_artefact(job, method, label, count, fits.get(label)) for label in job.labels}
    refined = {label: refined_artefact(job, method, label, ipc, made) for label, made in candidates.items()}
    return Artefacts(groups, fits, candidates, refined if method.refine is not None else {})


def fit_artefact(job: Job, fit: Fit, group: Group) -> Artefact:
    """What a fit learns of a group of classes: it depends on their latents, and on the prior if it runs it."""
    prior = None
    if fit.uses_prior:
        prior = {"prior": job.prior.key, "told": [job.told(label) for label in group], "compute": job.compute}
    inputs = {
        "fit": job.to_config(fit),
        "classes": [job.classes[label] for label in group],
        "latents": [job.latents.key(label) for label in group],
        "prior": prior,
        "encoding": job.encoding,
        "scikit-learn": version("scikit-learn"),
    }
    return Artefact("fit", inputs)


def candidates_artefact(job: Job, method: LatentMethod, label: int, count: int, fit: Artefact | None) -> Artefact:
    """A class's denoised candidates. Selection and refinement do not enter: another choice is free."""
    making = {name: value for name, value in vars(method).items() if name not in ("select", "refine", "fit")}
    inputs = {
        "method": {"is": type(method).__qualname__, **making},
        "fit": fit.key if fit is not None else None,
        "class": job.classes[label],
        "told": job.told(label),
        "seed": job.spec.seed,
        "prior": job.prior.key,
        "compute": job.compute,
        "count": count,
    }
    return Artefact("candidates", inputs)


def refined_artefact(job: Job, method: LatentMethod, label: int, ipc: int, candidates: Artefact) -> Artefact:
    """A class's kept latents after refinement, which looks at the class's real images."""
    inputs = {
        "candidates": candidates.key,
        "select": method.select.identity(job),
        "refine": method.refine,
        "ipc": ipc,
        "images": job.images.digest(label),
        "preprocess": job.spec.preprocess,
        "codec": job.codec.key,
        "encoding": job.encoding,
    }
    return Artefact("refined", inputs)


def prepared_artefact(job: Job, method: ComposedImages, label: int) -> Artefact:
    """What a method prepares of a class without a prior."""
    inputs = {
        "method": {"is": type(method).__qualname__, **method.inputs(job)},
        "class": job.classes[label],
        "images": job.images.digest(label),
        "seed": job.spec.seed,
    }
    return Artefact("prepared", inputs)
