"""Features: what images are compared by, real or generated. Each pool's are made once and kept in the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from attar.priors.features import TIME, prior_features
from attar.selection.rules import BY_TEACHER
from attar.teachers.check import TRIED_EACH, Examples
from attar.teachers.features import doubts, features_and_losses, last_layer
from attar.teachers.open import open_teacher
from attar.teachers.reference import TeacherReference
from attar.teachers.teacher import Pretrained, SingleTeacher

if TYPE_CHECKING:
    from attar.job import Job

FeatureKind = Literal["teacher", "prior", "latents", "pixels"]
CHUNK = 256
"""Images in memory at a time."""
SIDE = 32
"""Size of the images whose pixels are compared."""
TRIED = 500
"""Images that a teacher is tried on, about; of many classes more, TRIED_EACH of each (attar.teachers.check)."""


@dataclass(frozen=True)
class ImageFeatures:
    """What images are compared by.

    A pool is a class's real images, all of them, by their numbers (N,) in the data set; or latents (N, C, H, W).
    """

    of: FeatureKind | Literal["answers"]
    """`teacher`: the input of its last layer; `answers`: how right and sure it is, nothing else; `prior`: its middle
    layer (attar.priors.features); `latents`: the prior's codec's, posterior means; `pixels`: the image at 32 x 32, from
    -1 to 1."""
    teacher: TeacherReference | None = None
    """Whose features they are, where they are a teacher's."""

    def rows(self, job: Job, label: int, pool: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The features (N, D) of a pool."""
        if self.of == "latents":
            return _latents(job, label, pool).flatten(1).numpy()
        return load_file(self._stored(job, label, pool))["features"].numpy()

    def losses(self, job: Job, label: int, pool: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
        """How little a teacher is sure of the pool's class, (N,): its cross-entropy, or, of answers, its doubts."""
        return load_file(self._stored(job, label, pool))["losses"].double().numpy()

    def artefact(self, job: Job, label: int, pool: Tensor) -> Artefact:
        """A pool's features, as the store has them."""
        if pool.ndim > 1:
            drawn = {"count": len(pool), "digest": digest(pool.contiguous().numpy().tobytes())}
            images: dict[str, Any] = {"latents": drawn, "codec": job.codec.key, "encoding": job.encoding}
        else:
            images = {"images": job.images.identity(label), "pillow": PIL.__version__}
        by: dict[str, Any] = {"size": SIDE}
        if self.of in BY_TEACHER:
            teacher = self._teacher(job)
            by = {"teacher": Named(str(self.teacher), teacher.network_key), "logit": teacher.logits[label]}
        elif self.of == "prior":
            by = {"prior": job.named_prior, "codec": job.codec.key, "time": TIME}
            by |= {"compute": job.compute, "encoding": job.encoding}
        images = {"class": job.classes[label], **images, "preprocess": job.spec.preprocess}
        return Artefact("features", {"of": self.of, "by": by, **images, "machine": job.machine})

    def prepare(self, job: Job, labels: Sequence[int]) -> None:
        """Makes and stores those of all real images of some classes, class by class."""
        for label in labels:
            pool = torch.from_numpy(job.images.of_class(label))
            if self.of == "latents":
                _latents(job, label, pool)
            else:
                self._stored(job, label, pool)

    def missing(self, job: Job, label: int) -> int:
        """How many of a class's real images have no stored features yet."""
        if self.of == "latents":
            return job.latents.missing(label)
        pool = torch.from_numpy(job.images.of_class(label))
        return 0 if job.store.has(self.artefact(job, label, pool)) else len(pool)

    def stored(self, job: Job) -> list[Artefact]:
        """The real images' features, class by class; latents are kept by themselves."""
        pools = (torch.from_numpy(job.images.of_class(label)) for label in job.labels)
        return [] if self.of == "latents" else [self.artefact(job, label, pool) for label, pool in enumerate(pools)]

    def _teacher(self, job: Job) -> SingleTeacher:
        assert self.teacher is not None, "the rule was checked"
        return teacher_for(job, self.teacher)

    def _stored(self, job: Job, label: int, pool: Tensor) -> Path:
        def make(scratch: Path) -> None:
            what = f"the features of {job.classes[label]!r}, by the {self.of}"
            save_finite(self._made(job, label, pool), scratch / "features.safetensors", what)

        return job.store.once(self.artefact(job, label, pool), make) / "features.safetensors"

    def _made(self, job: Job, label: int, pool: Tensor) -> dict[str, Tensor]:
        if self.of == "prior":
            z = _latents(job, label, pool)
            parts = _counted(job, f"the prior looks at {job.classes[label]}", z.split(CHUNK), len(z))
            return {"features": torch.cat([prior_features(job.prior, part) for part in parts])}
        if self.of == "pixels":
            return {"features": torch.cat([to_float(part).flatten(1) for part in _pixels(job, pool, SIDE)])}
        teacher = self._teacher(job)
        parts = _counted(job, f"the teacher looks at {job.classes[label]}", _pixels(job, pool, teacher.side), len(pool))
        if self.of == "answers":
            return {"losses": torch.cat([doubts(teacher, part, label) for part in parts])}
        features, losses = zip(*(features_and_losses(teacher, part, label) for part in parts), strict=True)
        return {"features": torch.cat(features), "losses": torch.cat(losses)}


def teacher_for(job: Job, reference: TeacherReference, side: int | None = None) -> SingleTeacher:
    """A teacher, opened and tried on images of the job's data when the job first asks for it.

    Where it does not say itself how large images are, they are of `side` pixels, or of the prior's size or the data's.

    Raises:
        AttarError: there is no such teacher, or it fails a check of `attar.teachers.check`.
    """
    if (reference, side) not in job.teachers:
        job.teachers[reference, side] = _opened(job, reference, side)
    return job.teachers[reference, side]


def _opened(job: Job, reference: TeacherReference, side: int | None) -> SingleTeacher:
    """A teacher, on the job's device, tried on about 500 images of the job's classes."""
    side = side or (job.codec.size if job.spec.prior else job.side)
    every = job.everything.classes
    if not isinstance(reference.source, str):
        raise AttarError(f"`teacher` {reference}: features and losses are those of one network; name one teacher")

    def known(pretrained: Pretrained) -> tuple[str, ...]:
        return every if pretrained.classes is None or len(job.classes) == 1 else job.classes

    def examples(pretrained: Pretrained) -> Examples:
        last_layer(pretrained)
        return _examples(job, known(pretrained), pretrained.size or side)

    teacher = open_teacher(reference, examples, classes=len(every), size=side, normalise="half")
    assert isinstance(teacher, SingleTeacher)
    labels = known(teacher.pretrained)
    return teacher.restricted([labels.index(name) for name in job.classes])


def _examples(job: Job, classes: Sequence[str], size: int) -> Examples:
    """Some random images of each of the job's classes, on its device, with their labels among `classes`."""
    chosen: list[int] = []
    for label, name in enumerate(job.classes):
        order = numpy_generator("tried", name).permutation(job.images.of_class(label))
        chosen += order[: max(TRIED_EACH, TRIED // len(job.classes))].tolist()
    device, _ = resolve(job.spec.device, "auto")
    pixels = torch.from_numpy(load_pixels(job.images, chosen, size, job.spec.preprocess))
    labels = torch.tensor([classes.index(job.classes[label]) for label in job.images.labels[chosen]])
    return Examples(pixels.to(device), labels.to(device), classes, f"images of {job.images.spec}")


def _latents(job: Job, label: int, pool: Tensor) -> Tensor:
    """The latents (N, C, H, W) of a pool; of real images the posterior means, in the data's order."""
    if pool.ndim > 1:
        return pool
    z = torch.empty(len(pool), *job.codec.shape)
    for shard in job.latents.shards(label, progress=job.progress):
        z[torch.from_numpy(shard.positions)] = shard.mean.float()
    return z


def _pixels(job: Job, pool: Tensor, side: int) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    """The images of a pool as uint8 (n, side, side, 3), `CHUNK` at a time: real ones are read, latents decoded."""
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
