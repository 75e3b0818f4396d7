"""The hub's DiT as the prior of a run that names none."""

from __future__ import annotations

from dataclasses import replace

import huggingface_hub
from huggingface_hub import constants

from attar.core.batching import resolve
from attar.core.hub_ids import why_not_on_hub
from attar.core.progress import Say
from attar.data.class_names import imagenet_names, matches
from attar.job import Job

DIT = "facebook/DiT-XL-2-256"
LEAST = 128
"""Side of the data's images, in pixels, at least: smaller ones would be enlarged to its 256."""


def with_hub_prior(job: Job, say: Say) -> Job:
    """The job with the hub's DiT where it names no prior, its images are ImageNet's by class and size, on a GPU.

    Where the hub cannot be reached and its cache lacks the model, the job as it is.
    """
    spec = job.spec
    on_gpu = resolve(spec.device, spec.dtype)[0].type == "cuda"
    suits = spec.prior is None and spec.codec is None and on_gpu and job.side >= LEAST and are_imagenets(job)
    if not suits or not _can_be_had():
        return job
    say(f"no `prior` is named: {DIT}, for all classes are ImageNet's and here is a GPU; without it: `method` herding")
    return Job(replace(spec, prior=DIT), job.store, job.progress, job.dry)


def are_imagenets(job: Job) -> bool:
    """Whether every class of the job is one of ImageNet's, and no two of them, by name or WordNet id."""
    matched = matches(job.classes, imagenet_names(), len(imagenet_names()), job.classes)
    return all(len(labels) == 1 for labels in matched.values())


def _can_be_had() -> bool:
    cached = isinstance(huggingface_hub.try_to_load_from_cache(DIT, "model_index.json"), str)
    return cached or not (constants.HF_HUB_OFFLINE or why_not_on_hub(DIT))
