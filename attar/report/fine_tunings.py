"""What was measured while a prior was fine-tuned, as a page shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attar.report.charts import FineTuning
from attar.report.set_names import path_of
from attar.sets.distilled import DistilledSet

MEASURES = {
    "precision": "share of generated latents that lie among real ones (5 neighbours)",
    "recall": "share of real latents that lie among generated ones",
    "density": "how many real latents' neighbourhoods a generated one lies in, over 5",
    "coverage": "share of real latents with a generated one in their neighbourhood",
    "farthest": "1 - a generated latent's smallest cosine to real ones: what representativeness makes small",
    "nearest": "its largest cosine to another generated one: what diversity makes small",
}
"""What is shown of a fine-tuning."""


def fine_tunings(sets: Sequence[DistilledSet], names: Mapping[str, str], styles: Mapping[str, int]) -> list[FineTuning]:
    """One for each method whose sets tell of a fine-tuning; sets of several IPCs tell of the same one."""
    tunings: dict[str, FineTuning] = {}
    for distilled in sets:
        groups = [group["looks"] for group in distilled.manifest.get("measures", [])]
        name = names[path_of(distilled)]
        if groups and name not in tunings:
            moments = list(zip(*groups, strict=False))
            values = {
                measure: tuple(sum(_value(look, measure) for look in looks) / len(looks) for looks in moments)
                for measure in MEASURES
            }
            tunings[name] = FineTuning(name, styles[name], tuple(looks[0]["step"] for looks in moments), values)
    return list(tunings.values())


def _value(look: Mapping[str, float | None], measure: str) -> float:
    """A measure at one moment; not a number where it came out as none, or an older version did not take it."""
    value = look.get(measure)
    return math.nan if value is None else value
