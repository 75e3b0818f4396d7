"""Which class of the prior each class of the data is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from attar.errors import AttarError


def match(names: Sequence[str], known: Sequence[str] | None, n_known: int, all_names: Sequence[str]) -> list[int]:
    """The prior's label of each data class, matched by name; synonyms in the prior's names are separated by commas.

    A prior without names is matched by position, which is only possible where it has as many classes as the whole
    data set, `all_names` (of which `names` may be a part).

    Raises:
        AttarError: lists every class that the prior does not know, or that it knows more than once.
    """
    if known is None:
        return _by_position(names, n_known, all_names)
    labels: dict[str, set[int]] = {}
    for label, synonyms in enumerate(known):
        for word in {normal(synonyms), *map(normal, synonyms.split(","))}:
            labels.setdefault(word, set()).add(label)
    found = {name: labels.get(normal(name), set()) for name in names}
    unknown = [name for name, of in found.items() if not of]
    if unknown:
        raise AttarError(_unmatched(unknown, labels))
    several = [f"{name!r} ({', '.join(map(str, sorted(of)))})" for name, of in found.items() if len(of) > 1]
    if several:
        raise AttarError("the prior has several classes of these names (its labels): " + ", ".join(several))
    return [next(iter(found[name])) for name in names]


def normal(name: str) -> str:
    """A name as it is compared: lower case, every run of spaces, hyphens and underscores one space."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _by_position(names: Sequence[str], n_known: int, all_names: Sequence[str]) -> list[int]:
    if n_known != len(all_names):
        raise AttarError(
            f"the prior has {n_known} classes without names and the data {len(all_names)}: they cannot be matched; "
            'add an "id2label" table to its model_index.json'
        )
    position = {name: label for label, name in enumerate(all_names)}
    return [position[name] for name in names]


def _unmatched(unknown: Sequence[str], labels: dict[str, set[int]]) -> str:
    lines = []
    for name in unknown:
        close = difflib.get_close_matches(normal(name), labels, n=1)
        lines.append(f"  {name!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))
    return "\n".join([f"{len(unknown)} classes of the data are not known to the prior:", *lines])
