"""The soft labels that a run writes into its sets: their teacher, tried before there are images, then asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attar.core.errors import AttarError
from attar.core.progress import Say, about, timed_on
from attar.core.wording import counted
from attar.sets.own_labels import LABELS

if TYPE_CHECKING:
    from torch import Tensor

    from attar.evaluation import Recipe
    from attar.job import Job, Spec
    from attar.methods.base import Method
    from attar.sets.distilled import DistilledSet
    from attar.teachers.reference import TeacherReference
    from attar.teachers.teacher import Teacher

TIMED = 8
"""Images that are labelled at once to see how long they take."""


def label_teacher(spec: Spec, method: Method) -> TeacherReference | None:
    """Who labels the images, in words; None where no labels are asked for.

    Raises:
        AttarError: they are, and neither the spec nor the method names a teacher.
    """
    from attar.teachers.reference import TeacherReference

    if spec.labels is None:
        return None
    if spec.label_teacher is not None:
        return TeacherReference.from_text([spec.label_teacher])
    if (named := _named_by(method)) is None:
        raise AttarError(f"`labels` {spec.labels}: the method names no teacher; name one as `label_teacher`")
    return named


def check_label_teacher(spec: Spec) -> None:
    """Raises AttarError where the spec names a teacher for its labels who is not there."""
    from attar.teachers.load import check_form
    from attar.teachers.reference import TeacherReference

    for source in () if spec.label_teacher is None else TeacherReference.from_text([spec.label_teacher]).sources:
        check_form(source, "`label_teacher`")


def _named_by(method: Method) -> TeacherReference | None:
    """The teacher that scores crops, or chooses images, where the method names one."""
    from attar.methods.base import LatentMethod

    chooses = method.fit.chooses if isinstance(method, LatentMethod) else None
    own = (getattr(method, "reference", None), method.select.reference, None if chooses is None else chooses.reference)
    return next(filter(None, own), None)


def tried_teacher(job: Job, method: Method, reference: TeacherReference) -> Teacher:
    """The teacher, opened and tried on real images of the job, of the size that its sets will have.

    Raises:
        AttarError: there is no such teacher, or it fails a check of `attar.teachers.check`.
    """
    from attar.evaluation.load_images import tried_on
    from attar.evaluation.teaching import recipe_teacher

    spec = job.spec
    side = spec.output_size or method.side(job)
    examples = tried_on(job.images, spec.seed, side, spec.preprocess)
    return recipe_teacher(reference, examples[0], examples, _recipe(spec), spec.device)


def label_estimate(job: Job, method: Method, teacher: Teacher, ipcs: Sequence[int]) -> str:
    """How many images the sets of these IPCs have labels of, and about how long these take on this device, in words."""
    import torch

    from attar.core.batching import resolve
    from attar.evaluation.label_temperature import FORETOLD

    count = len(job.classes) * job.spec.made(sum(ipcs))
    side = teacher.size or job.spec.output_size or method.side(job)
    device = resolve(job.spec.device, "auto")[0]
    some = torch.zeros(TIMED, 3, side, side, device=device)
    with torch.no_grad():
        each = timed_on(lambda: teacher(some), device) / TIMED
    tried = FORETOLD if job.spec.label_temperature == "auto" else ""
    return f"{counted(count, 'image')} to label as {job.spec.labels}, {about(each * count)}{tried}"


def label(
    job: Job,
    reference: TeacherReference,
    say: Say,
    real: Mapping[int, Sequence[Sequence[int]]],
    distilled: DistilledSet,
) -> dict[str, Any]:
    """Writes the labels of a set that is being written; what its manifest says of who gave them, and of their use.

    Parts of mosaics that are or began as single real images, of these `real` places, have the labels of those: a
    teacher knows images of their size, and parts are a fraction of it.
    """
    from attar.evaluation.relabel import advised, label_set

    spec, how = job.spec, (job.spec.device, job.store, job.progress)
    originals = _originals(job, real, distilled) if spec.formation > 1 else None
    known = label_set(distilled, reference, _recipe(spec), *how, originals)
    if spec.label_temperature is not None:
        known["advice"] = advised(distilled, distilled.folder / LABELS, spec.label_temperature, *how, say)
    kept = {name: known[name] for name in ("network", "accuracy", "classes", "advice") if name in known}
    seen = {} if originals is None else {"looked_at": "the real images that the parts are, or began as, at full size"}
    return {"labelled_by": {"teacher": str(reference.anywhere), **kept, **seen}}


def _originals(job: Job, real: Mapping[int, Sequence[Sequence[int]]], distilled: DistilledSet) -> Tensor | None:
    """The real images (N, S, S, 3) that parts of mosaics are or began as; None where some are not single ones."""
    import torch
    from PIL import Image

    from attar.data import load_pixels

    places = [real.get(label, ()) for label in job.labels]
    whole = len(distilled.manifest["images"]) * job.spec.formation**2
    if sum(map(len, places)) != whole or any(len(of) != 1 for own in places for of in own):
        return None
    numbers = [job.images.of_class(label)[place] for label, own in enumerate(places) for (place,) in own]
    with Image.open(distilled.files()[0][0]) as mosaic:
        side = mosaic.width
    return torch.from_numpy(load_pixels(job.images, numbers, side, job.spec.preprocess))


def _recipe(spec: Spec) -> Recipe:
    """One with fixed labels: these depend on nothing else of it."""
    from attar.evaluation import named_recipe

    return named_recipe("quick", {"scheme": spec.labels})
