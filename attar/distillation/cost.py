"""What a run will cost, before it starts, and what it has cost, when it is done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from attar.core.progress import about, duration
from attar.core.whole_command import StageForecast, WholeCommand
from attar.core.wording import counted, size
from attar.distillation.artefacts import prepared_artefact
from attar.distillation.device_speed import decoded_per_second, encoded_per_second, passes_per_image, passes_per_second
from attar.distillation.outlook import memory_of
from attar.distillation.run_plan import RunPlan
from attar.job import Job
from attar.methods.base import ComposedImages, Fit, Group, LatentMethod, Method
from attar.priors.digits import RECIPE
from attar.priors.training.train import TRAINING
from attar.selection.features import ImageFeatures, teacher_for
from attar.selection.rules import BY_TEACHER
from attar.teachers.features import seconds_per_image


@dataclass(frozen=True)
class Remaining:
    """The work of a run that is not yet in the store."""

    words: str
    """What it is, and about how long it takes on this device: each part with its time, measured on a small part."""
    parts: Mapping[str, StageForecast]
    """The same parts, for who tells how far they are; none where there is no forecast."""


OF_STEP = 3
"""Passes that a step of training takes for each image, about."""
STAGES = {
    **{stage: stage for stage in ("encoding", "sampling", "decoding", "refining", "preparing")},
    "finding starts": "the starts",
    **dict.fromkeys(("the prior looks at", "the teacher looks at", "typical images against all"), "the choice"),
    "the prior against chosen images": "the choice",
}
"""What stages say first of themselves -> the part that they are; latents are read again while fitting, and whatever
else is said is of the fit."""

BEFORE = {
    "sampling": ("encoding", "the fit"),
    "decoding": ("the choice", "encoding", "the fit", "the starts", "sampling", "refining"),
}
"""What is over when the last round of a part has begun, though it may not have been told of: what a race left out."""


def tell(whole: WholeCommand, text: str, fraction: float) -> None:
    """Takes what a stage of a run says of itself."""
    if text.startswith("reading latents"):
        whole.tell("the fit", text)
    elif text.startswith("labelling"):
        whole.tell("the labels", text, fraction)
    else:
        name = next((part for told, part in STAGES.items() if text.startswith(told)), "the fit")
        whole.tell(name, text, fraction)
        for over in BEFORE.get(name, ()) if whole.parts[name].is_last_round else ():
            whole.parts[over].finish()


def remaining(plan: RunPlan, ipcs: Sequence[int], choosing: Sequence[float]) -> Remaining:
    """The work that is not yet in the store; `choosing` are the seconds of each class's choice, or of a race."""
    job, method = plan.job, plan.method
    if isinstance(method, ComposedImages):
        return _composing(plan, method)
    assert isinstance(method, LatentMethod)
    unfitted, bundles = _unfitted(plan, ipcs), _missing(plan, method, ipcs)
    missing = list(chain(*bundles))
    fitting, learning = _fitting(job, unfitted)
    sampling = len(missing) and sum(missing) * passes_per_image(job, method)
    unencoded, unrefined = _unencoded(job, unfitted), _refining(plan, method, ipcs)
    encoding, refining = sum(unencoded), sum(images for images, _ in unrefined)
    if not (fitting or learning or sampling or encoding or refining or sum(choosing)):
        return Remaining("all images are made; they have only to be written", {})
    starting = {count: method.start_seconds(job, count) for count in set(missing)}
    each, decoding = 1 / passes_per_second(job.prior), _decoding(job, method, ipcs)
    parts = {
        "the choice": sum(choosing),
        "encoding": encoding / encoded_per_second(job.codec) if encoding else 0.0,
        "the fit": fitting * each + learning,
        "the starts": sum(map(starting.__getitem__, missing)),
        "sampling": sampling * each,
        "refinement": sum(seconds for _, seconds in unrefined),
        "decoding": decoding / decoded_per_second(job.codec),
    }
    of = f"{fitting:,} to fit, {sampling:,} to sample {sum(missing):,}"
    encoded = f", {counted(encoding, 'image')} to encode" if encoding else ""
    improved = f", {counted(refining, 'image')} to refine" if refining else ""
    named = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items() if seconds)
    unread = ", from an empty cache and without refinement, for its weights are left unread" if job.unread else ""
    words = (
        f"{counted(fitting + sampling, 'network pass')} ({of}){encoded}{improved}, "
        f"{about(sum(parts.values()))} ({named}){unread}; "
        f"{_room(plan, ipcs, encoding, sum(missing))}"
    )
    rounds: dict[str, Sequence[float]] = {"the choice": choosing, "encoding": unencoded, "decoding": ipcs}
    rounds |= {"the fit": [1.0] * len(unfitted), "sampling": list(map(sum, bundles))}
    rounds["the starts"] = [sum(map(starting.__getitem__, counts)) for counts in bundles]
    rounds["refining"] = [seconds for _, seconds in unrefined]
    return Remaining(words, _told(plan, ipcs, parts, rounds))


