"""Attar: dataset distillation with diffusion models.

    import attar

    attar.distill(data="digits", prior="digits", method="d3hr", ipc=[1, 10], out="runs/d3hr")
    records = attar.evaluate("runs/d3hr", recipe="quick", network="convnet3-bn-w48", seeds=3)

Importing it imports nothing heavy; torch is loaded by what needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attar.api import cache_contents, compare, distill, evaluate, explain, explain_run, prune_cache, tune
    from attar.core.engine import Engine
    from attar.core.errors import AttarError
    from attar.data import load_data
    from attar.priors import load_prior
    from attar.sets.dataset import DistilledDataset, load_set

__version__ = "0.1.0"
__all__ = [
    "AttarError",
    "DistilledDataset",
    "Engine",
    "__version__",
    "cache_contents",
    "compare",
    "distill",
    "evaluate",
    "explain",
    "explain_run",
    "load_data",
    "load_prior",
    "load_set",
    "prune_cache",
    "tune",
]

_HOMES = {
    "AttarError": "attar.core.errors",
    "DistilledDataset": "attar.sets.dataset",
    "Engine": "attar.core.engine",
    "cache_contents": "attar.api",
    "compare": "attar.api",
    "distill": "attar.api",
    "evaluate": "attar.api",
    "explain": "attar.api",
    "explain_run": "attar.api",
    "load_data": "attar.data",
    "load_prior": "attar.priors",
    "load_set": "attar.sets.dataset",
    "prune_cache": "attar.api",
    "tune": "attar.api",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    from attar.core.errors import suggestion

    raise AttributeError(f"module 'attar' has no attribute {name!r}{suggestion(name, __all__)}")
