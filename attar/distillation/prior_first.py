"""A run that asks for a prior of its own: tried dry with one that is untrained, then trained, then used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from attar.core.batching import resolve
from attar.core.errors import AttarError
from attar.core.files import as_source
from attar.core.progress import Say, quiet
from attar.core.wording import counted
from attar.data import load_data
from attar.data.output_places import named_after, occupied
from attar.distillation.run_without_method import suited_teacher, teacher_of
from attar.job import Job
from attar.methods.base import LatentMethod
from attar.networks import check_size
from attar.priors import TRAIN
from attar.priors.training.settings import NewPrior, Training

if TYPE_CHECKING:
    import torch

    from attar.methods.base import Method
    from attar.priors.codec import Codec
    from attar.teachers.maps import TeacherMaps
    from attar.teachers.settings import TeacherTraining

SIDE = 64
"""Images are seen at this size at most, in pixels."""
TOKENS = {"cpu": 8, "cuda": 16}
"""So many patches a side are what a processor can bear for hours, and a GPU for minutes."""
MANY = 5_000
"""Of fewer images a prior learns little."""
STEPS, LEAST_STEPS, EPOCHS = 10_000, 2_000, 300
"""Small data are not seen more often than this in more than the least steps."""


def distill_with(
    job: Job, method: Method | None, distill: Callable[..., list[Path]], out: Path, say: Say
) -> list[Path]:
    """`distill(job, say=...)`; where the job's prior is `train`, one is trained on its images first, as `OUT.prior`.

    It is aligned with a small teacher, `OUT.teacher`, which comes before it (docs/results.md says what that is worth).
    All that can be wrong with the run is tried before both, on an untrained network of the prior's shape.

    Raises:
        AttarError: any input is wrong; before the prior is trained.
    """
    if job.spec.prior != TRAIN:
        return distill(job, say=say)
    if not (method is None or isinstance(method, LatentMethod) or _looks_with_prior(method, job)):
        raise AttarError("`prior` train: the method looks at nothing with it, so there is none to train; leave it out")
    from attar.priors.training.run import train_new_prior

    folder, plan, teacher = prior_of(out), _plan(job), _teacher(job)
    there = occupied(folder)
    if not there:
        say(_announced(job, method, out, teacher is not None))
        _try(job, plan, distill, say if job.dry else quiet)
    with named_after(out):
        maps = None
        if teacher is not None:
            plan = replace(plan, align=as_source(teacher_of(out)))
            maps = _maps(job, teacher, out, quiet if there or (job.dry and method is None) else say)
        train_new_prior(plan, folder, store=job.store, progress=job.progress, say=say, dry_run=job.dry, teacher=maps)
    if job.dry and not there:
        return []
    try:
        return distill(_with_prior(job, as_source(folder), job.dry), say=say)
    except AttarError as error:
        if str(folder) not in str(error) or "damaged" not in str(error):
            raise
        raise AttarError(
            f"{error}; of a prior that was trained for this run: remove {folder}, and run again"
        ) from error


def _looks_with_prior(method: Method, job: Job) -> bool:
    """Whether a method compares images by what the prior makes of them, not by latents, which need no training."""
    return any(features.of == "prior" for features in method.select.needed_features(job))


def _announced(job: Job, method: Method | None, out: Path, taught: bool) -> str:
    count, chooses = len(job.everything), method.fit.chooses if isinstance(method, LatentMethod) else None
    aligned = f", aligned with a small teacher of them, {teacher_of(out)}" if taught else ""
    few = f"; {counted(count, 'image')} are few for a prior, of thousands it learns more" if count < MANY else ""
    if taught and chooses is not None and chooses.reference is None:
        few = f"; `method` chooses without a teacher: leave it out, and this one chooses, too{few}"
    passed = f"; the folder {TRAIN} is not looked at: a prior in it is ./{TRAIN}" if Path(TRAIN).exists() else ""
    return (
        f"a prior of the images is trained first, in {prior_of(out)}{aligned}; with settings of your own: `attar "
        f"train-prior`{few}{passed}"
    )


def _try(job: Job, plan: NewPrior, distill: Callable[..., list[Path]], say: Say) -> None:
    """A dry run with the prior as it will be, but for what it learns."""
    with TemporaryDirectory() as place:
        _write_untrained(job, plan, Path(place))
        tried = _with_prior(job, place, dry=True)
        tried.awaits_prior = True
        try:
            distill(tried, say=lambda text: say(text.replace(place, TRAIN)))
        except AttarError as error:
            raise AttarError(str(error).replace(place, TRAIN)) from error


def _teacher(job: Job) -> TeacherTraining | None:
    """The training of a small teacher of the images; None where there is one class, or images are too small for one."""
    training, classes = suited_teacher(job), len(job.everything.classes)
    try:
        check_size(training.network, classes, job.side)
    except AttarError:
        return None
    return training if classes > 1 else None


def _maps(job: Job, training: TeacherTraining, out: Path, say: Say) -> TeacherMaps:
    """What a prior is aligned with: the teacher of `out`, trained where it is not there.

    An untrained one stands in for it in a dry run, and where the prior is there. Either is named by the training: a
    teacher that is trained once more, perhaps to other bits, makes no other prior.
    """
    from attar.teachers.load import load_pretrained
    from attar.teachers.maps import as_maps
    from attar.teachers.train import before_training, train_teacher

    teacher, key = before_training(training, job.store, job.progress, job.dry)
    if not occupied(prior_of(out)):
        folder = teacher_of(out)
        train_teacher(training, folder, store=job.store, progress=job.progress, say=say, dry_run=job.dry)
        teacher = teacher if job.dry else load_pretrained(as_source(folder), None, teacher.outputs, job.side)
    return as_maps(teacher, key)


def prior_of(out: Path) -> Path:
    """Where the prior of the sets in `out` is written."""
    return out.parent / f"{out.name}.prior"


def _with_prior(job: Job, prior: str, dry: bool) -> Job:
    return Job(replace(job.spec, prior=prior, codec=None), job.store, job.progress, dry)


def _plan(job: Job) -> NewPrior:
    """A training that suits the images and the machine: hours of a CPU, minutes of a GPU."""
    spec = job.spec
    if spec.imbalance_factor is not None:
        raise AttarError(f"`imbalance_factor` {spec.imbalance_factor:g}: a prior is trained on all images; name one")
    codec, dtype = spec.codec or "pixel", spec.dtype if spec.dtype in ("float32", "bfloat16") else "auto"
    if codec == TRAIN:
        raise AttarError("`codec` train: train the prior by itself, with `attar train-prior`")
    try:
        load_data(spec.data).held_out()
    except AttarError as error:
        raise AttarError(f"`prior` {TRAIN}: {error}, to measure a prior on") from error
    device, number_format = resolve(spec.device, spec.dtype)
    most, shrunk = TOKENS.get(device.type, 8), SIDE // _codec(codec, SIDE, device, number_format).shape[-1]
    size = _size(min(job.side, SIDE), shrunk, most)
    common: dict[str, Any] = {"on_bad_image": spec.on_bad_image, "device": spec.device, "dtype": dtype, "keep": "best"}
    common |= {"preprocess": spec.preprocess, "codec": codec, "size": size}
    steps = min(STEPS, max(LEAST_STEPS, EPOCHS * len(job.everything) // Training.batch))
    return NewPrior(
        spec.data, training=Training(seed=spec.seed, steps=steps, patch=_patch(size // shrunk, most)), **common
    )


def _size(side: int, shrunk: int, most: int) -> int:
    """The largest size of images, of `side` at most, that a codec can shrink and whose latents are cut well.

    That is into half as many patches a side as they may be, at least: a prime number of pixels makes one patch.
    """
    for size in range(side // shrunk * shrunk, 0, -shrunk):
        latent = size // shrunk
        if 2 * (latent // _patch(latent, most)) >= min(most, latent // 2):
            return size
    return shrunk


def _patch(side: int, most: int) -> int:
    """The smallest patch, of 2 at least, that cuts a side into so many at most."""
    return next((patch for patch in range(2, side) if side % patch == 0 and side // patch <= most), side)


def _codec(source: str, size: int | None, device: torch.device, dtype: torch.dtype) -> Codec:
    from attar.priors.training.vae import open_codec

    return open_codec(source, size, device, dtype, dry=True)


def _write_untrained(job: Job, plan: NewPrior, folder: Path) -> None:
    from attar.priors.folder import new_scheduler, write_pipeline
    from attar.priors.shared_embedders import untrained

    codec = _codec(plan.codec, plan.size, *resolve(job.spec.device, job.spec.dtype))
    classes = job.everything.classes
    network = untrained(codec.shape, len(classes), plan.training, plan.training.seed, "train-prior", "weights")
    scheduler = new_scheduler(plan.training.prediction)
    write_pipeline(folder, network.with_own_embedders(), scheduler, classes, getattr(codec, "vae", None))
