"""How far images were, on their way from noise, from the latents that they are drawn to, as a page shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attar.report.charts import Way
from attar.report.set_names import path_of
from attar.sets.distilled import DistilledSet


def ways_of(sets: Sequence[DistilledSet], names: Mapping[str, str], styles: Mapping[str, int]) -> list[Way]:
    """One for each set whose images were drawn to latents."""
    ways = []
    for distilled in sets:
        kept, name = distilled.manifest.get("way"), names[path_of(distilled)]
        if kept:
            times, distances = zip(*((step["t"], step["distance"]) for step in kept), strict=True)
            ways.append(Way(f"{name}, IPC {distilled.manifest['ipc']}", styles[name], times, distances))
    return ways
