"""The most that some numbers may be, so that a slip of the hand does not cost memory or days; and what memory holds."""

from __future__ import annotations

from typing import NamedTuple

from attar.core.errors import AttarError

IN_MEMORY = 150 << 20
"""Image files, decoded pixels and latents of up to so many bytes are held in memory; more are mapped from the cache."""

GUIDANCE = 100.0
"""The most that guidance may be: papers use 1 to 20, and beyond it images are saturated whatever the prior."""

SEED = 2**53
"""The largest seed: JSON readers round larger whole numbers."""


class Limit(NamedTuple):
    """The largest number of its kind, and why there is one."""

    most: int
    why: str


SIDE = Limit(4096, "pixels a side: such an image takes 50 MB once decoded, and sets are held in memory to be judged")
IPC = Limit(100_000, "images per class: all candidates of a class are in memory at once")
TILE = Limit(4096, "images in a network call, which are in memory at once")
SEEDS = Limit(1000, "seeds: each is a training of its own")


def check_most(name: str, value: int | None, limit: Limit) -> None:
    """Raises AttarError for a number above its limit."""
    if value is not None and value > limit.most:
        raise AttarError(f"{name} {value}: at most {limit.most:,} {limit.why}")


def check_guidance(name: str, value: float) -> None:
    """Raises AttarError unless the number can be a guidance."""
    if not 0 <= value <= GUIDANCE:
        raise AttarError(f"{name} {value:g}: must be a number from 0 to {GUIDANCE:g}; 1 guides not at all")


def check_seed(name: str, value: object) -> None:
    """Raises AttarError unless the value is a whole number that a manifest can hold."""
    if isinstance(value, bool) or not isinstance(value, int) or not -SEED <= value <= SEED:
        raise AttarError(f"{name} {value}: must be a whole number from -2^53 to 2^53")


def seeds(count: int, name: str = "`seeds`") -> range:
    """The seeds of this many trainings, from 0 on.

    Raises:
        AttarError: none, or too many.
    """
    if count < 1:
        raise AttarError(f"{name} {count}: at least 1")
    check_most(name, count, SEEDS)
    return range(count)
