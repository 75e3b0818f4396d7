"""Whether the prior improves the images that were chosen: a second short race, once typical ones have won the first.

The exemplars of some classes are denoised, and a linear classifier on random features learns from these or from the
same images as they are: images of the class that were not chosen say which teaches more. No test image is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attar.core.errors import AttarError
from attar.core.progress import Meter, silent
from attar.core.store import Artefact
from attar.data import at_side, load_pixels
from attar.data.pixels import Pixels
from attar.diffusion import Sampler, network_passes, sample
from attar.job import Job
from attar.methods.d3hr.class_moments import Invert
from attar.methods.exemplars.race import (
    CHOSEN,
    HOW,
    LEFT_OUT,
    ROUNDS,
    SIDE,
    LinearTest,
    Outcome,
    TypicalRace,
    drawn,
    order,
    stored_outcome,
)
from attar.priors.codec import of_one_colour, to_float, to_uint8
from attar.selection import Select
from attar.selection.rules import Indices

SAMPLER = Sampler(solver="dpm++", steps=12, spacing="log-snr")
"""How they are denoised, whatever the sampler of the method."""


@dataclass(frozen=True)
class PriorRace:
    """Denoised exemplars against the same images as they are."""

    job: Job
    first: TypicalRace
    """The race that typical images have won."""
    select: Select
    """The choice that follows."""
    inversion: Invert
    """How what is chosen is taken to the time that it is denoised from."""

    @property
    def labels(self) -> list[int]:
        """The classes that race: all, or of many some, drawn by name."""
        return drawn(self.job.classes)

    @property
    def artefact(self) -> Artefact:
        """Its outcome, as the store has it: it depends on the race before it, and on what denoises."""
        job = self.job
        inputs = {
            "after": self.first.artefact,
            "select": self.select.identity(job),
            "inversion": self.inversion,
            "sampler": SAMPLER,
            "prior": job.named_prior,
            "told": [job.named_condition(label) for label in self.labels],
            "codec": job.codec.key,
            "compute": job.compute,
            "encoding": job.encoding,
            "how": HOW,
        }
        return Artefact("prior-race", inputs)

    def outcome(self) -> Outcome:
        """What came of it, `typical` being the denoised; it is run where the store does not have it."""
        return stored_outcome(self.job.store, self.artefact, self._run)

    def passes(self) -> int:
        """Network passes, in images, that it takes."""
        counts = [min(self._count, len(self.job.images.of_class(label))) for label in self.labels]
        return self.inversion.passes(counts) + sum(counts) * SAMPLER.steps * network_passes(SAMPLER.guidance)

    @property
    def _count(self) -> int:
        """Images of a class that are learnt from, at most."""
        return min(self.first.count, CHOSEN)

    @property
    def _side(self) -> int:
        return min(self.job.codec.size, SIDE)

    def _run(self) -> Outcome:
        chosen = dict[int, Indices]()
        if len(self.labels) < 2 or self.first.outcome().tested == 0:
            return Outcome(0.0, 0.0, 0.0, 0)
        for label in self.labels:
            numbers = torch.from_numpy(self.job.images.of_class(label))
            chosen[label] = self.select(self.job, label, numbers, min(self._count, len(numbers))).numpy()
        if sum(len(self._others(label, places, 0)) for label, places in chosen.items()) < 2:
            return Outcome(0.0, 0.0, 0.0, 0)
        by_prior, as_they_are, known = self._pairs(chosen)
        right: tuple[list[Tensor], list[Tensor]] = ([], [])
        for number in range(ROUNDS):
            test = LinearTest(*self._tested(chosen, number), number)
            for told, images in zip(right, (by_prior, as_they_are), strict=True):
                told.append(test.right(images, known))
        return Outcome.of(*(torch.cat(told) for told in right))

    def _pairs(self, chosen: dict[int, Indices]) -> tuple[Pixels, Pixels, Tensor]:
        """The chosen images, uint8 (N, S, S, 3), denoised and as they are, and their labels (N,)."""
        job, by_prior, as_they_are = self.job, list[Pixels](), list[Pixels]()
        meter = Meter(job.progress, "the prior against chosen images", sum(map(len, chosen.values())), "images")
        for label, places in chosen.items():
            numbers = job.images.of_class(label)[places]
            pixels = load_pixels(job.images, numbers, job.codec.size, job.spec.preprocess)
            mean, _ = job.codec.encode(to_float(pixels))
            made = to_uint8(job.codec.decode(self._denoised(label, mean)))
            if len(flat := of_one_colour(made)):
                raise AttarError(
                    f"image {flat[0]} of {job.classes[label]!r} is of a single colour once it is denoised: the prior "
                    "or its codec makes no images"
                )
            by_prior.append(at_side(made, self._side))
            as_they_are.append(at_side(pixels, self._side))
            meter.add(len(pixels))
        sizes = torch.tensor([len(places) for places in chosen.values()])
        known = torch.arange(len(sizes)).repeat_interleave(sizes)
        return np.concatenate(by_prior), np.concatenate(as_they_are), known

    def _denoised(self, label: int, z: Tensor) -> Tensor:
        prior, y, (time,) = self.job.prior, self.job.conditions([label]).expand(len(z)), self.inversion.times
        inverted, _ = self.inversion.inverted_at_times(prior, z, y, Meter(silent, "", len(z), "images"))
        return sample(prior, inverted[:, 0].to(prior.device), time, y, SAMPLER).cpu()

    def _tested(self, chosen: dict[int, Indices], number: int) -> tuple[Pixels, Tensor]:
        """Images of the classes that race, none of them chosen, and the numbers of their classes among these."""
        parts = [self._others(label, places, number) for label, places in chosen.items()]
        numbers = [self.job.images.of_class(label)[part] for label, part in zip(chosen, parts, strict=True)]
        labels = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part) for part in parts]))
        return load_pixels(self.job.images, np.concatenate(numbers), self._side, self.job.spec.preprocess), labels

    def _others(self, label: int, places: Indices, number: int) -> Indices:
        """The places of the class's images that a round tests on."""
        left, among = set(places.tolist()), order(self.job, label, number)
        return among[[place not in left for place in among.tolist()]][:LEFT_OUT]
