"""Schedules, time grids, sampling and inversion: pure functions on tensors.

Times are integers 0 ... 999 of the training schedule; a larger time is noisier. Below the grid lies the clean image; as
some reference codes put it elsewhere, its time is a field: -1 is alpha-bar = 1, t >= 0 is alpha-bar(t).
"""

from __future__ import annotations

from attar.diffusion.guidance import guided, guided_output, network_passes
from attar.diffusion.inversion import FixedPoint, Inverted, invert, inverted
from attar.diffusion.sampling import (
    CHECKPOINT,
    EVEN,
    SOLVERS,
    Sampler,
    check_guided,
    sample,
    sampling_times,
    start_time,
    times_from,
)
from attar.diffusion.schedule import (
    SPACINGS,
    Denoiser,
    Schedule,
    check_grid,
    check_on_grid,
    ddim_move,
    grid,
    in_two_calls,
)
from attar.diffusion.schedulers import SCHEDULERS, schedule_of
from attar.diffusion.solvers import Move, Noise, Shift

__all__ = [
    "CHECKPOINT",
    "EVEN",
    "SCHEDULERS",
    "SOLVERS",
    "SPACINGS",
    "Denoiser",
    "FixedPoint",
    "Inverted",
    "Move",
    "Noise",
    "Sampler",
    "Schedule",
    "Shift",
    "check_grid",
    "check_guided",
    "check_on_grid",
    "ddim_move",
    "grid",
    "guided",
    "guided_output",
    "in_two_calls",
    "invert",
    "inverted",
    "network_passes",
    "sample",
    "sampling_times",
    "schedule_of",
    "start_time",
    "times_from",
]
