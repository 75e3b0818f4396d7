"""A denoiser whose outputs are watched, so that a NaN is laid at the door of the step that it came from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attar.core.errors import NotFinite
from attar.diffusion.schedule import Denoiser, Schedule


@dataclass(frozen=True, eq=False)
class Watched:
    """The same denoiser. What it sees stays on the device until `check`, so that no step waits for it."""

    denoiser: Denoiser
    seen: list[tuple[int, Tensor]] = field(default_factory=list)
    """The time of each call, and which rows (N,) of the output were finite."""

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    @property
    def null(self) -> int:
        return self.denoiser.null

    def __call__(self, z: Tensor, t: int, y: Tensor) -> Tensor:
        return self._noted(t, self.denoiser(z, t, y))

    def both(self, z: Tensor, t: int, y: Tensor) -> tuple[Tensor, Tensor]:
        labelled, empty = self.denoiser.both(z, t, y)
        return self._noted(t, labelled), self._noted(t, empty)

    def _noted(self, t: int, output: Tensor) -> Tensor:
        self.seen.append((t, output.isfinite().flatten(1).all(1)))
        return output

    def check(self, z: Tensor) -> None:
        """Raises NotFinite, which names the time, where an output or the latents (N, C, H, W) they led to are not."""
        good = torch.cat([*(rows for _, rows in self.seen), z.isfinite().flatten(1).all(1)]).cpu()
        if good.all():
            return
        *outputs, last = good.split([*(len(rows) for _, rows in self.seen), len(z)])
        for (t, _), rows in zip(self.seen, outputs, strict=True):
            if not rows.all():
                raise NotFinite(f"the prior's output at time {t} is NaN or infinite", _bad(rows))
        raise NotFinite("the latents are NaN or infinite, though no output of the prior was", _bad(last))


def _bad(rows: Tensor) -> list[int]:
    places: list[int] = (~rows).nonzero().flatten().tolist()
    return places
