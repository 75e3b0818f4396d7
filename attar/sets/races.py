"""What short races on the data decided while a set was made, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def races_in_words(manifest: Mapping[str, Any]) -> str:
    """Which images the set's were chosen among, and whether the prior denoised them; "" where no race decided."""
    learnt: Mapping[str, float] = manifest.get("learnt", {})
    if "denoised" not in learnt:
        return ""
    among = "the typical ones of each class" if learnt["share"] < 1 else "all of each class"
    first = _compared(learnt["typical"], "typical ones", learnt["all"], "any")
    kept = "denoised by the prior" if learnt["denoised"] else "nothing denoised the real images"
    if "by_prior" not in learnt:
        return f"chosen among {among}{first}: {kept}"
    second = _compared(learnt["by_prior"], "these denoised", learnt["as_they_are"], "these as they are")
    return f"chosen among {among}{first}; {kept}{second}"


def credited_prior(manifest: Mapping[str, Any]) -> str | None:
    """The prior that a set was made by, and that it has no image of it where its races were lost; None of no prior."""
    if manifest["prior"] is None:
        return None
    source = str(manifest["prior"]["source"])
    return source if manifest.get("learnt", {}).get("denoised", 1) else f"{source}, which made none of these images"


def _compared(one: float, after: str, other: float, after_other: str) -> str:
    if one == other == 0:
        return " (too few images or classes for a race)"
    return f" ({one:.1f} % of other images are right after {after}, {other:.1f} % after {after_other})"
