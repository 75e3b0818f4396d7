"""The starts of some classes, found and denoised together: in batches across classes, each image by its own keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, groupby
from operator import itemgetter

import torch
from torch import Tensor

from attar.core.errors import NotFinite
from attar.core.finite import finite
from attar.core.progress import Meter, Progress
from attar.diffusion import Move, Shift, times_from
from attar.diffusion import sample as denoise
from attar.job import Job
from attar.methods.base import Guide, LatentMethod, Start, Tensors
from attar.priors.prior import Prior

BUNDLE = 4
"""Tiles that are denoised or decoded at a time: finished classes are stored after each bundle."""


def starts(
    job: Job, method: LatentMethod, fitted: Mapping[int, Tensors], labels: Sequence[int], count: int, progress: Progress
) -> list[Start]:
    """Where `count` candidates of each class begin.

    Raises:
        NotFinite: a start holds NaN or infinity; names the class.
    """
    meter, begun = Meter(progress, "finding starts", len(labels), "classes"), []
    for label in labels:
        start = method.start(job, fitted.get(label, {}), label, count)
        finite(start.z, f"the starts of {job.classes[label]!r}")
        begun.append(start)
        meter.add()
    return begun


def denoised(
    job: Job,
    prior: Prior,
    method: LatentMethod,
    guide: Guide | None,
    labels: Sequence[int],
    starts: Sequence[Start],
    meter: Meter,
) -> list[Tensors]:
    """Denoises the starts of several classes together, those that have a time.

    Of each class the latents `z` (n, C, H, W), on the CPU; where the starts aim at latents, how far the clean latents
    that the prior predicted were from these, step by step (`distances`, (n, steps)); and the `places` of its starts.
    """
    (t,) = {start.t for start in starts}
    if t is None:
        meter.add(sum(len(start.z) for start in starts))
        return [{"z": start.z} for start in starts]
    begun, finished = dict(zip(labels, starts, strict=True)), {label: list[Tensor]() for label in labels}
    ways = {label: list[Tensor]() for label in labels}
    steps = len(times_from(method.sampler, prior, t))
    for rows in _bundles(guide, begun, BUNDLE * prior.batch_size):
        z = torch.stack([begun[label].z[index] for label, index in rows]).to(prior.device)
        denoiser = prior if method.told is None else method.told(job, prior, rows)
        step, drawn = meter.within(len(rows), steps), partial(step_noise, job, rows)
        y, shift = job.conditions([label for label, _ in rows]), _shift(guide, begun, finished, rows, prior.device)
        way = list[Tensor]()
        if shift is not None and method.aims_at_latents:
            shift = partial(_measured, shift, _stacked_aims(begun, rows, prior.device), way)
        try:
            done = denoise(denoiser, z, t, y, method.sampler, step, drawn, shift)
        except NotFinite as error:
            label, _ = rows[error.rows[0]]
            raise NotFinite(f"sampling {job.classes[label]!r}: {error}") from error
        _hand_out(done, rows, finished)
        if way:
            _hand_out(torch.stack(way, 1), rows, ways)
        meter.add(len(rows))
    return [_of_class(label, {"z": finished, "distances": ways}) | begun[label].told for label in labels]


def _of_class(label: int, made: Mapping[str, Mapping[int, list[Tensor]]]) -> Tensors:
    return {name: torch.stack(of[label]) for name, of in made.items() if of[label]}


def _hand_out(made: Tensor, rows: Sequence[tuple[int, int]], to: Mapping[int, list[Tensor]]) -> None:
    """Gives each class what was made of its rows."""
    for (label, _), own in zip(rows, made.cpu(), strict=True):
        to[label].append(own)


def _bundles(guide: Guide | None, begun: Mapping[int, Start], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    """The (label, index) of the starts that are denoised together.

    One of each class where the guide looks back, and all of a class where it moves them together.
    """
    rows = [(label, index) for label, start in begun.items() for index in range(len(start.z))]
    waves: Iterable[Sequence[tuple[int, int]]] = [rows]
    if guide is not None and guide.together:
        return iter(waves)
    if guide is not None and guide.looks_back:
        waves = (list(wave) for _, wave in groupby(sorted(rows, key=itemgetter(1)), itemgetter(1)))
    return (wave[begin : begin + size] for wave in waves for begin in range(0, len(wave), size))


def _shift(
    guide: Guide | None,
    begun: Mapping[int, Start],
    finished: Mapping[int, Sequence[Tensor]],
    rows: Sequence[tuple[int, int]],
    device: torch.device,
) -> Shift | None:
    """A guide as the solver calls it for these rows."""
    if guide is None:
        return None
    aims = _stacked_aims(begun, rows, device)
    before = [finished[label] if guide.looks_back else [] for label, _ in rows]
    shape = begun[rows[0][0]].z.shape[1:]
    seen = torch.stack([torch.stack(list(made)) if made else torch.zeros(0, *shape) for made in before]).to(device)
    if not guide.together:
        return partial(guide, aims=aims, finished=seen)
    ends = list(accumulate(len(begun[label].z) for label in dict(rows)))
    return partial(_class_by_class, guide, list(map(slice, [0, *ends], ends)), aims, seen)


def _stacked_aims(begun: Mapping[int, Start], rows: Sequence[tuple[int, int]], device: torch.device) -> Tensor | None:
    """What the starts say to the guide of each of these rows, (N, ...)."""
    stacked = [start.aims[index] for label, index in rows if (start := begun[label]).aims is not None]
    return torch.stack(stacked).to(device) if stacked else None


def _measured(shift: Shift, aims: Tensor | None, way: list[Tensor], move: Move) -> Tensor:
    """What a guide adds; keeps, as root mean squares (N,), how far the predicted clean latents are from the aims."""
    assert aims is not None, "a method that aims at latents says them"
    exact = torch.float32 if aims.device.type == "mps" else torch.float64
    way.append((move.clean - aims).to(exact).square().mean((1, 2, 3)).sqrt().float())
    return shift(move)


def _class_by_class(
    guide: Guide, classes: Sequence[slice], aims: Tensor | None, finished: Tensor, move: Move
) -> Tensor:
    """What a guide that moves the rows of a class together adds to all."""
    return torch.cat([guide(move.of(own), None if aims is None else aims[own], finished[own]) for own in classes])


def step_noise(job: Job, rows: Sequence[tuple[int, int]], t: int) -> Tensor:
    """The noise (N, C, H, W) that a solver draws in the step that leaves time t, each candidate's by its own key."""
    shape = job.codec.shape
    return torch.stack([job.noise(shape, "solver", label, index, t) for label, index in rows])
