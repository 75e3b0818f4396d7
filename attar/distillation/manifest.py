"""What a distilled set says of itself: what was asked for, what it was made from, what it took."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attar import __version__
from attar.core.files import read_lines
from attar.data.pixels import Pixels
from attar.diffusion import times_from
from attar.distillation.artefacts import load_artefact
from attar.distillation.pipeline import StageOutputs
from attar.job import Job
from attar.methods.base import LatentMethod, Method
from attar.methods.minimax.monitor import MEASURES
from attar.priors.codec import to_uint8
from attar.sets.distilled import CLASSES_SHOWN, IMAGES_SHOWN, evenly
from attar.sets.mosaics import reduced

if TYPE_CHECKING:
    from attar.core.store import Artefact
    from attar.distillation.run_plan import RunPlan
    from attar.methods.base import Tensors

TOTALS = ("count", "inertia")
"""What fits learn that adds up over groups."""
STARTS_SHOWN = 100
"""Starts of a class at most whose places are kept."""
THUMBNAIL = 128
"""Pixels: larger prototypes are kept as thumbnails of this size."""
PACKAGES = ("torch", "torchvision", "diffusers", "numpy", "pillow", "scikit-learn", "safetensors")


def manifest(plan: RunPlan, ipc: int, made: StageOutputs) -> dict[str, Any]:
    """All that is known of a distilled set but its images' digests."""
    job, method = plan.job, plan.method
    described = plan.described(ipc)
    device = (described["compute"] or described.get("inputs") or {"device": "cpu"})["device"]
    chooses = method.fit.chooses if isinstance(method, LatentMethod) else None
    return {
        "attar": __version__,
        "run": plan.key(ipc),
        **described,
        "selected_by": method.select.teacher_summary(job),
        "exemplars_by": None if chooses is None else chooses.teacher_summary(job),
        "learnt": learnt(made.fitted),
        "measures": tuning_measures(job, made),
        **({"way": way} if (way := way_to_aims(plan, made)) else {}),
        **({"noise": maps} if (maps := noise_maps(plan, made)) else {}),
        **({"weights": [made.weights[label] for label in job.labels]} if made.weights else {}),
        **({"real_images": real} if (real := names_of_real(job, made)) else {}),
        "seconds": seconds(plan, made),
        "machine": {"device": device, "python": platform.python_version(), "system": platform.platform()},
        "versions": {package: version(package) for package in PACKAGES},
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def learnt(fitted: Mapping[int, Tensors]) -> dict[str, float]:
    """The single numbers among what the fit learnt: the `TOTALS` are summed over its groups, others are means."""
    values: dict[str, list[float]] = {}
    for tensors in {id(tensors): tensors for tensors in fitted.values()}.values():
        for name, value in tensors.items():
            if value.ndim == 0:
                values.setdefault(name, []).append(float(value))
    return {name: sum(of) / (1 if name in TOTALS else len(of)) for name, of in values.items()}


def tuning_measures(job: Job, made: StageOutputs) -> list[dict[str, Any]]:
    """What was measured while the prior was tuned to each group of classes; empty where it was not."""
    by_group: dict[str, tuple[Artefact, list[str]]] = {}
    for label, fit in (made.asked.fits if made.asked else {}).items():
        by_group.setdefault(fit.key, (fit, []))[1].append(job.classes[label])
    looks = [(classes, read_lines(job.store.folder(fit) / MEASURES)) for fit, classes in by_group.values()]
    return [{"classes": classes, "looks": of} for classes, of in looks if of]


def way_to_aims(plan: RunPlan, made: StageOutputs) -> list[dict[str, float]]:
    """How far candidates were from the latents that they are drawn to, at each time: the root mean square over all.

    Nothing for methods whose starts aim at no latents, or that no guide moves.
    """
    job, method = plan.job, plan.method
    if not isinstance(method, LatentMethod) or not method.aims_at_latents or made.asked is None:
        return []
    kept = [load_artefact(job, candidates) for candidates in made.asked.candidates.values()]
    of_class = [tensors["distances"] for tensors in kept if "distances" in tensors]
    if not of_class:
        return []
    way = torch.cat(of_class).double().square().mean(0).sqrt()
    times = times_from(method.sampler, job.prior, method.start_time(job.prior))
    return [{"t": t, "distance": round(far, 6)} for t, far in zip(times[::-1], way.tolist(), strict=True)]


def noise_maps(plan: RunPlan, made: StageOutputs) -> list[dict[str, Any]]:
    """For some classes, where the starts of their candidates lie in the domain that these are drawn in.

    Nothing for methods without such maps, and where the cache has only what older versions kept.
    """
    job, method, found = plan.job, plan.method, []
    if not isinstance(method, LatentMethod) or made.asked is None:
        return []
    for label in evenly(job.labels, CLASSES_SHOWN):
        seen = method.noise_map(made.fitted.get(label, {}))
        places = None if seen is None else load_artefact(job, made.asked.candidates[label]).get("places")
        if seen is None or places is None:
            return []
        found.append(
            {
                "label": label,
                "shares": _rounded(seen.shares),
                "real": _rounded(seen.real - seen.mean),
                "spread": _rounded(seen.spread),
                "starts": _rounded(places[:STARTS_SHOWN] - seen.mean),
            }
        )
    return found


def _rounded(values: Tensor) -> Any:
    if values.ndim == 0:
        return float(f"{float(values):.4g}")
    return [_rounded(value) for value in values]


def names_of_real(job: Job, made: StageOutputs) -> list[list[list[str]]]:
    """Of each image of each class the names of the real ones that it is, is made of or began as; nothing of others."""
    if not all(made.real.get(label) for label in job.labels):
        return []
    parts, names = job.spec.formation**2, []
    for label in job.labels:
        numbers = job.images.of_class(label)
        pictures = [[job.images.name(int(numbers[place])) for place in places] for places in made.real[label]]
        names.append([list(chain(*pictures[k : k + parts])) for k in range(0, len(pictures), parts)])
    return names


def seconds(plan: RunPlan, made: StageOutputs) -> dict[str, float]:
    """Seconds by stage, summed over what the set was made from, whichever run made it."""
    job, totals = plan.job, {"choice": made.choosing} if made.choosing else {}
    for artefact in {artefact.key: artefact for artefact in made.stored}.values():
        totals[artefact.kind] = totals.get(artefact.kind, 0.0) + job.store.seconds(artefact)
    return {kind: round(total, 3) for kind, total in totals.items()}


def prototypes(job: Job, method: Method, fitted: Mapping[int, Tensors]) -> Iterator[tuple[int, int, Pixels]]:
    """The prototypes that a set begins from, decoded: the first of each of some classes, as thumbnails.

    Nothing for methods without prototypes, and of classes whose images are the real ones that they are of.
    """
    if not isinstance(method, LatentMethod):
        return
    for label in evenly(job.labels, CLASSES_SHOWN):
        latents = fitted[label].get("prototypes") if label in fitted else None
        if latents is not None and not method.fit.keeps_real(fitted[label]):
            side = min(job.codec.size, THUMBNAIL)
            for index, pixels in enumerate(to_uint8(job.codec.decode(latents[:IMAGES_SHOWN]))):
                yield label, index, reduced(pixels, side)


def statistics(plan: RunPlan, fitted: Mapping[int, Tensors]) -> dict[str, Tensor] | None:
    """Mean and deviation (K, C, H, W) of every class, where the spec asks to keep them."""
    if not plan.job.spec.keep_statistics:
        return None
    assert isinstance(plan.method, LatentMethod), "`planned` has seen to it"
    moments = [plan.method.statistics(fitted[label]) for label in plan.job.labels]
    return {name: torch.stack([tensors[name] for tensors in moments]) for name in moments[0]}