def _kinds(plan: RunPlan, stage: str) -> Sequence[tuple[str | None, ...]]:
    """What a stage is as fast as: that of the same method, or of another with the same prior."""
    return (stage, plan.job.spec.prior, plan.name), (stage, plan.job.spec.prior)


def _makes(plan: RunPlan, ipcs: Sequence[int]) -> dict[str, frozenset[str]]:
    """The keys of what stages still make that other runs can find."""
    job, asked = plan.job, [plan.artefacts[ipc] for ipc in ipcs]
    encoded = (job.latents.artefacts(label) for fit, group in _unfitted(plan, ipcs) for label in group)
    made = {
        "encoding": chain.from_iterable(encoded),
        "the fit": (fit for one in asked for fit in one.fits.values()),
        "sampling": (drawn for one in asked for drawn in one.candidates.values()),
        "refining": (better for one in asked for better in one.refined.values()),
    }
    return {stage: frozenset(one.key for one in some if not job.store.has(one)) for stage, some in made.items()}


def _fitting(job: Job, unfitted: Sequence[tuple[Fit, Group]]) -> tuple[int, float]:
    """Passes of the prior that fits take, and the seconds of what they train of their own."""
    of_group = [(fit, [len(job.images.of_class(label)) for label in group]) for fit, group in unfitted]
    return sum(fit.passes(counts) for fit, counts in of_group), sum(
        fit.seconds(job, counts) for fit, counts in of_group
    )


def training_of_prior(job: Job) -> dict[str, StageForecast]:
    """The training of the built-in prior, where it is still to be trained, by what it says first of itself."""
    if not job.untrained:
        return {}
    passes = OF_STEP * RECIPE.steps * RECIPE.batch
    return {TRAINING: StageForecast(passes / passes_per_second(job.prior), makes=frozenset([TRAINING]))}


def _composing(plan: RunPlan, method: ComposedImages) -> Remaining:
    prepared = [prepared_artefact(plan.job, method, label) for label in plan.job.labels]
    missing = [label for label, made in zip(plan.job.labels, prepared, strict=True) if not plan.job.store.has(made)]
    words, seconds = method.estimate(plan.job, missing)
    makes = frozenset(prepared[label].key for label in missing)
    part = StageForecast(seconds, kinds=_kinds(plan, "preparing"), makes=makes)
    return Remaining(words, {"preparing": part} if missing else {})


def _told(
    plan: RunPlan, ipcs: Sequence[int], parts: Mapping[str, float], rounds: Mapping[str, Sequence[float]]
) -> dict[str, StageForecast]:
    """The parts that stages tell of."""
    seconds = {
        "the choice": parts["the choice"],
        "encoding": parts["encoding"],
        "the fit": parts["the fit"],
        "the starts": parts["the starts"],
        "sampling": parts["sampling"],
        "refining": parts["refinement"],
        "decoding": parts["decoding"],
    }
    makes, none = _makes(plan, ipcs), frozenset[str]()
    return {
        name: StageForecast(of, rounds[name], _kinds(plan, name), makes.get(name, none)) for name, of in seconds.items()
    }


def _room(plan: RunPlan, ipcs: Sequence[int], encoding: int, made: int) -> str:
    """What a run takes of memory and of the disk, in words; the images as if they could not be compressed."""
    job, method = plan.job, plan.method
    values = math.prod(job.prior.codec.shape)
    side = job.spec.output_size or job.prior.codec.size
    images = sum(ipcs) * len(job.labels) * 3 * side**2
    disk = encoding * 4 * values + made * 4 * values + images
    assert isinstance(method, LatentMethod)
    return f"about {size(memory_of(job, method, ipcs))} of memory on the device, {size(disk)} of disk"


def _unfitted(plan: RunPlan, ipcs: Sequence[int]) -> list[tuple[Fit, Group]]:
    """The fits, and their groups of classes, that are still to be made."""
    assert isinstance(plan.method, LatentMethod)
    if plan.fits is not None:
        return []
    wanted: dict[str, tuple[Fit, Group]] = {}
    for ipc in ipcs:
        asked, fit = plan.artefacts[ipc], plan.method.for_ipc(plan.job.spec.made(ipc)).fit
        made = {group: asked.fits[group[0]] for group in asked.groups if group[0] in asked.fits}
        wanted |= {artefact.key: (fit, group) for group, artefact in made.items() if not plan.job.store.has(artefact)}
    return list(wanted.values())


