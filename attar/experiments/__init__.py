"""Methods compared: an experiment's grid run as resumable items, and what it came to in tables and figures."""

from attar.experiments.compare import compare

__all__ = ["compare"]
