"""What a training of a prior will take, estimated before it begins: its steps, and the measuring of its samples."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch

from attar.core.batching import device_class, fills
from attar.core.flops import counted_flops
from attar.core.limits import IN_MEMORY
from attar.core.progress import about, duration, timed
from attar.core.rng import noise
from attar.core.wording import counted, size
from attar.data import load_data, looked_at, still_to_look_at
from attar.diffusion import network_passes, schedule_of
from attar.priors.training.latent_set import held_in_memory
from attar.priors.training.lesson import lesson_seconds
from attar.priors.training.monitor import SAMPLED, NetworkDenoiser, shown_images
from attar.priors.training.sample_quality import classifier_artefact, classifier_seconds
from attar.priors.training.task import TrainingRun, TrainingTask
from attar.priors.training.train import FEW_TOKENS, step_seconds
from attar.training.memory import COPIES, kept_for_gradient

LONG = 6 * 3600.0
"""Seconds of a training after which what would take less is said."""


def estimate(run: TrainingRun, task: TrainingTask) -> str:
    """What is about to be done, and about how long it takes here: steps and passes are timed on one batch."""
    images, plan = len(run.images[0]), task.training
    training = plan.steps * _step_seconds(run, task)
    teaching = 0.0 if task.align is None else task.align.seconds(run.maps_missing(task.align.teacher))
    judging, times = _judging(run, task), run.material.report.times(plan.steps)
    sampled = times * (run.material.report.samples + shown_images(len(run.classes)))
    sampling = sampled * _sample_seconds(run, task)
    learning = lesson_seconds(run.images[1], task.codec.size, run.material.report.samples, times)
    whole = training + sampling + judging + teaching + learning
    parameters = sum(p.numel() for p in task.network.parameters())
    trained = sum(p.numel() for p in task.trained)
    seen = plan.steps * plan.batch
    classifier = f", {duration(judging)} for a classifier that measures them" if judging else ""
    classifier += f", {duration(learning)} for what they teach" if learning else ""
    classifier += f", {duration(teaching)} for the teacher's maps" if teaching else ""
    material = f"{counted(images, 'image')} of {counted(len(run.classes), 'class')}, {len(run.images[1]):,} held out"
    return (
        f"{material}; a DiT of {parameters:,} parameters ({trained:,} trained); {plan.steps:,} steps of {plan.batch}: "
        f"{seen:,} images, {seen / images:.1f} epochs, {about(whole)} on {device_class(run.helper.device)} "
        f"({duration(training)} for the steps, {duration(sampling)} for {sampled:,} samples{classifier}), "
        f"{_room(run, task)}{looking(run)}{_cheaper(run, task, whole)}"
    )


def _cheaper(run: TrainingRun, task: TrainingTask, seconds: float) -> str:
    """What would take less, where a new prior takes long on a CPU for its many patches."""
    side, patch = task.codec.shape[-1], getattr(task.training, "patch", None)
    if patch is None or run.helper.device.type != "cpu" or seconds < LONG or (side // patch) ** 2 <= FEW_TOKENS:
        return ""
    latents = "" if hasattr(task.codec, "vae") else ", and an autoencoder as `codec` leaves fewer pixels to cut"
    twice = (
        f"`patch` {2 * patch} makes a quarter of them" if side % (2 * patch) == 0 else "a larger `patch` makes fewer"
    )
    return f"; {(side // patch) ** 2:,} patches an image are many for a CPU: {twice}{latents}"


def looking(run: TrainingRun) -> str:
    """What of the images a dry run leaves to be looked at, in words."""
    images = load_data(run.material.data)
    return still_to_look_at(looked_at(images, run.material.on_bad_image), run.store) if run.dry else ""


def _room(run: TrainingRun, task: TrainingTask) -> str:
    """What the training takes of memory and of the disk, in words."""
    y = torch.zeros(1, dtype=torch.int64, device=run.helper.device)
    row = torch.zeros(1, *task.codec.shape, device=run.helper.device)
    kept = kept_for_gradient(lambda: task.network(row, y, y), rows=1) * task.training.batch // run.helper.num_processes
    weights = (1 + COPIES) * sum(p.numel() * p.element_size() for p in task.network.parameters())
    drawn = hasattr(task.codec, "vae")
    means = len(run.images[0]) * 2 * row.numel() * (2 if run.material.flip and drawn else 1)
    held = means * (2 if drawn else 1) if means <= IN_MEMORY else 0
    views = len(run.images[0]) * (2 if run.material.flip else 1)
    maps = 0 if task.align is None else views * 2 * math.prod(task.align.teacher.shape)
    held += maps if maps <= IN_MEMORY else 0
    best = sum(p.numel() * p.element_size() for p in task.trained) if run.material.keep == "best" else 0
    disk = f"{size(2 * means + maps)} of disk for latents" + (f" and {size(best)} for the best average" if best else "")
    return f"in about {size(weights + kept + held + best)} of memory, {disk}"


def _step_seconds(run: TrainingRun, task: TrainingTask) -> float:
    """Seconds of a step; on a CPU timed on as many rows as fill it: a whole batch takes its time, and its memory."""
    plan, helper = task.training, run.helper
    rows = max(_rows(run, task, plan.batch), helper.num_processes)
    data = held_in_memory(noise((rows, *task.codec.shape), "estimate"), torch.zeros(rows, dtype=torch.int64))
    less, align = replace(plan, batch=rows), task.align
    align = None if align is None else align.to(noise((rows, *align.teacher.shape), "estimate", "maps"))
    return step_seconds(task.network, data, task.scheduler, less, helper, task.parameters, align) * plan.batch / rows


def _rows(run: TrainingRun, task: TrainingTask, most: int) -> int:
    """As many rows as fill a CPU, and at most `most`; of a GPU these."""
    y = torch.zeros(1, dtype=torch.int64)
    row = partial(task.network, torch.zeros(1, *task.codec.shape), y, y)
    return min(most, fills(run.helper.device, lambda: counted_flops(row)) or most)


def _judging(run: TrainingRun, task: TrainingTask) -> float:
    """Seconds that the classifier takes; 0 where it is stored."""
    how = run.classifier(task.codec)
    stored = run.store.has(classifier_artefact(*run.images, how))
    return 0.0 if stored else classifier_seconds(len(run.classes), how)


def _sample_seconds(run: TrainingRun, task: TrainingTask) -> float:
    """Seconds that a sample takes: the passes of the network, timed on a batch, and the codec's."""
    report, device = run.material.report, run.helper.device
    batch = _rows(run, task, min(task.training.batch, SAMPLED))
    schedule = schedule_of(task.scheduler)
    denoiser = NetworkDenoiser(schedule, len(run.classes), task.network, device)
    z = noise((batch, *task.codec.shape), "estimate", "samples")
    y = torch.zeros(batch, dtype=torch.int64, device=device)

    def predict() -> None:
        with torch.inference_mode():
            float(denoiser(z.to(device), 500, y).sum())

    fills = task.codec.batch_size
    latents = noise((fills, *task.codec.shape), "estimate", "decoded")
    decoding = timed(lambda: task.codec.decode(latents)) / fills
    return report.steps * network_passes(report.guidance) * timed(predict) / batch + decoding
