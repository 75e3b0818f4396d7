"""The stages of a run. Each takes what the one before returned, and returns what it made.

    LatentMethod     fit -> sample -> select -> refine -> decode, or -> finished where pixels are refined
    ComposedImages   prepare -> compose
    RealImages       places_chosen -> copy

In a formation, `mosaics` has the last word in each.

What is long is in the store: a stage makes what is missing there and returns where it lies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attar.core.errors import AttarError
from attar.core.finite import naming, save_finite
from attar.core.progress import Meter
from attar.core.store import Artefact
from attar.data import load_pixels, preprocess
from attar.data.pixels import Pixels
from attar.distillation.artefacts import Artefacts, load_artefact, prepared_artefact
from attar.distillation.denoising import BUNDLE, denoised, starts
from attar.job import Job
from attar.methods.base import ComposedImages, Fit, Group, LatentMethod, RealImages, Tensors
from attar.priors.codec import of_one_colour, to_uint8
from attar.priors.prior import Prior
from attar.sets.mosaics import mosaic, reduced

ImageStream = Iterator[tuple[int, int, Pixels]]
"""(label, index, uint8 (H, W, 3)) of each image, in order."""


@dataclass(frozen=True, eq=False)
class StoredLatents:
    """The latents of a class's images at t = 0; or, where a method refines pixels, the images themselves."""

    stored: Artefact
    """Where they lie in the store."""
    rows: Tensor | None = None
    """Which of the stored latents, (IPC,); None: all."""

    def load(self, job: Job) -> Tensor:
        """(IPC, C, H, W), float32, on the CPU."""
        z = load_artefact(job, self.stored)["z"]
        return z if self.rows is None else z[self.rows]


@dataclass(frozen=True, eq=False)
class StageOutputs:
    """What the stages made for the set of one IPC."""

    images: Callable[[Collection[int]], ImageStream]
    """The images of all classes but those that are written already."""
    fitted: Mapping[int, Tensors] = field(default_factory=dict)
    """What the fit learnt of each class."""
    asked: Artefacts | None = None
    """What the set is made from, of a method that samples a prior."""
    weights: Mapping[int, list[float]] = field(default_factory=dict)
    """What the images of each class weigh, in their order; empty where all weigh the same."""
    prepared: Mapping[int, Artefact] = field(default_factory=dict)
    """What was prepared of each class, of a method that composes images."""
    compared: Sequence[Artefact] = ()
    """What real images are chosen by."""
    real: Mapping[int, Sequence[Sequence[int]]] = field(default_factory=dict)
    """Which real images each of a class is, is made of or began as, by their places in it; of mosaics, each part."""
    choosing: float = 0.0
    """Seconds that the choice among real images took."""

    @property
    def stored(self) -> list[Artefact]:
        """All that lies in the store."""
        if self.asked is None:
            return [*self.prepared.values(), *self.compared]
        return self.asked.stored


def fit(job: Job, method: LatentMethod, asked: Artefacts) -> dict[int, Tensors]:
    """What the fit learns of each class, by label; classes that are fitted together have the same."""
    groups = [group for group in asked.groups if group[0] in asked.fits]
    learnt = {group: fit_group(job, method.fit, group, asked.fits[group[0]]) for group in groups}
    return {label: tensors for group, tensors in learnt.items() for label in group}


def fit_group(job: Job, fit: Fit, group: Group, artefact: Artefact) -> Tensors:
    """What the fit learns of one group of classes."""
    what = f"fitting {job.classes[group[0]]!r}" + (f" and {len(group) - 1} more" if group[1:] else "")
    return load_artefact(job, _once(job, artefact, partial(fit.run, job, group), what))