def _missing(plan: RunPlan, method: LatentMethod, ipcs: Sequence[int]) -> list[list[int]]:
    """How many candidates are still to be sampled, of each class that lacks some; a list for those sampled together."""
    bundles, known = list[list[int]](), set[str]()
    for asked in (plan.artefacts[ipc] for ipc in ipcs):
        for labels in asked.groups if method.fit.tunes else [tuple(asked.candidates)]:
            own = [made for made in map(asked.candidates.__getitem__, labels) if made.key not in known]
            known |= {made.key for made in own}
            bundles.append([int(made.inputs["count"]) for made in own if not plan.job.store.has(made)])
    return [counts for counts in bundles if counts]


def _refining(plan: RunPlan, method: LatentMethod, ipcs: Sequence[int]) -> list[tuple[int, float]]:
    """Of each class and IPC that is still to be refined: its images, and the seconds that these take."""
    found: list[tuple[int, float]] = []
    for ipc in ipcs if method.refine is not None and not plan.job.unread else ():
        n = plan.job.spec.made(ipc)
        if left := sum(not plan.job.store.has(made) for made in plan.artefacts[ipc].refined.values()):
            assert method.refine is not None
            found += [(n, method.refine.seconds(plan.job, n))] * left
    return found


def choices(job: Job, method: Method, ipcs: Sequence[int]) -> dict[str, list[float]]:
    """What has to be looked at before a choice, in words, and the seconds that it takes, class by class.

    Of generated images the decoding is not counted.
    """
    parts, made = dict[str, list[float]](), sorted({method.select.candidates(ipc) for ipc in ipcs})
    rules = [(method.select, not isinstance(method, LatentMethod))]
    chosen = [method.for_ipc(ipc).fit.chooses for ipc in ipcs] if isinstance(method, LatentMethod) else []
    rules += [(rule, True) for rule in chosen if rule is not None]
    needed = ((features, real) for rule, real in rules for features in rule.needed_features(job))
    for features, real in dict.fromkeys(needed):
        pools = [count for count in made for _ in job.labels] if features.of != "latents" else []
        counts = [features.missing(job, label) for label in job.labels] if real else pools
        if any(counts) and features.of != "pixels":
            who = "teacher" if features.of in BY_TEACHER else features.of
            work = "to encode" if features.of == "latents" else f"for the {who} to look at"
            each = features_seconds(job, features, real)
            parts[f"{counted(sum(counts), 'image')} {work}"] = [count * each for count in counts if count]
    races = [_races(job, method.for_ipc(ipc).fit) for ipc in ipcs] if isinstance(method, LatentMethod) else []
    for place, what in enumerate(("typical images to race all", "the prior to race them")):
        if racing := [seconds[place] for seconds in races if seconds[place]]:
            parts[what] = racing
    return parts


def _races(job: Job, fit: Fit) -> tuple[float, float]:
    """Seconds that it takes to decide on a fit's settings by the data, without the prior and with it."""
    passes = fit.deciding_passes(job)
    return fit.deciding_seconds(job), passes / passes_per_second(job.prior) if passes else 0.0


def features_seconds(job: Job, features: ImageFeatures, real: bool) -> float:
    """Seconds that the features of one image take on this device: one batch, timed; reading it is not counted."""
    if features.of in BY_TEACHER:
        return 0.0 if features.teacher is None else seconds_per_image(teacher_for(job, features.teacher))
    encoding = 1 / encoded_per_second(job.codec) if real else 0.0
    return encoding + (1 / passes_per_second(job.prior) if features.of == "prior" else 0.0)


def _decoding(job: Job, method: LatentMethod, ipcs: Sequence[int]) -> int:
    """Images that are still to be decoded; where pixels are refined, that is a part of refinement."""
    return 0 if method.refines_pixels else sum(map(job.spec.made, ipcs)) * len(job.labels)


def _unencoded(job: Job, unfitted: Sequence[tuple[Fit, Group]]) -> list[int]:
    """Images of each class that are still to be encoded for fits; again as many for mirrored ones, after the others."""
    fits, labels = {fit for fit, _ in unfitted}, {label for _, group in unfitted for label in group}
    counts = {label: len(job.images.of_class(label)) for label in labels}
    missing = [max(job.latents.missing(k, min(fit.encodings([n]), n)) for fit in fits) for k, n in counts.items()]
    return [count for count in missing if count] * max((fit.encodings([1]) for fit in fits), default=1)
