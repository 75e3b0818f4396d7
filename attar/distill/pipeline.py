"""The driver that all methods share: fit, start, denoise, select, refine, decode; each finished piece is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from attar.core.errors import AttarError, NotFinite
from attar.core.files import read_lines
from attar.core.finite import finite, naming, save_finite
from attar.core.progress import Meter
from attar.core.store import fingerprint
from attar.diffusion import sample, times_from
from attar.job import Job
from attar.methods.base import Composed, Fit, Group, Method, Start, Tensors
from attar.methods.minimax.monitor import MEASURES
from attar.priors.codec import to_uint8
from attar.priors.prior import Prior
from attar.sets.distilled import CLASSES_SHOWN, IMAGES_SHOWN, evenly

BUNDLE = 4
"""Tiles denoised at a time: finished classes are stored after each bundle."""

TOTALS = ("count", "inertia")
"""What fits learn that adds up over groups."""

THUMBNAIL = 128
"""Pixels: larger prototypes are kept as thumbnails of this size."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def distill(job: Job, method: Method, ipcs: Sequence[int], engine: Engine) -> None:
    """Makes and stores all that the distilled sets of these IPCs are written from."""
    if isinstance(method, Composed):
        meter = Meter(job.progress, "preparing", len(job.labels), "classes")
        for _ in engine.map(partial(prepared, job, method), job.labels):
            meter.add()
    if method.sampler is None:
        for look in method.select.looks(job):
            look.prepare(job)
        return
    alike: dict[Method, list[int]] = {}
    for ipc in ipcs:
        alike.setdefault(at(method, ipc), []).append(ipc)
    for one, some in alike.items():
        _distill(job, one, some, engine)


def at(method: Method, ipc: int) -> Method:
    """The method as it is for sets of so many images per class: its fit may depend on that."""
    fit = method.fit.for_ipc(ipc)
    return method if fit == method.fit else cast("Method", replace(cast(Any, method), fit=fit))


def _distill(job: Job, method: Method, ipcs: Sequence[int], engine: Engine) -> None:
    groups = method.fit.groups(job.labels)
    fitted = dict(zip(map(tuple, groups), engine.map(partial(fit_group, job, method.fit), groups), strict=True))
    bundles = groups if method.fit.tunes else [list(job.labels)]
    for bundle in bundles:
        with method.fit.adapted(job.prior, fitted.get(tuple(bundle), {})) as prior:
            for ipc in ipcs:
                learnt = {label: tensors for group, tensors in fitted.items() for label in group}
                make_candidates(job, prior, method, learnt, bundle, method.select.candidates(ipc))
                if method.refine is not None:
                    for label in bundle:
                        refined(job, prior, method, label, ipc)


def fit_group(job: Job, fit: Fit, group: Group) -> Tensors:
    """What the fit learns of one group, from the store if it is there."""
    return job.once(fit, group)


def group_of(job: Job, fit: Fit, label: int) -> Group:
    """The classes that a class is fitted with."""
    return next(group for group in fit.groups(job.labels) if label in group)


def candidates_key(job: Job, method: Method, label: int, count: int) -> str:
    """The fingerprint of a class's candidates. Selection and refinement do not enter: another choice is free."""
    fit = job.fit_key(method.fit, group_of(job, method.fit, label)) if method.fit.learns else None
    making = {name: value for name, value in vars(method).items() if name not in ("select", "refine", "fit")}
    inputs = (job.classes[label], job.told(label), job.spec.seed, job.prior.key, job.compute)
    return fingerprint(type(method).__qualname__, making, fit, inputs, count)


def prepared_key(job: Job, method: Composed, label: int) -> str:
    """The fingerprint of what a method prepares of a class without a prior."""
    own = (job.classes[label], job.images.digest(label), job.spec.seed)
    return fingerprint(type(method).__qualname__, method.inputs(job), own)


def prepared(job: Job, method: Composed, label: int) -> Tensors:
    """What a method prepares of a class without a prior, from the store if it is there."""

    def make(scratch: Path) -> None:
        what = f"preparing {job.classes[label]!r}"
        save_finite(method.prepare(job, label), scratch / "prepared.safetensors", what)

    about = {"method": method, "class": job.classes[label]}
    return load_file(job.store.once("prepared", prepared_key(job, method, label), make, about) / "prepared.safetensors")


