"""What an experiment would cost, in words: from its data and priors, or from a plan where these are elsewhere."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from attar.core.batching import device_class, resolve
from attar.core.errors import AttarError
from attar.core.files import expand_user
from attar.core.progress import Progress, duration
from attar.core.store import Store
from attar.core.wording import aligned, counted, size
from attar.data import load_data, load_held_out, test_spec
from attar.distillation.outlook import Measures, Outlook, measured, outlook
from attar.evaluation.outlook import training_seconds
from attar.experiments.spec import Evaluation, Experiment, Planned
from attar.job import Job, Spec
from attar.methods.base import LatentMethod
from attar.priors.prior import Prior
from attar.priors.training.weightless import described_prior
from attar.sets.mosaics import grid_words

HEAD = ("method", "IPC", "jobs", "latents", "on disk", "steps", "passes", "memory", "FLOPs", "time")
TESTED = 50
"""Test images of each class, where there is only a plan: as many as ImageNet has."""


TrainingKind = tuple[str, str, int, int]
"""Label of the evaluation, network, IPC and formation."""


@dataclass(frozen=True)
class Forecast:
    """What an experiment would cost."""

    words: str
    """What each method takes for each IPC, and what everything takes, from an empty cache."""
    trainings: Mapping[TrainingKind, float]
    """Seconds of one training of each kind; teachers and tests before the last one are not counted."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What the costs of a method are counted on."""

    job: Job
    counts: tuple[int, ...]
    """Images of each class."""
    side: int
    """Side of the images that are made, in pixels."""
    measures: Measures | None
    """What was measured of the prior; None where real images are taken."""


def forecast(experiment: Experiment, reason: str | None, store: Store | None, progress: Progress) -> Forecast:
    """What all methods and evaluations take.

    Args:
        reason: why the data and priors are not opened, but taken from the experiment's plan; None: they are opened.

    Raises:
        AttarError: the data or a prior cannot be opened, or a recipe does not fit the images.
    """
    grounds = _grounds(experiment, reason, store, progress)
    rows: list[Sequence[str]] = [HEAD]
    work: dict[Hashable, tuple[float, float]] = {}
    for contender in experiment.contenders:
        ground = grounds[contender.label]
        for ipc in experiment.ipcs_of(contender):
            refine, made = contender.method.refine if reason is None else None, contender.spec.made(ipc)
            refining = refine.seconds(ground.job, made) if refine is not None else 0.0
            expected = outlook(ground.job, contender.method, ground.counts, made, ground.measures, refining)
            rows.append(_row(contender.label, ipc, expected, ground.measures))
            for key, (flops, seconds) in expected.parts.items():
                times = len(experiment.distillation_seeds) if expected.seeded(key) else 1
                work[key] = (times * flops, times * seconds)
    trainings = _trainings(experiment, grounds, reason)
    words = "\n".join(
        [
            *_premises(experiment, grounds, reason),
            "From an empty cache, each line for itself (jobs: groups of classes fitted independently):",
            *(f"  {line}" for line in aligned(rows, "l" + "r" * (len(HEAD) - 1))),
            _total(experiment, work, reason),
            *_evaluations(experiment, trainings),
        ]
    )
    return Forecast(words, trainings)


def _total(experiment: Experiment, work: Mapping[Hashable, tuple[float, float]], reason: str | None) -> str:
    """What all sets take: `work` has the FLOPs and seconds of each part, once."""
    flops, seconds = (sum(column) for column in zip(*work.values(), strict=True)) if work else (0.0, 0.0)
    seeds = f"{len(experiment.distillation_seeds)} distillation seeds, " * (len(experiment.distillation_seeds) > 1)
    refinement = ""
    if any(contender.method.refine is not None for contender in experiment.contenders):
        refinement = ", refinement not counted" if reason else "; of refinement the time alone"
    labelled = any(contender.spec.labels for contender in experiment.contenders)
    labels = ", their labels not counted" if labelled else ""
    return f"All sets, {seeds}what they share done once: {flops:.2g} FLOPs, {duration(seconds)}{refinement}{labels}"


def why_unusable(experiment: Experiment) -> str | None:
    """Why the experiment's data or priors cannot be used in a dry run on this machine; None if they can."""
    for contender in experiment.contenders:
        if contender.spec.data.startswith(("hf:", "torchvision:")):
            return f"{contender.spec.data}: not downloaded for a dry run"
        try:
            load_data(contender.spec.data)
        except AttarError as error:
            return str(error)
        if isinstance(contender.method, LatentMethod) and not _is_here(contender.spec.prior or ""):
            return f"the prior {contender.spec.prior} is not on this machine"
    return None


def _is_here(prior: str) -> bool:
    if prior in ("", "digits") or expand_user(prior).exists():
        return True
    try:
        return isinstance(try_to_load_from_cache(prior, "model_index.json"), str)
    except HFValidationError:
        return False


