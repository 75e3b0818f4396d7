"""The card of a set on the hub: the set's own, and what a stranger has to know before use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.core.portable_paths import portable_all
from attar.sets.card import card, escaped
from attar.sets.distilled import DistilledSet, stored
from attar.sets.near_copies import Nearest


@dataclass(frozen=True)
class Score:
    """What a network came to that was trained on the set, in words."""

    judged: str
    """The network, the recipe, the test images."""
    accuracy: str
    """In per cent, with n."""
    random: str
    """The same of random real images, as many; nothing where these were not judged."""


def hub_card(distilled: DistilledSet, licence: str | None, scores: Sequence[Score], nearest: Sequence[Nearest]) -> str:
    """The set's card with its licence, sizes, scores, near copies, settings and intended use."""
    manifest = distilled.manifest
    front, _, body = card(manifest).removeprefix("---\n").partition("\n---\n")
    meta = json.loads(front) | ({} if licence is None else {"license": licence})
    body, classes, names = body.partition("\n## Classes\n")
    settings = dict(_flat(portable_all(manifest["method"])))
    tables = "".join(
        [
            _section("What it holds", [*_sizes(distilled), ("licence of the source data", licence or UNLICENSED)]),
            _section("Scores", [(score.judged, _both(score)) for score in scores]) or UNSCORED,
            _section("Near copies", [(measured.kind, str(measured)) for measured in nearest]) or UNMEASURED,
            _section("Settings", list(settings.items())),
        ]
    )
    return f"---\n{json.dumps(meta, indent=1)}\n---\n{body}{tables}{INTENDED}{classes}{names}"


def _sizes(distilled: DistilledSet) -> list[tuple[str, str]]:
    held, count = stored(distilled), len(distilled.manifest["images"])
    return [("images", f"{count:,}"), ("pixels", f"{held.pixels:,}"), ("bytes of the images", f"{held.bytes:,}")]


def _both(score: Score) -> str:
    return f"{score.accuracy}; random real images {score.random}" if score.random else score.accuracy


def _section(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """A heading with a table of two columns; nothing where there are no rows."""
    if not rows:
        return ""
    lines = "\n".join(f"| {escaped(name)} | {escaped(value)} |" for name, value in rows)
    return f"\n## {title}\n\n| | |\n|---|---|\n{lines}\n"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name != "is":
            yield prefix + name, "none" if value is None else str(value)


UNLICENSED = "not stated: look it up before you use or pass on these images"
UNSCORED = """
## Scores

None were given: `attar evaluate` measures what a network learns from these images.
"""
UNMEASURED = """
## Near copies

Not measured. A distilled image may be close to a real one, or be one; `attar nearest` tells.
"""
INTENDED = """
## Intended use

Research on learning from few images: training and comparing networks, architecture search, replay, tests of a training
pipeline. A network that is trained on these images alone knows less than one trained on all of the data, and less
evenly: measure it on real images of your own before you rely on it. The images may show what the source data show,
people included, and are no way to make data anonymous. Scores hold for the network, recipe and number of images that
stand beside them.
"""
