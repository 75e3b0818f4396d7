"""Everything that can be wrong with a run, checked before anything is done; the cheapest check first."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from attar.core.batching import resolve
from attar.core.errors import AttarError, suggestion
from attar.core.limits import IPC, check_most
from attar.core.progress import Say
from attar.core.store import Artefact
from attar.core.wording import counted
from attar.data.output_places import check_place, occupied
from attar.distillation.labelling import check_label_teacher, label_teacher
from attar.distillation.run_plan import RunPlan, foreign, set_in
from attar.job import FOR_PRIOR, Job, Spec
from attar.methods.base import ComposedImages, LatentMethod, Method, RealImages
from attar.sets.mosaics import check_divisible

if TYPE_CHECKING:
    from attar.data import ImageSet
    from attar.diffusion import Sampler


_warn_once = lru_cache(logging.getLogger("attar").warning)


def planned(
    job: Job,
    name: str,
    method: Method,
    ipcs: Sequence[int],
    out: Path,
    say: Say,
    fits: Mapping[int, Artefact] | None = None,
) -> RunPlan:
    """Everything that can be wrong with a run, looked at before any of it is done.

    Raises:
        AttarError: what is wrong and what to do.
    """
    plan = foreseen(job, name, method, ipcs, out, fits)
    check_label_teacher(job.spec)
    if isinstance(method, LatentMethod):
        if not job.unread:
            method.fit.check(job.prior)
        _choosing_real(job, method, plan.ipcs)
        _guided(job, method.sampler, say)
    _enough_images(plan, job.images)
    if isinstance(method, ComposedImages):
        method.check(job, [job.spec.made(ipc) for ipc in plan.ipcs])
    _left_out(job, say)
    method.select.try_teacher(job)
    if (teacher := plan.tried_labeller) is not None:
        say(f"{plan.labeller}: {teacher.accuracy:.1f} % right, classes {teacher.matched}")
    for ipc in plan.ipcs:
        _not_foreign(plan, ipc)
    if plan.uses_prior and job.prior.classes is None and not job.spec.class_map:
        say("the prior carries no class names: its classes are taken to be the data's, in the data's order")
    return plan


def foreseen(
    job: Job,
    name: str,
    method: Method,
    ipcs: Sequence[int],
    out: Path,
    fits: Mapping[int, Artefact] | None = None,
) -> RunPlan:
    """What can be wrong with a run whatever its teacher is, which need not be there yet.

    Raises:
        AttarError: what is wrong and what to do.
    """
    ordered = _ordered(ipcs)
    _known_settings(job.spec, name, method)
    resolve(job.spec.device, job.spec.dtype)
    folders = {ipc: out if len(ordered) == 1 else out / f"ipc-{ipc:03d}" for ipc in ordered}
    plan = RunPlan(job, name, method, ordered, folders, fits)
    if not plan.uses_prior:
        _without_prior(job.spec, name)
    label_teacher(job.spec, method)
    _check_folders(plan, out)
    if job.spec.formation > 1:
        _check_formation(job.spec, job.spec.output_size or method.side(job), max(ordered))
    _enough_images(plan, job.picked)
    made = [job.spec.made(ipc) for ipc in ordered]
    method.select.check(job, made, generated=isinstance(method, LatentMethod))
    if plan.uses_prior:
        _known_to_prior(job)
    return plan


def _ordered(ipcs: Sequence[int]) -> tuple[int, ...]:
    """Each IPC once, rising.

    Raises:
        AttarError: one is no number of images, or there is none.
    """
    if not ipcs or any(isinstance(ipc, bool) or not isinstance(ipc, int) or ipc < 1 for ipc in ipcs):
        raise AttarError(f"`ipc` {','.join(map(str, ipcs))}: the number of images per class must be 1 or more")
    check_most("`ipc`", max(ipcs), IPC)
    return tuple(sorted(set(ipcs)))


def _check_folders(plan: RunPlan, out: Path) -> None:
    """Raises AttarError where the sets may not be written, or something else is there already."""
    check_place(out, "`out`", [plan.job.spec.data], adds=[plan.folders[plan.ipcs[0]].name] if plan.ipcs[1:] else ())
    for folder in filter(occupied, plan.folders.values()):
        set_in(folder)


def _left_out(job: Job, say: Say) -> None:
    if names := job.images.skipped:
        more = " ..." if len(names) > 5 else ""
        say(f"left out: {counted(len(names), 'unreadable image')}: {', '.join(names[:5])}{more}")


def _known_settings(spec: Spec, name: str, method: Method) -> None:
    from attar.data import PREPROCESSING

    if spec.preprocess not in PREPROCESSING:
        hint = suggestion(spec.preprocess, PREPROCESSING)
        raise AttarError(f"`preprocess` {spec.preprocess}{hint}: choose one of {', '.join(PREPROCESSING)}")
    if spec.keep_statistics and not getattr(method, "keeps_statistics", False):
        raise AttarError(f"`keep_statistics`: {name} learns no mean and deviation of each class; d3hr does")
    if spec.keep_statistics and needs_data(method):
        raise AttarError(f"`keep_statistics`: sets are made again without the data, which {needs_data(method)} needs")
    if isinstance(method, LatentMethod) and method.fit.weighs and not method.of_clusters:
        does = "those of d4m, mgd3 and tgdd do"
        raise AttarError(f"`fit.weights`: images of {name} stand for no cluster of their own; {does}")
    if spec.output_size is not None and spec.formation == 1 and not isinstance(method, LatentMethod):
        raise AttarError(
            f"`output_size` {spec.output_size}: {name} takes no prior, whose images it is for; leave it out"
        )


def _without_prior(spec: Spec, name: str) -> None:
    """Warns of a prior, and what is said to it, that is not asked; without one, what is said to it is a mistake."""
    given = [field for field in ("prior", *FOR_PRIOR) if getattr(spec, field) != getattr(Spec, field)]
    text = ", ".join(f"`{field}` {getattr(spec, field)}" for field in given)
    if given and spec.prior is None:
        raise AttarError(f"{text}: {name} asks no prior; leave out what is meant for one")
    if given:
        _warn_once(f"{name} asks no prior: {text} {'has' if len(given) == 1 else 'have'} no effect")


def _check_formation(spec: Spec, side: int, most: int) -> None:
    """Raises AttarError where images of this side cannot be divided, or there would be too many of them."""
    check_divisible(side, spec.formation)
    check_most("`ipc` times `formation` squared,", spec.made(most), IPC)


def needs_data(method: Method) -> str:
    """What of a method needs real images after its fit, in words; nothing where none does."""
    if isinstance(method, LatentMethod) and method.refine is not None:
        return "refine"
    return "" if method.select.teacher is None else "select.teacher"


def _choosing_real(job: Job, method: LatentMethod, ipcs: Sequence[int]) -> None:
    """What a fit that chooses real images chooses them by, and what images are refined by, checked."""
    for made in map(job.spec.made, ipcs):
        if (select := method.fit.for_ipc(made).chooses) is not None:
            if select.joint:
                raise AttarError(f"fit.select.rule {select.rule}: a fit sees a class by itself; choose another rule")
            select.check(job, [made], generated=False)
            select.try_teacher(job)
    if method.refine is not None:
        method.refine.check(job)


def _known_to_prior(job: Job) -> None:
    """Raises AttarError for classes that the prior does not know; before it is trained, if it is a built-in one."""
    from attar.priors import known_classes

    names = known_classes(str(job.spec.prior))
    if names is not None:
        job.match(names, len(names))
    assert job.prior_labels


def _guided(job: Job, sampler: Sampler, say: Say) -> None:
    """Says where other channels are guided than those that the field counts on: the first of the usual four."""
    guided, channels = sampler.guided_channels, job.prior.codec.shape[0]
    if guided is not None and guided > channels:
        few = f"it has {channels}, fewer than `sampler.guided_channels={guided}`"
        say(f"all channels of the prior are guided: {few} (the method's default, if you did not set it)")
    if guided is not None and guided < channels != 4:
        say(f"{guided} of the prior's {channels} channels are guided; all with `sampler.guided_channels=none`")


def _not_foreign(plan: RunPlan, ipc: int) -> None:
    folder, asked = plan.folders[ipc], plan.asked(ipc)
    if occupied(folder):
        manifest = set_in(folder)
        other = [name for name, value in asked.items() if manifest.get(name) != value]
        if other and not (other == ["data"] and plan.job.half_seen):
            raise foreign(folder, manifest, asked)


def _enough_images(plan: RunPlan, images: ImageSet) -> None:
    most, real = plan.job.spec.made(max(plan.ipcs)), isinstance(plan.method, RealImages)
    if isinstance(plan.method, ComposedImages):
        needed = plan.method.needs(plan.job, most)
    else:
        needed = plan.method.for_ipc(most).fit.needs if isinstance(plan.method, LatentMethod) else most
    counts = {name: len(images.of_class(label)) for label, name in enumerate(images.classes)}
    few = ", ".join(f"{name!r} ({count})" for name, count in counts.items() if count < needed)
    if few and real:
        formation = plan.job.spec.formation
        asked = f"{max(plan.ipcs)}{f' with `formation` {formation}, {needed} of them' if formation > 1 else ''}"
        raise AttarError(f"`ipc` {asked}: more real images than these classes have: {few}")
    if few:
        raise AttarError(f"{plan.name} needs {counted(needed, 'image')} of each class; too few: {few}")
