"""What a run will find in the cache, and for what it will not find: the nearest that is there, and what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attar.core.cache import contents
from attar.core.progress import Progress, Say, quiet, silent
from attar.core.store import Artefact, Store
from attar.core.why_not_cached import Catalogue, NearestArtefact
from attar.distillation.artefacts import prepared_artefact
from attar.distillation.checks import planned
from attar.distillation.run_plan import RunPlan
from attar.job import Job, Spec
from attar.methods.base import ComposedImages, LatentMethod, Method
from attar.priors.digits import digits_artefact


@dataclass(frozen=True)
class Missing:
    """An artefact that a run will make."""

    artefact: Artefact
    """What it will make."""
    nearest: NearestArtefact | None
    """What comes nearest to it in the cache; None where the cache holds nothing of the kind."""


@dataclass(frozen=True)
class Reuse:
    """What a run will find in the cache, and what it will make."""

    root: Path
    """The folder of the cache."""
    found: tuple[Artefact, ...]
    """What it will use, in the order of the stages."""
    missing: tuple[Missing, ...]
    """What it will make, in the order of the stages."""


def explain_run(
    spec: Spec,
    name: str,
    method: Method,
    ipcs: Sequence[int],
    out: Path,
    *,
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = quiet,
) -> Reuse:
    """Checks a run as `distill_sets` does, and compares what it would use with what is in the cache; makes nothing.

    Raises:
        AttarError: any input is wrong, or a folder belongs to another run.
    """
    job = Job(spec, store, progress, dry=True)
    job.unread = False  # keys are what is asked for
    plan = planned(job, name, method, ipcs, out, say)
    return reuse(plan, plan.missing(plan.ipcs, say))


def reuse(plan: RunPlan, ipcs: Sequence[int] | None = None) -> Reuse:
    """Compares the artefacts of a checked run with those of its store; of some of its IPCs, or of all.

    Nothing is known yet of what is made from a built-in prior that is still to be trained: it stands alone then.
    """
    job = plan.job
    asked = {artefact.key: artefact for artefact in _asked(plan, plan.ipcs if ipcs is None else ipcs)}
    missing = {key: artefact for key, artefact in asked.items() if not job.store.has(artefact)}
    catalogue = Catalogue(contents(job.store.root).records if missing else ())
    compared = tuple(Missing(artefact, catalogue.nearest(artefact)) for artefact in missing.values())
    return Reuse(job.store.root, tuple(artefact for key, artefact in asked.items() if key not in missing), compared)


def _asked(plan: RunPlan, ipcs: Sequence[int]) -> Iterator[Artefact]:
    """All artefacts of a run that take long, in the order of its stages."""
    job, method = plan.job, plan.method
    if plan.uses_prior and job.untrained:
        yield digits_artefact()
    elif isinstance(method, ComposedImages):
        yield from (prepared_artefact(job, method, label) for label in job.labels)
    elif isinstance(method, LatentMethod):
        for ipc in ipcs:
            yield from _of_latents(plan, method.for_ipc(job.spec.made(ipc)), ipc)
    else:
        yield from (made for features in method.select.needed_features(job) for made in features.stored(job))


def _of_latents(plan: RunPlan, method: LatentMethod, ipc: int) -> Iterator[Artefact]:
    job, asked = plan.job, plan.artefacts[ipc]
    for label, fit in asked.fits.items() if plan.fits is None else ():
        count = len(job.images.of_class(label))
        encoded = min(method.fit.encodings([count]), count)
        if encoded and not job.store.has(fit):
            yield from job.latents.artefacts(label, encoded)
    yield from method.fit.decided_by(job)
    for made in (asked.fits, asked.candidates, asked.refined):
        yield from made.values()
