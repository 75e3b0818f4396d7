"""What a set is made from: the artefacts of each class, made or yet to be made, each keyed by those before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from safetensors.torch import load_file

from attar.core.store import Artefact
from attar.methods.base import ComposedImages, Fit, Group, LatentMethod, Tensors

if TYPE_CHECKING:
    from attar.job import Job


AIMED = ("z", "distances")
"""What candidates of a method hold that aims at latents; part of the keys of these and of its sets."""


@dataclass(frozen=True, eq=False)
class Artefacts:
    """All that the set of one IPC is made from, by the job's labels."""

    groups: tuple[Group, ...]
    """Classes that are fitted together."""
    fits: Mapping[int, Artefact]
    """Equal for the classes of a group; empty where nothing is learnt."""
    candidates: Mapping[int, Artefact]
    """Label -> the latents that are selected from."""
    refined: Mapping[int, Artefact]
    """Empty where nothing is refined."""

    @property
    def stored(self) -> list[Artefact]:
        """All of them."""
        return [made for stage in (self.candidates, self.fits, self.refined) for made in stage.values()]

    @property
    def unrefined(self) -> Artefacts:
        """The artefacts before refinement."""
        return replace(self, refined={})

    def of(self, groups: tuple[Group, ...]) -> Artefacts:
        """The artefacts of some groups of classes."""
        stages = (self.fits, self.candidates, self.refined)
        labels = [label for group in groups for label in group]
        return Artefacts(groups, *({label: stage[label] for label in labels if label in stage} for stage in stages))


def artefacts(
    job: Job,
    method: LatentMethod,
    ipc: int,
    fits: Mapping[int, Artefact] | None = None,
    groups: tuple[Group, ...] | None = None,
) -> Artefacts:
    """The artefacts of the set of one IPC; `method` is as it is for that IPC (`LatentMethod.for_ipc`).

    `fits` are what was learnt elsewhere, and is not to be learnt here; `groups`, if given, are all that is asked for.
    """
    if groups is None:
        groups = tuple(map(tuple, method.fit.groups(job.labels)))
    if fits is None:
        by_group = {group: fit_artefact(job, method.fit, group) for group in groups if method.fit.learns}
        fits = {label: fit for group, fit in by_group.items() for label in group}
    count = method.select.candidates(ipc)
    labels = sorted(label for group in groups for label in group)
    candidates = {label: candidates_artefact(job, method, label, count, fits.get(label)) for label in labels}
    refined = {label: refined_artefact(job, method, label, ipc, candidates) for label in candidates}
    return Artefacts(groups, fits, candidates, refined if method.refine is not None else {})


def load_artefact(job: Job, artefact: Artefact) -> Tensors:
    """The tensors of a finished artefact, on the CPU.

    Raises:
        AttarError: it is damaged, or gone.
    """
    return load_file(job.store.folder(artefact) / f"{artefact.kind}.safetensors")


def fit_artefact(job: Job, fit: Fit, group: Group) -> Artefact:
    """What a fit learns of a group of classes: it depends on their latents, and on the prior if it runs it."""
    prior = None
    if fit.uses_prior:
        prior = {
            "network": job.named_prior,
            "told": [job.named_condition(label) for label in group],
            "compute": job.compute,
        }
    inputs = {
        "fit": job.to_config(fit.keyed),
        "classes": [job.classes[label] for label in group],
        "latents": [shard for label in group for shard in job.latents.artefacts(label)],
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
        "fit": fit,
        "class": job.classes[label],
        "told": job.named_condition(label),
        "seed": job.spec.seed,
        "prior": job.named_prior,
        "compute": job.compute,
        "count": count,
        **({"keeps": AIMED} if method.aims_at_latents else {}),
    }
    return Artefact("candidates", inputs)


def refined_artefact(
    job: Job, method: LatentMethod, label: int, ipc: int, candidates: Mapping[int, Artefact]
) -> Artefact:
    """A class's kept latents after refinement, or the pixels made of them, which looks at the class's real images.

    The candidates of other classes enter where the choice is joint.
    """
    inputs = {
        **({} if method.refine is None else method.refine.inputs(job.spec)),
        "candidates": candidates[label],
        **({"chosen beside": list(candidates.values())} if method.select.joint else {}),
        "select": method.select.identity(job),
        "refine": method.refine,
        "ipc": ipc,
        "images": job.images.identity(label),
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
        "images": job.images.identity(label),
        "seed": job.spec.seed,
    }
    return Artefact("prepared", inputs)
