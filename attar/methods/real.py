"""Real images kept by a selection rule: the baselines."""

from __future__ import annotations

from dataclasses import dataclass

from attar.methods.base import RealImages
from attar.selection import Select


@dataclass(frozen=True)
class Real(RealImages):
    """Real images of each class, copied pixel for pixel, chosen from all of the class by a rule."""

    select: Select = Select(rule="random")
    """How they are chosen."""
