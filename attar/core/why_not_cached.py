"""Why an artefact of the cache is not the one that is asked for: the inputs that differ, down to those of its parts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attar.core.cache import CachedArtefact
from attar.core.fingerprints import Artefact, is_artefact, is_named

ABSENT = "nothing"
"""Stands where one of two records has no such input."""


@dataclass(frozen=True)
class ChangedInput:
    """An input that is not the same in the cache."""

    field: str
    """Its name, from the artefact down: `fit.per_class`, `latents.images.count`."""
    asked: Any
    """What it is to be, as a meta.json would hold it."""
    cached: Any
    """What it is in the cache."""


@dataclass(frozen=True)
class NearestArtefact:
    """The artefact of the cache that is most like one that is asked for."""

    record: CachedArtefact
    """What is there."""
    differences: tuple[ChangedInput, ...]
    """The inputs that differ."""


class Catalogue:
    """Artefacts of a cache, to be compared with those that a run asks for."""

    def __init__(self, records: Sequence[CachedArtefact]) -> None:
        self._inputs: dict[str, Mapping[str, Any]] = {record.key: record.inputs for record in records if record.inputs}
        self._kinds: dict[str, list[CachedArtefact]] = {}
        self._classes: dict[tuple[str, str], list[CachedArtefact]] = {}
        for record in records:
            if not record.wrong:
                self._kinds.setdefault(record.kind, []).append(record)
                self._classes.setdefault(_class(record.kind, record.inputs), []).append(record)

    def nearest(self, asked: Artefact) -> NearestArtefact | None:
        """The artefact of the same kind, and class if possible, with the fewest differences; None if there is none."""
        same = self._classes.get(_class(asked.kind, asked.recorded)) or self._kinds.get(asked.kind, [])
        candidates = [NearestArtefact(record, self.differences(asked, record)) for record in same]
        return min(candidates, key=lambda near: (len(near.differences), -near.record.used), default=None)

    def differences(self, asked: Artefact, record: CachedArtefact) -> tuple[ChangedInput, ...]:
        """The inputs that differ. Artefacts among them are followed to their own inputs, where those are known."""
        return _differences(asked, record.inputs, {**self._inputs, **dict(_parts(asked))})


def differing_inputs(asked: Artefact, other: Artefact) -> tuple[ChangedInput, ...]:
    """The inputs in which two artefacts of a kind differ, those of their parts included."""
    return _differences(asked, other.recorded, {**dict(_parts(other)), **dict(_parts(asked))})


def _differences(
    asked: Artefact, inputs: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]
) -> tuple[ChangedInput, ...]:
    differing = _Comparison(known).compared(asked.recorded, inputs, "")
    return tuple({(each.field, str(each.asked), str(each.cached)): each for each in differing}.values())


class _Comparison:
    """Compares two records; two artefacts that are met again and again are compared once."""

    def __init__(self, inputs: Mapping[str, Mapping[str, Any]]) -> None:
        self.inputs = inputs
        self.seen: set[tuple[str, str]] = set()

    def compared(self, asked: Any, cached: Any, field: str) -> Iterator[ChangedInput]:
        if asked == cached or (is_named(asked) and is_named(cached) and asked["digest"] == cached["digest"]):
            return
        if is_artefact(asked) and is_artefact(cached) and asked["artefact"] == cached["artefact"]:
            yield from self._artefacts(asked, cached, field)
        elif isinstance(asked, dict) and isinstance(cached, dict) and asked.get("is") == cached.get("is"):
            yield from self._tables(asked, cached, field)
        elif isinstance(asked, list) and isinstance(cached, list) and _alike(asked, cached):
            for left, right in zip(asked, cached, strict=True):
                yield from self.compared(left, right, field)
        else:
            yield ChangedInput(field, asked, cached)

    def _artefacts(self, asked: Any, cached: Any, field: str) -> Iterator[ChangedInput]:
        pair = asked["key"], cached["key"]
        left, right = map(self.inputs.get, pair)
        if left is None or right is None:
            yield ChangedInput(field, asked, cached)
        elif pair not in self.seen:
            self.seen.add(pair)
            yield from self.compared(left, right, field)

    def _tables(self, asked: dict[str, Any], cached: dict[str, Any], field: str) -> Iterator[ChangedInput]:
        """A digest goes without saying where what it is of differs in words."""
        if is_named(asked) or is_named(cached):
            yield ChangedInput(field, asked, cached)
            return
        names = [name for name in dict.fromkeys((*asked, *cached)) if name != "digest"]
        differing: list[ChangedInput] = []
        for name in [*names, "digest"]:
            if name != "digest" or not differing:
                differing += self.compared(asked.get(name, ABSENT), cached.get(name, ABSENT), _within(field, name))
        yield from differing


def _within(field: str, name: str) -> str:
    """The name of an input of an input; a fit's own `fit` is not named twice."""
    return f"{field}.{name}" if field and field.rpartition(".")[2] != name else field or name


def _alike(asked: list[Any], cached: list[Any]) -> bool:
    """Whether two lists hold records, as many in one as in the other."""
    return len(asked) == len(cached) and all(isinstance(part, dict) for part in (*asked, *cached))


def _parts(artefact: Artefact) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The inputs of all artefacts that this one is to be made from, by key."""
    for part in artefact.made_from:
        yield part.key, part.recorded
        yield from _parts(part)


def _class(kind: str, inputs: Mapping[str, Any]) -> tuple[str, str]:
    return kind, json.dumps(inputs.get("class", inputs.get("classes")))