def make_candidates(
    job: Job, prior: Prior, method: Method, fitted: dict[int, Tensors], labels: Sequence[int], count: int
) -> None:
    """Denoises `count` candidates of each class, batched across classes, and stores each class's latents at t = 0."""
    keys = {label: candidates_key(job, method, label, count) for label in labels}
    missing = [label for label in labels if not job.store.has("candidates", keys[label])]
    at_once = max(1, BUNDLE * prior.tile // count)
    meter = Meter(job.progress, "sampling", len(missing) * count, "images")
    for begin in range(0, len(missing), at_once):
        some, begun = missing[begin : begin + at_once], time.monotonic()
        starts = list(_starts(job, method, fitted, some, count))
        made = list(denoise(job, prior, method, some, starts, meter))
        spent = (time.monotonic() - begun) / len(some)
        for label, z in zip(some, made, strict=True):
            about = {"method": method, "class": job.classes[label]}
            save = partial(_save_candidates, z, f"sampling {job.classes[label]!r}")
            job.store.once("candidates", keys[label], save, about, spent)


def _starts(job: Job, method: Method, fitted: dict[int, Tensors], labels: Sequence[int], count: int) -> Iterator[Start]:
    meter = Meter(job.progress, "finding starts", len(labels), "classes")
    for label in labels:
        start = method.start(job, fitted[label], label, count)
        finite(start.z, f"the starts of {job.classes[label]!r}")
        yield start
        meter.add()


def denoise(
    job: Job, prior: Prior, method: Method, labels: Sequence[int], starts: Sequence[Start], meter: Meter
) -> Iterator[Tensor]:
    """Denoises the starts of several classes together; yields each class's latents (n, C, H, W) on the CPU."""
    assert method.sampler is not None
    times = {start.t for start in starts}
    assert len(times) == 1, "one method starts all of its classes at one time"
    t = times.pop()
    z = torch.cat([start.z for start in starts]).to(prior.device)
    counts = [len(start.z) for start in starts]
    rows = [(label, index) for label, n in zip(labels, counts, strict=True) for index in range(n)]
    y = job.conditions([label for label, _ in rows])
    steps = len(times_from(method.sampler, prior, t))
    done = []
    for begin in range(0, len(rows), BUNDLE * prior.tile):
        some = slice(begin, begin + BUNDLE * prior.tile)
        drawn = partial(step_noise, job, rows[some])
        step = meter.within(len(rows[some]), steps)
        try:
            done.append(sample(prior, z[some], t, y[some], method.sampler, step, drawn).cpu())
        except NotFinite as error:
            label, _ = rows[some][error.rows[0]]
            raise NotFinite(f"sampling {job.classes[label]!r}: {error}") from error
        meter.add(len(rows[some]))
    yield from torch.cat(done).split(counts)


def step_noise(job: Job, rows: Sequence[tuple[int, int]], t: int) -> Tensor:
    """The noise (N, C, H, W) that a solver draws in the step that leaves time t, each candidate's by its own key."""
    shape = job.codec.shape
    return torch.stack([job.noise(shape, "solver", label, index, t) for label, index in rows])


def _save_candidates(z: Tensor, what: str, scratch: Path) -> None:
    save_finite({"z": z}, scratch / "candidates.safetensors", what)


def kept(job: Job, method: Method, label: int, ipc: int) -> Tensor:
    """The latents (ipc, C, H, W) of the candidates that the method keeps, from the store."""
    count = method.select.candidates(ipc)
    folder = job.store.folder("candidates", candidates_key(job, method, label, count))
    pool = load_file(folder / "candidates.safetensors")["z"]
    return pool[method.select(job, label, pool, ipc)]


def refined(job: Job, prior: Prior, method: Method, label: int, ipc: int) -> Path:
    """The kept latents of a class after refinement, stored."""
    assert method.refine is not None
    refine = method.refine

    def make(scratch: Path) -> None:
        what = f"refining {job.classes[label]!r}"
        with naming(what):
            z = refine(job, prior, label, kept(job, method, label, ipc))
        save_finite({"z": z}, scratch / "refined.safetensors", what)

    return job.store.once("refined", refined_key(job, method, label, ipc), make, {"method": method})


def refined_key(job: Job, method: Method, label: int, ipc: int) -> str:
    """The fingerprint of a class's refined latents."""
    made = candidates_key(job, method, label, method.select.candidates(ipc))
    real = (job.images.digest(label), job.spec.preprocess, job.codec.key, job.encoding)
    return fingerprint(made, method.select.identity(job), method.refine, ipc, real)


def final_images(job: Job, method: Method, ipc: int, done: Collection[int] = ()) -> Iterator[tuple[int, int, Pixels]]:
    """The distilled images of all labels that are not `done`, in order: (label, index, uint8 (H, W, 3)).

    They are decoded from the store and brought to the spec's output size, or composed or copied from the real ones.
    """
    missing, method = [label for label in job.labels if label not in done], at(method, ipc)
    if isinstance(method, Composed):
        for label in missing:
            for index, pixels in enumerate(method.images(job, label, prepared(job, method, label), ipc)):
                yield label, index, pixels
        return
    if method.sampler is None:
        yield from _real_images(job, method, missing, ipc)
        return
    meter = Meter(job.progress, f"decoding IPC {ipc}", ipc * len(missing), "images")
    at_once = max(1, BUNDLE * job.codec.tile // ipc)
    for begin in range(0, len(missing), at_once):
        labels = missing[begin : begin + at_once]
        z = torch.cat([_final_latents(job, method, label, ipc) for label in labels])
        for number, pixels in enumerate(_decoded(job, labels, z)):
            side = job.spec.output_size or len(pixels)
            yield labels[number // ipc], number % ipc, resized(pixels, side, job.spec.output_filter)
        meter.add(len(z))


def _decoded(job: Job, labels: Sequence[int], z: Tensor) -> Pixels:
    """The images (N, S, S, 3) of latents of some classes, as many of each.

    Raises:
        AttarError: an image is of a single colour, as no image of anything is: the prior or its codec is broken.
        NotFinite: an image is NaN or infinite.
    """
    with naming(f"decoding {job.classes[labels[0]]!r}" + (f" to {job.classes[labels[-1]]!r}" if labels[1:] else "")):
        images = to_uint8(job.codec.decode(z))
    flat = (images == images[:, :1, :1]).all((1, 2, 3)).nonzero()[0]
    if len(flat) and images.shape[1] > 1:
        number, ipc = int(flat[0]), len(z) // len(labels)
        raise AttarError(
            f"image {number % ipc} of {job.classes[labels[number // ipc]]!r} is of a single colour, "
            f"{tuple(images[number, 0, 0].tolist())}: the prior or its codec makes no images"
        )
    return images


def prototype_images(job: Job, method: Method, ipc: int) -> Iterator[tuple[int, int, Pixels]]:
    """The prototypes that sets of this IPC begin from, decoded: the first of each of some classes, as thumbnails.

    Nothing for methods without prototypes.
    """
    fit = method.fit.for_ipc(ipc)
    for label in evenly(job.labels, CLASSES_SHOWN):
        prototypes = fit_group(job, fit, group_of(job, fit, label)).get("prototypes")
        if prototypes is not None:
            side = min(job.codec.size, THUMBNAIL)
            for index, pixels in enumerate(to_uint8(job.codec.decode(prototypes[:IMAGES_SHOWN]))):
                yield label, index, resized(pixels, side)


def learnt(job: Job, method: Method, ipc: int) -> dict[str, float]:
    """The single numbers among what the fit learnt: the `TOTALS` are summed over its groups, others are means."""
    fit, found = method.fit.for_ipc(ipc), dict[str, list[float]]()
    for group in fit.groups(job.labels):
        for name, value in fit_group(job, fit, group).items():
            if value.ndim == 0:
                found.setdefault(name, []).append(float(value))
    return {name: sum(values) / (1 if name in TOTALS else len(values)) for name, values in found.items()}


def watched(job: Job, method: Method, ipc: int) -> list[dict[str, Any]]:
    """What was measured while the prior was tuned to each group of classes; empty where it was not."""
    fit, found = method.fit.for_ipc(ipc), []
    for group in fit.groups(job.labels) if fit.tunes else ():
        looks = read_lines(job.store.folder("fit", job.fit_key(fit, group)) / MEASURES)
        if looks:
            found.append({"classes": [job.classes[label] for label in group], "looks": looks})
    return found


def resized(pixels: Pixels, side: int, how: str = "lanczos") -> Pixels:
    """An image (H, W, 3) brought to `side` x `side` pixels with a filter of PIL's, by name."""
    if pixels.shape[:2] == (side, side):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling[how.upper()]))


def _final_latents(job: Job, method: Method, label: int, ipc: int) -> Tensor:
    if method.refine is None:
        return kept(job, method, label, ipc)
    folder = job.store.folder("refined", refined_key(job, method, label, ipc))
    return load_file(folder / "refined.safetensors")["z"]


def _real_images(job: Job, method: Method, labels: Sequence[int], ipc: int) -> Iterator[tuple[int, int, Pixels]]:
    for label in labels:
        pool = torch.from_numpy(job.images.of_class(label))
        for index, choice in enumerate(method.select(job, label, pool, ipc)):
            yield label, index, np.asarray(job.images.open(int(pool[choice])))


Item = TypeVar("Item")
Made = TypeVar("Made")


class Engine(Protocol):
    """Applies a picklable function to picklable items; results come in the items' order."""

    def map(self, function: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]: ...


class Local:
    """One item after the other in this process."""

    def map(self, function: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
        return map(function, items)
