"""Whether `accelerate launch` or torchrun started this process, as one of several."""

from __future__ import annotations

import os


def launched() -> int:
    """How many processes were started together; 1 where this one was started alone."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1


def rank() -> int:
    """Which of them this one is, from 0: that is the main one, which alone writes and speaks."""
    return int(os.environ.get("RANK", 0)) if launched() > 1 else 0
