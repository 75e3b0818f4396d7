"""Commands that follow one another as one: how much of all of them is done, and how long all the rest takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from attar.core.progress import LEFT, Progress
from attar.core.whole_command import StageForecast, WholeCommand


class WholeGrid(WholeCommand):
    """The stages of all items of a grid: those foreseen, and, once an item runs, those that its command forecasts."""

    trust = 0.5
    """The forecast of a training counts as much as the pace of sampling, which says little of it."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress, {})
        self.items: dict[str, GridItem] = {}
        self.running, self.before = False, 0.0

    @contextmanager
    def item(self, name: str) -> Iterator[GridItem]:
        """Within it an item runs, and tells its progress by what this gives; then it is over, whatever became of it."""
        self.running = True
        try:
            yield self.named(name)
        finally:
            self.over(name)

    def named(self, name: str) -> GridItem:
        """What an item is foreseen and told by."""
        return self.items.setdefault(name, GridItem(self, name))

    def over(self, name: str) -> None:
        """Nothing more comes of an item: what was not done of it is neither done nor left."""
        self.named(name).end()

    @property
    def share(self) -> float:
        """How much of the forecast is done, 0 to 1; never less than before."""
        self.before = max(self.before, super().share)
        return self.before


class GridItem(WholeCommand):
    """The stages of one command of a grid. It takes their progress, and the grid tells it with its own time."""

    def __init__(self, grid: WholeGrid, name: str) -> None:
        super().__init__(grid.progress, {})
        self.grid, self.name = grid, name

    def foresee(self, parts: Mapping[str, StageForecast]) -> None:
        """Its stages, some time before it runs; what an item foreseen before it makes is not made again."""
        others = (other for item in self.grid.items.values() if item is not self for other in item.parts.values())
        made = frozenset[str]().union(*(other.makes for other in others))
        for part in parts.values():
            part.seconds *= len(part.makes - made) / len(part.makes) if part.makes else 1.0
        self.begin(parts)

    def begin(self, parts: Mapping[str, StageForecast]) -> None:
        """Its stages as its command forecasts them, in the place of those that were foreseen."""
        self.end()
        self.parts |= parts
        self.grid.parts |= {self._key(name): part for name, part in parts.items()}

    def end(self) -> None:
        """What is not done of its stages is neither done nor left."""
        for part in self.parts.values():
            part.spent *= part.share > 0
            part.seconds *= part.share
            part.finish()

    def tell(self, name: str, text: str, fraction: float | None = None) -> None:
        """As of a whole command; the time that the text says is left is that of the item, and is not told.

        What is told before any item runs is no part of the grid: not all of it is foreseen yet.
        """
        said = LEFT.fullmatch(text)
        if self.grid.running:
            self.grid.tell(self._key(name), said[1] if said else text, fraction)
        else:
            self.grid.progress(text, fraction or 0.0)

    def __call__(self, text: str, fraction: float) -> None:
        """The progress of a stage by what it says first of itself."""
        self.tell(next((name for name in self.parts if text.startswith(name)), ""), text, fraction)

    def _key(self, name: str) -> str:
        return f"{self.name}: {name}"


def whole_of(progress: Progress, parts: Mapping[str, StageForecast]) -> WholeCommand:
    """The stages of a command that begins: as one, or in the grid that it is an item of."""
    if not isinstance(progress, GridItem):
        return WholeCommand(progress, parts)
    progress.begin(parts)
    return progress