def sample(job: Job, method: LatentMethod, asked: Artefacts, fitted: Mapping[int, Tensors]) -> dict[int, Artefact]:
    """Each class's candidates: its starts, denoised from their time to 0. Batched across classes."""
    bundles = asked.groups if method.fit.tunes else [tuple(asked.candidates)]
    for bundle in bundles:
        missing = [label for label in bundle if not job.store.has(asked.candidates[label])]
        if missing:
            with method.fit.adapted(job.prior, fitted.get(bundle[0], {})) as prior:
                _sample_missing(job, prior, method, asked, fitted, missing)
    return dict(asked.candidates)


def _sample_missing(
    job: Job,
    prior: Prior,
    method: LatentMethod,
    asked: Artefacts,
    fitted: Mapping[int, Tensors],
    labels: Sequence[int],
) -> None:
    count = asked.candidates[labels[0]].inputs["count"]
    looks_back = method.guide is not None and method.guide.looks_back
    at_once = max(1, BUNDLE * prior.batch_size // (1 if looks_back else count))
    meter, guide = Meter(job.progress, "sampling", len(labels) * count, "images"), method.guiding(job, fitted)
    for begin in range(0, len(labels), at_once):
        some, begun = labels[begin : begin + at_once], time.monotonic()
        found = starts(job, method, fitted, some, count, partial(_told_of_all, job, begin, len(some), len(labels)))
        made = denoised(job, prior, method, guide, some, found, meter)
        seconds = (time.monotonic() - begun) / len(some)
        for label, tensors in zip(some, made, strict=True):
            _once(job, asked.candidates[label], partial(_kept, tensors), f"sampling {job.classes[label]!r}", seconds)


def _told_of_all(job: Job, begin: int, some: int, labels: int, text: str, fraction: float) -> None:
    """The progress of some of the classes as that of all."""
    job.progress(text, (begin + fraction * some) / labels)


def select(job: Job, method: LatentMethod, candidates: Mapping[int, Artefact], ipc: int) -> dict[int, StoredLatents]:
    """The candidates of each class that are kept."""
    pools = {label: partial(_pool, job, made) for label, made in candidates.items()}
    keep = method.select.among(job, pools)
    return {label: StoredLatents(made, keep(job, label, pools[label](), ipc)) for label, made in candidates.items()}


def _pool(job: Job, candidates: Artefact) -> Tensor:
    return load_artefact(job, candidates)["z"]


def weights(
    method: LatentMethod, fitted: Mapping[int, Tensors], kept: Mapping[int, StoredLatents], ipc: int
) -> dict[int, list[float]]:
    """What the kept images of each class weigh; nothing where all weigh the same.

    Images whose weights are all 0, as a choice among many can leave, weigh 1 each.
    """
    found = {}
    for label, latents in kept.items():
        own = method.fit.image_weights(fitted.get(label, {}), method.select.candidates(ipc))
        if own is not None:
            chosen = own if latents.rows is None else own[latents.rows]
            found[label] = (chosen if chosen.any() else torch.ones_like(chosen)).tolist()
    return found


def real_places(
    method: LatentMethod, fitted: Mapping[int, Tensors], kept: Mapping[int, StoredLatents], ipc: int
) -> dict[int, list[list[int]]]:
    """Which real image of a class each of its images began as; nothing where they began as no single ones."""
    found = {}
    for label, latents in kept.items():
        own = method.fit.real_places(fitted.get(label, {}), method.select.candidates(ipc))
        if own is not None:
            found[label] = [[place] for place in (own if latents.rows is None else own[latents.rows]).tolist()]
    return found


def as_they_are(
    method: LatentMethod, fitted: Mapping[int, Tensors], real: Mapping[int, Sequence[Sequence[int]]]
) -> dict[int, list[int]]:
    """Of the classes whose images are real ones that nothing denoises: which, by their places in the class."""
    kept = {label: places for label, places in real.items() if method.fit.keeps_real(fitted[label])}
    return {label: [place for (place,) in places] for label, places in kept.items()}


def refine(
    job: Job,
    method: LatentMethod,
    asked: Artefacts,
    fitted: Mapping[int, Tensors],
    kept: Mapping[int, StoredLatents],
    ipc: int,
) -> dict[int, StoredLatents]:
    """The kept latents, improved where the method refines: latents again, or finished images."""
    if method.refine is None:
        return dict(kept)
    real = as_they_are(method, fitted, real_places(method, fitted, kept, ipc))
    for group in asked.groups:
        with method.fit.adapted(job.prior, fitted.get(group[0], {})) as prior:
            for label in group:
                make = partial(_refined, job, prior, method, label, kept[label], real)
                _once(job, asked.refined[label], make, f"refining {job.classes[label]!r}")
    return {label: StoredLatents(made) for label, made in asked.refined.items()}


def _refined(
    job: Job,
    prior: Prior,
    method: LatentMethod,
    label: int,
    kept: StoredLatents,
    real: Mapping[int, Sequence[int]],
    _scratch: Path,
) -> Tensors:
    assert method.refine is not None
    if method.refine.space == "latents":
        return {"z": method.refine(job, prior, label, kept.load(job))}
    images = np.stack([_as_stored(job, pixels) for pixels in _shown(job, [label], {label: kept}, real)])
    moved = method.refine(job, prior, label, torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
    return {"pixels": torch.from_numpy(to_uint8(moved))}


def finished(job: Job, refined: Mapping[int, StoredLatents], done: Collection[int] = ()) -> ImageStream:
    """The images of all classes that are not `done`, of a method that refines pixels."""
    for label in (label for label in refined if label not in done):
        for index, pixels in enumerate(load_artefact(job, refined[label].stored)["pixels"].numpy()):
            yield label, index, pixels


def decode(
    job: Job,
    latents: Mapping[int, StoredLatents],
    real: Mapping[int, Sequence[int]],
    ipc: int,
    done: Collection[int] = (),
) -> ImageStream:
    """The images of all classes that are not `done`, brought to the spec's output size, or that of parts of it.

    Those of the classes in `real` are not decoded: they are real ones of these places.
    """
    missing = [label for label in latents if label not in done]
    meter = Meter(job.progress, f"decoding {ipc} a class", ipc * len(missing), "images")
    at_once = max(1, BUNDLE * job.codec.batch_size // ipc)
    for begin in range(0, len(missing), at_once):
        labels = missing[begin : begin + at_once]
        for number, pixels in enumerate(_shown(job, labels, latents, real)):
            yield labels[number // ipc], number % ipc, _as_stored(job, pixels)
        meter.add(ipc * len(labels))


def _shown(
    job: Job, labels: Sequence[int], latents: Mapping[int, StoredLatents], real: Mapping[int, Sequence[int]]
) -> Pixels:
    """The images (N, S, S, 3) of some classes, as many of each: real ones, or decoded."""
    if not all(label in real for label in labels):
        return _decoded(job, labels, torch.cat([latents[label].load(job) for label in labels]))
    numbers = np.concatenate([job.images.of_class(label)[list(real[label])] for label in labels])
    return load_pixels(job.images, numbers, job.codec.size, job.spec.preprocess)


def _as_stored(job: Job, pixels: Pixels) -> Pixels:
    """A decoded image at the size that the set stores it at: its output size, or that of a part of a mosaic."""
    side = (job.spec.output_size or len(pixels)) // job.spec.formation
    return reduced(pixels, side, job.spec.output_filter)


def _decoded(job: Job, labels: Sequence[int], z: Tensor) -> Pixels:
    """The images (N, S, S, 3) of latents of some classes, as many of each.

    Raises:
        AttarError: an image is of a single colour, as no image of anything is: the prior or its codec is broken.
        NotFinite: an image is NaN or infinite.
    """
    with naming(f"decoding {job.classes[labels[0]]!r}" + (f" to {job.classes[labels[-1]]!r}" if labels[1:] else "")):
        images = to_uint8(job.codec.decode(z))
    if len(flat := of_one_colour(images)):
        number, ipc = int(flat[0]), len(z) // len(labels)
        raise AttarError(
            f"image {number % ipc} of {job.classes[labels[number // ipc]]!r} is of a single colour, "
            f"{tuple(images[number, 0, 0].tolist())}: the prior or its codec makes no images"
        )
    return images


def prepare(job: Job, method: ComposedImages) -> dict[int, Artefact]:
    """The long work of a method that composes images, for each class."""
    artefacts = {label: prepared_artefact(job, method, label) for label in job.labels}
    meter = Meter(job.progress, "preparing", len(artefacts), "classes")
    for label, artefact in artefacts.items():
        prepare_class(job, method, label, artefact)
        meter.add()
    return artefacts


def prepare_class(job: Job, method: ComposedImages, label: int, artefact: Artefact) -> None:
    """The long work of one class."""
    _once(job, artefact, lambda _: method.prepare(job, label), f"preparing {job.classes[label]!r}")


def compose(
    job: Job, method: ComposedImages, prepared: Mapping[int, Artefact], ipc: int, done: Collection[int] = ()
) -> ImageStream:
    """The images of all classes that are not `done`, from what was prepared of them."""
    for label in (label for label in prepared if label not in done):
        for index, pixels in enumerate(method.images(job, label, load_artefact(job, prepared[label]), ipc)):
            yield label, index, _part(job, method, Image.fromarray(pixels)) if job.spec.formation > 1 else pixels


def prepare_features(job: Job, method: RealImages) -> list[Artefact]:
    """All that the rule compares real images by."""
    needed = method.select.needed_features(job)
    for features in needed:
        features.prepare(job, job.labels)
    return [stored for features in needed for stored in features.stored(job)]


def places_chosen(job: Job, method: RealImages, ipc: int) -> dict[int, list[int]]:
    """The real images of each class that the rule keeps, by their places in it, in the order of the choice."""
    pools = {label: torch.from_numpy(job.images.of_class(label)) for label in job.labels}
    keep = method.select.among(job, {label: partial(pools.__getitem__, label) for label in pools})
    return {label: keep(job, label, pool, ipc).tolist() for label, pool in pools.items()}


def copy(job: Job, method: RealImages, chosen: Mapping[int, Sequence[int]], done: Collection[int] = ()) -> ImageStream:
    """The real images that were chosen, of all classes that are not `done`, pixel for pixel."""
    for label in (label for label in chosen if label not in done):
        for index, number in enumerate(job.images.of_class(label)[chosen[label]]):
            image = job.images.open(int(number))
            yield label, index, _part(job, method, image) if job.spec.formation > 1 else np.asarray(image)


def _part(job: Job, method: RealImages | ComposedImages, image: Image.Image) -> Pixels:
    """An image as a part of a mosaic: brought to a square of the mosaic's side, and reduced."""
    side = job.spec.output_size or method.side(job)
    square = preprocess(image, side, job.spec.preprocess)
    return reduced(square, side // job.spec.formation, job.spec.output_filter)


def mosaics(formation: int, parts: Callable[[Collection[int]], ImageStream], done: Collection[int] = ()) -> ImageStream:
    """The parts of each class, as many as make a mosaic in one."""
    held: list[Pixels] = []
    for label, index, pixels in parts(done):
        held.append(pixels)
        if len(held) == formation**2:
            yield label, index // formation**2, mosaic(held)
            held = []


def _once(job: Job, artefact: Artefact, make: Callable[[Path], Tensors], what: str, seconds: float = 0.0) -> Artefact:
    """The artefact, made by `make(scratch)` if it is not in the store yet; `what` names the work in errors."""

    def save(scratch: Path) -> None:
        with naming(what):
            tensors = make(scratch)
        save_finite(tensors, scratch / f"{artefact.kind}.safetensors", what)

    job.store.once(artefact, save, seconds)
    return artefact


def _kept(tensors: Tensors, _scratch: Path) -> Tensors:
    return tensors
