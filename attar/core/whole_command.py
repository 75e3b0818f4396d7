"""The stages of a command as one: how much of all of them is done, and how long the rest takes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from attar.core.progress import LEFT, Progress, duration

ENOUGH = 0.05
"""The share of a stage from which on its own pace counts, and no longer that of the others."""


@dataclass
class StageForecast:
    """A stage: its forecast, and how far it is."""

    seconds: float
    """How long it was forecast to take."""
    rounds: Sequence[float] = (1.0,)
    """How large its rounds are, one beside another: it is told of from 0 to 1 once for each of them."""
    kinds: Sequence[Hashable] = ()
    """What it is one of, the narrowest kind first: until its own pace counts, it goes as fast as others of a kind."""
    makes: frozenset[str] = frozenset()
    """Keys of what it makes: where several commands are foreseen, the first of them makes what they share."""
    round: int = field(default=0, init=False)
    fraction: float = field(default=0.0, init=False)
    """Of the round."""
    found: float | None = field(default=None, init=False)
    """How much of it was done when it was first told of: trainings that an earlier command has finished."""
    spent: float = field(default=0.0, init=False)
    """Seconds since then."""

    @property
    def done(self) -> float:
        """How much of it is done in what was spent, 0 to 1."""
        return self.share - (self.found or 0.0)

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        whole = sum(self.rounds)
        before, now = sum(self.rounds[: self.round]), self.rounds[self.round : self.round + 1]
        return (before + self.fraction * sum(now)) / whole if whole else 1.0

    @property
    def is_last_round(self) -> bool:
        """Whether no other round comes."""
        return self.round >= len(self.rounds) - 1

    def tell(self, fraction: float) -> None:
        """It is so far; a smaller fraction than before begins another round."""
        if fraction < self.fraction:
            self.round += 1
        self.fraction = fraction
        self.found = self.share if self.found is None else self.found

    def finish(self) -> None:
        """It is done, though nothing may have been told of it."""
        self.round = len(self.rounds)


class WholeCommand:
    """Takes what stages tell of themselves, and tells how far all of them are and what time is left.

    That time is the forecast of what is left, at the pace of what was done.
    """

    trust = 1.0
    """How far the pace of all that was done counts for what is of another kind: 0, not at all."""

    def __init__(self, progress: Progress, parts: Mapping[str, StageForecast]) -> None:
        self.progress, self.parts = progress, dict(parts)
        self.at, self.last = time.monotonic(), ""

    def of(self, name: str) -> Progress:
        """What a part is told by."""
        return partial(self.tell, name)

    def tell(self, name: str, text: str, fraction: float | None = None) -> None:
        """A part is so far, or at work that says nothing of how far it is; other names are of what has no forecast.

        What has none, and says itself how long it takes, is told as it is.
        """
        now = time.monotonic()
        if part := self.parts.get(self.last):
            part.spent += now - self.at
        self.at, self.last = now, name
        part, said = self.parts.get(name), LEFT.fullmatch(text)
        if part is not None and fraction is not None:
            part.tell(fraction)
        if said and (part is None or not part.seconds):
            self.progress(text, self.share)
        else:
            self.progress(f"{said[1] if said else text}; {duration(self.left)} left", self.share)

    @property
    def share(self) -> float:
        """How much of the forecast is done, 0 to 1."""
        whole = sum(part.seconds for part in self.parts.values())
        return sum(part.share * part.seconds for part in self.parts.values()) / whole if whole else 0.0

    @property
    def left(self) -> float:
        """Seconds."""
        told = [part for part in self.parts.values() if part.spent]
        kinds = defaultdict[Hashable, list[StageForecast]](list)
        for part in told:
            for kind in part.kinds if part.done >= ENOUGH else ():
                kinds[kind].append(part)
        pace, paces = _pace(told), {kind: _pace(parts) for kind, parts in kinds.items()}
        usual = pace.seconds**self.trust if self.share > ENOUGH / 2 and pace.worked else 1.0
        return sum(self._left(part, paces, usual) for part in self.parts.values())

    @staticmethod
    def _left(part: StageForecast, paces: Mapping[Hashable, _Pace], usual: float) -> float:
        if part.spent and part.done >= ENOUGH:
            return part.spent * (1 - part.share) / part.done
        seen = (paces[kind] for kind in part.kinds if kind in paces)
        pace = next((pace.seconds for pace in seen if pace.worked >= ENOUGH * part.seconds and pace.worked), usual)
        return part.seconds * (1 - part.share) * pace


@dataclass(frozen=True)
class _Pace:
    """How fast some parts go."""

    spent: float
    worked: float
    """Of the forecast seconds, how many were done in what was spent."""

    @property
    def seconds(self) -> float:
        """What a second of the forecast takes."""
        return self.spent / self.worked


def _pace(parts: Sequence[StageForecast]) -> _Pace:
    return _Pace(sum(part.spent for part in parts), sum(part.done * part.seconds for part in parts))
