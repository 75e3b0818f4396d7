"""A run, read first: check everything, say what it will cost, make the images stage by stage, write the sets.

What is long is kept in the store under the fingerprint of all that it depends on, so that a run that was killed, or
another run that shares a stage, goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from attar.core.arguments import checked
from attar.core.engine import LOCAL, Engine, raise_first
from attar.core.progress import Say, about, duration, quiet
from attar.core.store import Artefact, write_json
from attar.core.whole_command import StageForecast
from attar.core.whole_grid import GridItem, whole_of
from attar.core.wording import counted

if TYPE_CHECKING:
    from attar.distillation.pipeline import ImageStream, StageOutputs
    from attar.distillation.run_plan import RunPlan
    from attar.job import Job
    from attar.methods.base import Method


@checked
def distill_sets(
    job: Job,
    name: str,
    method: Method,
    ipcs: Sequence[int],
    out: Path,
    *,
    say: Say = quiet,
    fits: Mapping[int, Artefact] | None = None,
    engine: Engine = LOCAL,
) -> list[Path]:
    """Distills, and writes one set for each IPC: `out` itself, or `out/ipc-001`, `out/ipc-010` ... for several.

    A set that is already there is left as it is; a dry run ends after the checks and the estimate. `fits` are what was
    learnt of each class elsewhere. Workers of an engine make what is long; this process finds it in the store, and
    decodes and writes.

    The time stated for the first set begins with the checks, which read all images and may train a prior.

    Raises:
        AttarError: any input is wrong, or a folder belongs to another run; before any long work.
    """
    from attar.distillation.checks import planned

    begun = time.monotonic()
    engine.check(job.spec.device)
    plan = planned(job, name, method, ipcs, out, say, fits)
    missing = plan.missing(plan.ipcs, say)
    parts = _foretold(plan, missing, say)
    if job.dry:
        if isinstance(job.progress, GridItem):
            job.progress.foresee(parts)
    else:
        with _told_whole(job, parts if engine.is_local else {}):
            _make_ahead(plan, missing, engine)
            _write_all(plan, missing, begun, say)
    return list(plan.folders.values())


def _foretold(plan: RunPlan, ipcs: Sequence[int], say: Say) -> Mapping[str, StageForecast]:
    """Says what is left to do, and who is weak; gives its parts where they have a forecast."""
    from attar.distillation.labelling import label_estimate

    estimate, parts = _estimate(plan, ipcs)
    for weak in dict.fromkeys(teacher.weak for teacher in plan.teachers if teacher.weak) if ipcs else ():
        say(f"note: {weak}")
    if ipcs and plan.tried_labeller is not None:
        estimate = f"{estimate}; {label_estimate(plan.job, plan.method, plan.tried_labeller, ipcs)}"
    say(estimate)
    return parts


def _write_all(plan: RunPlan, ipcs: Sequence[int], begun: float, say: Say) -> None:
    from attar.sets.manifest import read_manifest
    from attar.sets.races import races_in_words

    for ipc in ipcs:
        seconds = _write(plan, ipc, make(plan, ipc), say)
        begun, last = time.monotonic(), begun
        if seconds is not None:
            passed = begun - last
            whole = f"with checks and preparation in {duration(passed)}"
            before = f"most of it before this, which took {duration(passed)}"
            if raced := races_in_words(read_manifest(plan.folders[ipc] / "manifest.json")):
                say(f"ipc {ipc}: {raced}")
            say(f"wrote {plan.folders[ipc]}, made in {duration(seconds)}, {before if seconds > passed else whole}")


@contextmanager
def _told_whole(job: Job, parts: Mapping[str, StageForecast]) -> Iterator[None]:
    """Within it the job tells how long all that was forecast still takes."""
    from attar.distillation.cost import tell

    progress = job.progress
    job.progress = partial(tell, whole_of(progress, parts)) if parts else progress
    try:
        yield
    finally:
        job.progress = progress


def _write(plan: RunPlan, ipc: int, made: StageOutputs, say: Say) -> float | None:
    """Writes the set of one IPC; the seconds of its stages, as its manifest and a report state them.

    None where another run has written it meanwhile.
    """
    from attar.distillation.labelling import label
    from attar.distillation.manifest import manifest, prototypes, statistics
    from attar.sets.distilled import write_distilled
    from attar.sets.manifest import read_manifest

    job, folder = plan.job, plan.folders[ipc]
    with job.store.lock(Artefact("writing", {"out": str(folder.absolute())})):
        if not plan.missing([ipc], quiet):
            return None
        beside = (prototypes(job, plan.method, made.fitted), statistics(plan, made.fitted))
        labels = None if plan.labeller is None else partial(label, job, plan.labeller, say, made.real)
        job.store.once(set_artefact(plan, ipc, made), partial(_noted, folder))
        write_distilled(folder, job.classes, made.images, manifest(plan, ipc, made), *beside, plan.generates, labels)
    return sum(read_manifest(folder / "manifest.json")["seconds"].values())


def set_artefact(plan: RunPlan, ipc: int, made: StageOutputs) -> Artefact:
    """What the cache remembers of a set: what it was made from (`attar cache explain DIR`).

    It is noted before the set appears, so that no set is there that the cache does not know.
    """
    spec = plan.job.spec
    asked = {"run": plan.key(ipc), "method": plan.name, "ipc": ipc, "data": spec.data, "seed": spec.seed}
    asked |= {"formation": spec.formation} if spec.formation > 1 else {}
    return Artefact("set", {**asked, "made from": list({artefact.key: artefact for artefact in made.stored}.values())})


def _noted(folder: Path, scratch: Path) -> None:
    write_json(scratch / "set.json", {"folder": str(folder.absolute())})


def make(plan: RunPlan, ipc: int) -> StageOutputs:
    """The images of one IPC, stage by stage."""
    from attar.distillation import pipeline
    from attar.distillation.artefacts import load_artefact
    from attar.methods.base import ComposedImages, RealImages

    job, method, count = plan.job, plan.method, plan.job.spec.made(ipc)
    if isinstance(method, RealImages):
        compared, begun = pipeline.prepare_features(job, method), time.monotonic()
        chosen = pipeline.places_chosen(job, method, count)
        choosing, parts = time.monotonic() - begun, partial(pipeline.copy, job, method, chosen)
        real = {label: [[place] for place in places] for label, places in chosen.items()}
        return pipeline.StageOutputs(_mosaics(job, parts), compared=compared, real=real, choosing=choosing)
    if isinstance(method, ComposedImages):
        prepared = pipeline.prepare(job, method)
        parts = partial(pipeline.compose, job, method, prepared, count)
        sources = {label: method.real_places(job, load_artefact(job, of), count) for label, of in prepared.items()}
        return pipeline.StageOutputs(_mosaics(job, parts), prepared=prepared, real=sources)
    method, asked = method.for_ipc(count), plan.artefacts[ipc]
    fitted = pipeline.fit(job, method, asked)
    candidates = pipeline.sample(job, method, asked, fitted)
    selected = pipeline.select(job, method, candidates, count)
    refined = pipeline.refine(job, method, asked, fitted, selected, count)
    real = pipeline.real_places(method, fitted, selected, count)
    kept = pipeline.as_they_are(method, fitted, real) if method.refine is None else {}
    decode = partial(pipeline.decode, job, refined, kept, count)
    parts = partial(pipeline.finished, job, refined) if method.refines_pixels else decode
    weights = pipeline.weights(method, fitted, selected, count)
    return pipeline.StageOutputs(_mosaics(job, parts), fitted, asked, weights, real=real)


def _mosaics(job: Job, parts: Callable[[Collection[int]], ImageStream]) -> Callable[[Collection[int]], ImageStream]:
    from attar.distillation import pipeline

    return parts if job.spec.formation == 1 else partial(pipeline.mosaics, job.spec.formation, parts)


def _make_ahead(plan: RunPlan, ipcs: Sequence[int], engine: Engine) -> None:
    if engine.is_local:
        return
    from attar.distillation.cluster_items import item_stages

    with engine.cluster():
        for items in item_stages(plan, ipcs):
            raise_first(engine.ahead(items, plan.job.spec.device, plan.job.progress))


def _estimate(plan: RunPlan, ipcs: Sequence[int]) -> tuple[str, Mapping[str, StageForecast]]:
    """What is left to do, in words, and its parts where they have a forecast."""
    size = f"{counted(len(plan.job.images), 'image')} of {counted(len(plan.job.classes), 'class')}"
    if not ipcs:
        return f"{size}: nothing left to do", {}
    from attar.data import still_to_look_at
    from attar.distillation.cost import choices, remaining, training_of_prior
    from attar.methods.base import RealImages
    from attar.sets.mosaics import grid_words

    spec, first = plan.job.spec, choices(plan.job, plan.method, list(map(plan.job.spec.made, ipcs)))
    looking = still_to_look_at([plan.job.picked], plan.job.store) if plan.job.dry else ""
    if isinstance(plan.method, RealImages):
        into = f" into mosaics of {grid_words(spec.formation)}" if spec.formation > 1 else ""
        copied = spec.made(sum(ipcs)) * len(plan.job.classes)
        timed = "".join(f"; {work}, {about(sum(seconds))}" for work, seconds in first.items())
        return f"{size}: {copied} of them will be copied{into}{timed}{looking}", {}
    trained = "; the prior digits is trained before that" if plan.uses_prior and plan.job.untrained else ""
    work = "".join(f"; {work}" for work in first)
    left = remaining(plan, ipcs, list(chain(*first.values())))
    before = training_of_prior(plan.job) if trained else {}
    return f"{size}: {left.words}{work}{trained}{looking}", {**before, **left.parts}
