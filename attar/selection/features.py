"""Features: what images are compared by, real or generated. Each pool's are made once and kept in the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import PIL
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from attar.core.batching import resolve
from attar.core.errors import AttarError
from attar.core.fingerprints import Named
from attar.core.finite import save_finite
from attar.core.progress import Meter
from attar.core.rng import numpy_generator
from attar.core.store import Artefact, digest
from attar.data import load_pixels, preprocess
from attar.priors.codec import to_float, to_uint8
from attar.priors.features import TIME, middle_features
from attar.teachers.check import TRIED_EACH, fit_teacher
from attar.teachers.judge import Judge, last_layer, network_key
from attar.teachers.load import load_teacher
from attar.teachers.reference import TeacherReference
from attar.teachers.teacher import Labeller

if TYPE_CHECKING:
    from attar.job import Job

Kind = Literal["teacher", "prior", "latents", "pixels"]
CHUNK = 256
"""Images in memory at a time."""
SIDE = 32
"""Size of the images whose pixels are compared."""
TRIED = 500
"""Images that a teacher is tried on, about; of many classes more, TRIED_EACH of each (attar.teachers.check)."""


@dataclass(frozen=True)
class Features:
    """What images are compared by.

    A pool is a class's real images, all of them, by their numbers (N,) in the data set; or latents (N, C, H, W).
    """

    of: Kind
    """`teacher`: the input of its last layer; `prior`: its middle layer (attar.priors.features); `latents`: the prior's
    codec's, posterior means; `pixels`: the image at 32 x 32, from -1 to 1."""
    teacher: TeacherReference | None = None

    def rows(self, job: Job, label: int, pool: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The features (N, D) of a pool."""
        if self.of == "latents":
            return _latents(job, label, pool).flatten(1).numpy()
        return load_file(self._stored(job, label, pool))["features"].numpy()

    def losses(self, job: Job, label: int, pool: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The teacher's cross-entropy (N,) for the pool's class: the lower, the surer it is of an image."""
        return load_file(self._stored(job, label, pool))["losses"].double().numpy()

    def artefact(self, job: Job, label: int, pool: Tensor) -> Artefact:
        """A pool's features, as the store has them."""
        if pool.ndim > 1:
            drawn = {"count": len(pool), "digest": digest(pool.contiguous().numpy().tobytes())}
            shown: dict[str, Any] = {"latents": drawn, "codec": job.codec.key, "encoding": job.encoding}
        else:
            shown = {"images": job.images.identity(label), "pillow": PIL.__version__}
        by: dict[str, Any] = {"size": SIDE}
        if self.of == "teacher":
            judge = self._judge(job)
            by = {"teacher": Named(str(self.teacher), judge.network), "logit": judge.columns[label]}
        elif self.of == "prior":
            by = {"prior": job.named_prior, "codec": job.codec.key, "time": TIME}
            by |= {"compute": job.compute, "encoding": job.encoding}
        seen = {"class": job.classes[label], **shown, "preprocess": job.spec.preprocess}
        return Artefact("features", {"of": self.of, "by": by, **seen, "machine": job.machine})

    def prepare(self, job: Job) -> None:
        """Makes and stores those of all real images, class by class."""
        for label in job.labels:
            pool = torch.from_numpy(job.images.of_class(label))
            if self.of == "latents":
                _latents(job, label, pool)
            else:
                self._stored(job, label, pool)

    def missing(self, job: Job, label: int) -> int:
        """How many of a class's real images are still to be looked at."""
        if self.of == "latents":
            return job.latents.missing(label)
        pool = torch.from_numpy(job.images.of_class(label))
        return 0 if job.store.has(self.artefact(job, label, pool)) else len(pool)

    def stored(self, job: Job) -> list[Artefact]:
        """The real images' features, class by class; latents are kept by themselves."""
        pools = (torch.from_numpy(job.images.of_class(label)) for label in job.labels)
        return [] if self.of == "latents" else [self.artefact(job, label, pool) for label, pool in enumerate(pools)]

    def _judge(self, job: Job) -> Judge:
        assert self.teacher is not None, "the rule was checked"
        return open_teacher(job, self.teacher)

    def _stored(self, job: Job, label: int, pool: Tensor) -> Path:
        def make(scratch: Path) -> None:
            what = f"the features of {job.classes[label]!r}, by the {self.of}"
            save_finite(self._made(job, label, pool), scratch / "features.safetensors", what)

        return job.store.once(self.artefact(job, label, pool), make) / "features.safetensors"

    def _made(self, job: Job, label: int, pool: Tensor) -> dict[str, Tensor]:
        if self.of == "prior":
            z = _latents(job, label, pool)
            parts = _counted(job, f"the prior looks at {job.classes[label]}", z.split(CHUNK), len(z))
            return {"features": torch.cat([middle_features(job.prior, part) for part in parts])}
        if self.of == "pixels":
            return {"features": torch.cat([to_float(part).flatten(1) for part in _pixels(job, pool, SIDE)])}
        judge = self._judge(job)
        pictures = _counted(
            job, f"the teacher looks at {job.classes[label]}", _pixels(job, pool, judge.size), len(pool)
        )
        features, losses = zip(*(judge.looked(part, label) for part in pictures), strict=True)
        return {"features": torch.cat(features), "losses": torch.cat(losses)}


def open_teacher(job: Job, teacher: TeacherReference, side: int | None = None) -> Judge:
    """A teacher, opened and tried on images of the job's data when the job first asks for it.

    Where it does not say itself how large images are, they are of `side` pixels, or of the prior's size or the data's.

    Raises:
        AttarError: there is no such teacher, or it fails a check of `attar.teachers.check`.
    """
    if (teacher, side) not in job.judges:
        job.judges[teacher, side] = _opened(job, teacher, side)
    return job.judges[teacher, side]


def _opened(job: Job, named: TeacherReference, side: int | None) -> Judge:
    """A teacher, on the job's device, tried on about 500 images of the job's classes."""
    try:
        side = side or (job.codec.size if job.spec.prior else job.side)
        every, listed = job.everything.classes, None if named.classes is None else Path(named.classes)
        if not isinstance(named.source, str):
            raise AttarError(f"--teacher {named}: features and losses are those of one network; name one teacher")
        teacher = load_teacher(named.source, listed, len(every), side, named.normalise)
        last, size = last_layer(teacher), teacher.size or side
        classes = every if teacher.classes is None or len(job.classes) == 1 else job.classes
        device, _ = resolve(job.spec.device, "auto")
        images, labels = _tried_on(job, size)
        labels = torch.tensor([classes.index(job.classes[label]) for label in labels.tolist()])
        of = f"images of {job.images.spec}"
        fitted = fit_teacher(teacher, images.to(device), labels.to(device), classes, "half", of)
    except AttarError as error:
        told = str(error).replace("--teacher-", "select.teacher_").replace("--teacher", "select.teacher")
        raise AttarError(told) from error
    assert isinstance(fitted.labeller, Labeller)
    columns = [int(fitted.labeller.columns[classes.index(name)]) for name in job.classes]
    return Judge(teacher, columns, last, size, network_key(teacher, size), fitted.accuracy, fitted.matched)


def _tried_on(job: Job, size: int) -> tuple[Tensor, Tensor]:
    """Some random images (N, S, S, 3) of each of the job's classes, and their labels."""
    chosen: list[int] = []
    for label, name in enumerate(job.classes):
        order = numpy_generator("tried", name).permutation(job.images.of_class(label))
        chosen += order[: max(TRIED_EACH, TRIED // len(job.classes))].tolist()
    pixels = load_pixels(job.images, chosen, size, job.spec.preprocess)
    return torch.from_numpy(pixels), torch.tensor(job.images.labels[chosen])


def _latents(job: Job, label: int, pool: Tensor) -> Tensor:
    """The latents (N, C, H, W) of a pool; of real images the posterior means, in the data's order."""
    if pool.ndim > 1:
        return pool
    z = torch.empty(len(pool), *job.codec.shape)
    for shard in job.latents.shards(label, progress=job.progress):
        z[torch.from_numpy(shard.positions)] = shard.mean.float()
    return z


def _pixels(job: Job, pool: Tensor, side: int) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    """The images of a pool as uint8 (n, side, side, 3), some at a time: real ones are read, latents decoded."""
    how = job.spec.preprocess
    for part in pool.split(CHUNK):
        if pool.ndim == 1:
            yield load_pixels(job.images, part.numpy(), side, how)
        else:
            decoded = to_uint8(job.codec.decode(part))
            yield np.stack([preprocess(Image.fromarray(picture), side, how) for picture in decoded])


def _counted(job: Job, text: str, parts: Any, total: int) -> Iterator[Any]:
    """The parts, each counted when the next one is asked for."""
    meter = Meter(job.progress, text, total, "images")
    for part in parts:
        yield part
        meter.add(len(part))
