"""What a run will cost, before it starts, and what it has cost, when it is done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from attar.core.progress import duration
from attar.diffusion import times_from
from attar.distill.pipeline import at, candidates_key, prepared_key, refined_key
from attar.job import Job
from attar.methods.base import Composed, Fit, Method, real_choice
from attar.priors.codec import Codec
from attar.priors.prior import Prior
from attar.selection.features import Features


def remaining(job: Job, method: Method, ipcs: Sequence[int]) -> str:
    """The work that is not yet in the store, and about how long it takes on this device, in words.

    The time is that of the network, of finding the starts and of encoding; each is measured on a small part.
    """
    if isinstance(method, Composed):
        left = [label for label in job.labels if not job.store.has("prepared", prepared_key(job, method, label))]
        return method.estimate(job, left)
    fits = {fit for ipc in ipcs if (fit := method.fit.for_ipc(ipc)).learns}
    unfitted = [(fit, group) for fit in fits for group in fit.groups(job.labels) if not job.has_fit(fit, group)]
    fitting = sum(fit.passes([len(job.images.of_class(label)) for label in group]) for fit, group in unfitted)
    asked = {_key(job, method, label, ipc): method.select.candidates(ipc) for ipc in ipcs for label in job.labels}
    missing = [count for key, count in asked.items() if not job.store.has("candidates", key)]
    images = sum(missing)
    sampling = images * passes_per_image(job, method)
    seconds = (fitting + sampling) / passes_per_second(job.prior) if fitting + sampling else 0.0
    seconds += sum(classes * method.start_seconds(job, count) for count, classes in Counter(missing).items())
    encoding = sum(max(_unencoded(job, fit, label) for fit in fits) for label in {c for _, g in unfitted for c in g})
    if encoding:
        seconds += encoding / encoded_per_second(job.codec)
    refining, more = _refining(job, method, ipcs)
    seconds += more
    if not (fitting or sampling or encoding or refining):
        return "all images are made; they have only to be written"
    of = f"{fitting:,} to fit, {sampling:,} to sample {images:,}"
    encoded = f", {encoding:,} images to encode" if encoding else ""
    improved = f", {refining:,} images to refine" if refining else ""
    return f"{fitting + sampling:,} network passes ({of}){encoded}{improved}, about {duration(seconds)}"


def _refining(job: Job, method: Method, ipcs: Sequence[int]) -> tuple[int, float]:
    """How many images are still to be refined, and in how many seconds."""
    if method.refine is None:
        return 0, 0.0
    keys = {(ipc, refined_key(job, at(method, ipc), label, ipc)) for ipc in ipcs for label in job.labels}
    classes = Counter(ipc for ipc, key in keys if not job.store.has("refined", key))
    seconds = sum(count * method.refine.seconds(job, ipc) for ipc, count in classes.items())
    return sum(ipc * count for ipc, count in classes.items()), seconds


def choosing(job: Job, method: Method, ipcs: Sequence[int]) -> str:
    """What has to be looked at before a choice, and about how long that takes, in words; empty where nothing has.

    Of generated images the decoding is not counted.
    """
    told, made = [], sum({method.select.candidates(ipc) for ipc in ipcs}) * len(job.labels)
    rules = [(method.select, method.sampler is None)]
    rules += [(rule, True) for ipc in ipcs if (rule := real_choice(method.fit.for_ipc(ipc))) is not None]
    for look, real in dict.fromkeys((look, real) for rule, real in rules for look in rule.looks(job)):
        count = sum(look.missing(job, label) for label in job.labels) if real else made * (look.of != "latents")
        if count and look.of != "pixels":
            taken = duration(count * look_seconds(job, look, real))
            work = "to encode" if look.of == "latents" else f"for the {look.of} to look at"
            told.append(f"{count:,} images {work}, about {taken}")
    return "".join(f"; {text}" for text in told)


def look_seconds(job: Job, look: Features, real: bool) -> float:
    """Seconds that the features of one image take on this device: one tile, timed; reading it is not counted."""
    if look.of == "teacher":
        return job.judge(look.teacher).seconds() if look.teacher is not None else 0.0
    encoding = 1 / encoded_per_second(job.codec) if real else 0.0
    return encoding + (1 / passes_per_second(job.prior) if look.of == "prior" else 0.0)


def _unencoded(job: Job, fit: Fit, label: int) -> int:
    """Images of a class that are still to be encoded for a fit; mirrored ones as if they were where the others are."""
    count = len(job.images.of_class(label))
    wanted = fit.encodings([count])
    return job.latents.missing(label, min(wanted, count)) * wanted // max(1, min(wanted, count))


def _key(job: Job, method: Method, label: int, ipc: int) -> str:
    return candidates_key(job, at(method, ipc), label, method.select.candidates(ipc))


def spent(job: Job, method: Method, ipc: int) -> dict[str, float]:
    """Seconds by stage, summed over what the set was made from, whichever run made it."""
    if isinstance(method, Composed):
        own = [prepared_key(job, method, label) for label in job.labels]
        return {"prepared": round(sum(job.store.seconds("prepared", key) for key in own), 3)}
    if method.sampler is None:
        looked = [key for look in method.select.looks(job) for key in look.stored(job)]
        return {"features": round(sum(job.store.seconds("features", key) for key in looked), 3)} if looked else {}
    method, count = at(method, ipc), method.select.candidates(ipc)
    keys = {"candidates": [candidates_key(job, method, label, count) for label in job.labels]}
    if method.fit.learns:
        keys["fit"] = [job.fit_key(method.fit, group) for group in method.fit.groups(job.labels)]
    if method.refine is not None:
        keys["refined"] = [refined_key(job, method, label, ipc) for label in job.labels]
    return {kind: round(sum(job.store.seconds(kind, key) for key in of), 3) for kind, of in keys.items()}


def passes_per_image(job: Job, method: Method) -> int:
    """Network passes that the sampler takes for an image, guidance included."""
    sampler: Any = method.sampler
    times = times_from(sampler, job.prior, method.start_time(job.prior))
    return sum(1 if sampler.guidance_at(t) == 1 else 2 for t in times)


def passes_per_second(prior: Prior) -> float:
    """Network passes, in images, that this device does in a second: one tile, timed."""
    z = torch.zeros(prior.tile, *prior.codec.shape, device=prior.device)
    y = torch.zeros(prior.tile, dtype=torch.long, device=prior.device)
    with torch.inference_mode():
        return prior.tile / _timed(lambda: float(prior(z, 500, y).sum()))


def encoded_per_second(codec: Codec) -> float:
    """Images that this device encodes in a second: one tile, timed."""
    images = torch.zeros(codec.tile, 3, codec.size, codec.size)
    return codec.tile / _timed(lambda: codec.encode(images))


def _timed(call: Callable[[], object]) -> float:
    """Seconds of a call, the second of two."""
    call()
    begun = time.monotonic()
    call()
    return max(time.monotonic() - begun, 1e-9)
