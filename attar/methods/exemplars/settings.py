"""Exemplars: the settings of their choice and inversion, what it costs, their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from attar.core.arguments import check_fields
from attar.core.config import by_ipc, entries
from attar.core.errors import AttarError
from attar.core.store import Artefact, canonical
from attar.diffusion import check_grid, check_on_grid, grid
from attar.job import Job
from attar.methods.base import Fit, Select
from attar.methods.d3hr.class_moments import Invert
from attar.priors.prior import Prior
from attar.selection.rules import RANKING

if TYPE_CHECKING:
    from attar.methods.exemplars.prior_race import PriorRace
    from attar.methods.exemplars.race import TypicalRace

STORED_NAME = "Chosen"
"""What keys and manifests call the fit."""
AUTO = "auto"
TYPICAL = "1:2, 10:20, 50"
"""The per cent of a class that are typical, by the number of exemplars: few do best when typical, many when they cover
the class."""


@dataclass(frozen=True)
class ExemplarSettings(Fit):
    """Which images are exemplars, and how far they are inverted."""

    select: Select = Select(rule="herding")
    """How they are chosen; auto features are the teacher's if one is named, else the prior's middle layer's."""
    typical: int | str = AUTO
    """With a teacher: the per cent of the class that they are chosen from, those that it classifies most surely, or a
    table of them by the number of exemplars; auto: those of "1:2, 10:20, 50", or all where a short race on the data
    finds that these teach as much. Without one they are chosen from all, and the race decides whether they are
    denoised. A select.share below 1 replaces it."""
    count: int | None = None
    """Exemplars of a class, of which a smaller IPC takes the first; none: as many as the IPC."""
    time: int | None = None
    """Where images are denoised from: the earlier the closer to the exemplars, the later the more typical; none: 280
    with a teacher, which chooses typical ones, and 600 without; or not at all where races find that typical images, or
    denoised ones, teach no more."""
    guidance: float = 1.0
    """Guidance of the inversion; 1 halves its cost."""
    steps: int = 50
    """Steps of the inversion's time grid."""
    exact: bool = False
    """Find what sampling would take back to the exemplars, by fixed-point iteration; about three times the cost."""

    uses_prior = True

    @property
    def turning_time(self) -> int:
        """Where inversion ends and denoising begins."""
        if self.time is not None:
            return self.time
        return 280 if self.select.teacher is not None else 600

    @property
    def inversion(self) -> Invert:
        """How latents are inverted."""
        return Invert(times=(self.turning_time,), guidance=self.guidance, steps=self.steps, exact=self.exact)

    @property
    def chooses(self) -> Select:
        raced = self.select.teacher is not None and self.count is not None and self._races
        return self._typical if raced else self._rule

    def race(self, job: Job) -> TypicalRace | None:
        """What decides between the typical images and all; None where the settings do."""
        from attar.methods.exemplars.race import TypicalRace

        assert self.count is not None, "for_ipc says how many"
        return TypicalRace(job, self._typical, self.count) if self._races else None

    def prior_race(self, job: Job) -> PriorRace | None:
        """What decides whether the prior improves what was chosen, if typical images won; None where `time` is set."""
        from attar.methods.exemplars.prior_race import PriorRace

        first = None if self.time is not None else self.race(job)
        return None if first is None else PriorRace(job, first, self.chooses or self.select, self.inversion)

    def denoises(self, job: Job) -> bool:
        """Whether exemplars are denoised: where a time is set, or where typical images and then the prior win races."""
        first, second = self.race(job), self.prior_race(job)
        if first is None or second is None:
            return True
        return first.outcome().typical_wins and second.outcome().typical_wins

    def decided(self, job: Job) -> Select:
        """The rule of choice, after the race where one decides."""
        race = self.race(job)
        return self.chooses if race is not None and race.outcome().typical_wins else self.select

    @property
    def _races(self) -> bool:
        """Whether a race decides: on the share with a teacher, and on whether exemplars are denoised at all."""
        taught = self.select.teacher is not None
        return self.typical == AUTO and self._has_no_share and (taught or self.time is None)

    @property
    def _takes_share(self) -> bool:
        """Whether a share is chosen from that no race decides."""
        return self.select.teacher is not None and self._has_no_share

    @property
    def _has_no_share(self) -> bool:
        """Whether a share could be chosen from, and none is set."""
        return self.select.rule not in ("first", *RANKING) and self.select.share == 1

    @property
    def _typical(self) -> Select:
        """The rule of choice among the typical ones."""
        return replace(self._rule, share=self._share)

    @property
    def _share(self) -> float:
        """The share that is typical."""
        assert self.count is not None, "for_ipc says how many"
        return by_ipc(TYPICAL if self.typical == AUTO else self.typical, self.count, "fit.typical") / 100

    @property
    def needs(self) -> int:
        return self.count or 1

    def check(self, prior: Prior) -> None:
        self.inversion.check(prior)

    def for_ipc(self, ipc: int) -> Self:
        count = self.count or ipc
        if count < ipc:
            raise AttarError(f"`fit.count` {count}: fewer exemplars than `ipc` {ipc}")
        settled = replace(self, count=count, select=self._rule)
        if settled._races and settled._share < 1:
            return settled
        select = replace(settled.select, share=settled._share) if settled._takes_share else settled.select
        return replace(settled, select=select, typical=100, time=self.turning_time)

    def identity(self, job: Job) -> Any:
        """Its fields as keys and manifests hold them, the seed where the rule draws, and the race where one decides."""
        name = f"{STORED_NAME} by seed {job.spec.seed}" if self.select.rule == "random" else STORED_NAME
        if self.count is not None and (race := self.race(job)) is not None:
            name += f" after race {race.artefact.key}"
            name += "" if (second := self.prior_race(job)) is None else f" and {second.artefact.key}"
        return {**canonical(replace(self, select=Select())), "select": self._rule.identity(job), "is": name}

    @property
    def _rule(self) -> Select:
        """The rule of choice, with the features that `auto` stands for."""
        auto = self.select.features == "auto" and self.select.teacher is None and self.select.compares
        return replace(self.select, features="prior") if auto else self.select

    def deciding_seconds(self, job: Job) -> float:
        race = self.race(job)
        return 0.0 if race is None or job.store.has(race.artefact) else race.seconds()

    def deciding_passes(self, job: Job) -> int:
        first, second = self.race(job), self.prior_race(job)
        if first is None or second is None or job.store.has(second.artefact):
            return 0
        lost = job.store.has(first.artefact) and not first.outcome().typical_wins
        return 0 if lost else second.passes()

    def decided_by(self, job: Job) -> Sequence[Artefact]:
        first, second = self.race(job), self.prior_race(job)
        if first is None:
            return ()
        lost = job.store.has(first.artefact) and not first.outcome().typical_wins
        return [first.artefact] if second is None or lost else [first.artefact, second.artefact]

    def passes(self, counts: Sequence[int]) -> int:
        return sum(self.inversion.passes([min(self.count or count, count)]) for count in counts)

    def encodings(self, counts: Sequence[int]) -> int:
        return sum(min(self.count or count, count) for count in counts)

    # Checks of the settings

    def __post_init__(self) -> None:
        check_fields(self, "fit")
        if self.count is not None and self.count < 1:
            raise AttarError(f"fit.count {self.count}: at least 1")
        shares = [] if self.typical == AUTO else entries(self.typical, "fit.typical")
        if not all(1 <= share <= 100 and share == int(share) for _, share in shares):
            raise AttarError(f"fit.typical {self.typical}: whole per cents from 1 to 100, or auto")
        check_grid("fit", self.steps, "leading")
        check_on_grid("fit.time", self.turning_time, grid(self.steps), f"the grid of fit.steps = {self.steps}")
        _ = self.inversion  # has checks of its own