def _grounds(experiment: Experiment, reason: str | None, store: Store | None, progress: Progress) -> dict[str, Ground]:
    """The grounds by the methods' labels; methods with equal settings share one."""
    made: dict[tuple[Spec, bool], Ground] = {}
    for contender in experiment.contenders:
        key = (contender.spec, isinstance(contender.method, LatentMethod))
        if key not in made:
            job = Job(contender.spec, store, progress, dry=True)
            made[key] = _real(job, key[1]) if reason is None else _supposed(job, key[1], experiment.planned)
    return {
        contender.label: made[contender.spec, isinstance(contender.method, LatentMethod)]
        for contender in experiment.contenders
    }


def _real(job: Job, sampled: bool) -> Ground:
    counts = tuple(len(job.picked.of_class(label)) for label in job.labels)
    if not sampled:
        return Ground(job, counts, job.spec.output_size or job.side, None)
    return Ground(job, counts, job.spec.output_size or job.prior.codec.size, measured(job.prior))


def _supposed(job: Job, sampled: bool, planned: Planned | None) -> Ground:
    assert planned is not None
    each, more = divmod(planned.images, planned.classes)
    counts = (each + 1,) * more + (each,) * (planned.classes - more)
    job.prior, measures = _architecture(planned.prior, *resolve(job.spec.device, job.spec.dtype))
    job.codec = job.prior.codec
    return Ground(job, counts, job.spec.output_size or job.codec.size, measures if sampled else None)


@functools.cache
def _architecture(name: str, device: torch.device, dtype: torch.dtype) -> tuple[Prior, Measures]:
    architecture = described_prior(name, device, dtype)
    return architecture.prior, measured(architecture.prior, architecture.block)


def _premises(experiment: Experiment, grounds: dict[str, Ground], reason: str | None) -> Iterator[str]:
    if reason is not None and (planned := experiment.planned) is not None:
        images = f"{counted(planned.images, 'image')} of {counted(planned.classes, 'class')}"
        yield f"{reason}; planned instead: {images}, {planned.prior}"
    for ground in dict.fromkeys(grounds.values()):
        if (measures := ground.measures) is None:
            continue
        prior = ground.job.prior
        yield (
            f"{prior.key if reason else ground.job.spec.prior}: {measures.network / 1e9:,.3g} GFLOPs a pass; "
            f"{device_class(prior.device)}, {str(prior.dtype).removeprefix('torch.')}: "
            f"{measures.per_second / 1e9:,.3g} GFLOPs a second ({measures.how})"
        )


def _row(label: str, ipc: int, expected: Outlook, measures: Measures | None) -> tuple[str, ...]:
    if measures is None:
        return (label, str(ipc), *["-"] * (len(HEAD) - 3), "no prior")
    numbers = (f"{number:,}" for number in (expected.groups, expected.latents, expected.steps, expected.passes))
    groups, latents, steps, passes = numbers
    disk, memory = map(size, (expected.latents * measures.latent, expected.memory))
    flops, seconds = (sum(column) for column in zip(*expected.parts.values(), strict=True))
    return (label, str(ipc), groups, latents, disk, steps, passes, memory, f"{flops:.2g}", duration(seconds))


def _trainings(experiment: Experiment, grounds: dict[str, Ground], reason: str | None) -> dict[TrainingKind, float]:
    first = next((ground for ground in grounds.values() if ground.measures), next(iter(grounds.values())))
    classes, device = len(first.counts), first.job.spec.device
    tested = TESTED * classes if reason else _tested(experiment, first.job)
    seconds = {}
    for evaluation in experiment.evaluations:
        formations = sorted(set(_formations(experiment, evaluation)))
        for network, ipc, formation in itertools.product(evaluation.networks, evaluation.ipcs, formations):
            seconds[evaluation.label, network, ipc, formation] = training_seconds(
                evaluation.recipe, network, classes, ipc * formation**2, first.side, tested, device
            )
    return seconds


def _formations(experiment: Experiment, evaluation: Evaluation) -> list[int]:
    """The formation of each method that is evaluated."""
    return [one.spec.formation for one in experiment.contenders if one.label in evaluation.methods]


def _evaluations(experiment: Experiment, trainings: Mapping[TrainingKind, float]) -> Iterator[str]:
    evaluations, total = {evaluation.label: evaluation for evaluation in experiment.evaluations}, 0.0
    for (label, network, ipc, formation), each in trainings.items():
        each_set = len(experiment.distillation_seeds) * (len(evaluations[label].seeds) or 1)
        runs = _formations(experiment, evaluations[label]).count(formation) * each_set
        total += runs * each
        what = f"{label}, {network}, IPC {ipc}" + (f" ({grid_words(formation)})" if formation > 1 else "")
        yield f"  {what}: {counted(runs, 'training')} of {duration(each)}, {duration(runs * each)}"
    yield f"All evaluations: {duration(total)}, teachers and tests before the last one not counted"


def _tested(experiment: Experiment, job: Job) -> int:
    if experiment.test == "held-out":
        return len(load_held_out(job.spec.data).restricted(job.classes))
    try:
        test = experiment.test or test_spec(job.spec.data)
    except AttarError as error:
        if not job.spec.hold_out:
            raise
        raise AttarError(f'{error}, such as test = "held-out", the tenth that no image of the sets is from') from error
    return len(load_data(test).restricted(job.classes))
