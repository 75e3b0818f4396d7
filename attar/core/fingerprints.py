"""Keys: an artefact of the cache is called by the fingerprint of all that it is made of, and records the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

KEYS = 1
"""Enters every key: raise it when inputs are recorded in another way, and no older artefact is taken for a new one."""


@dataclass(frozen=True)
class Named:
    """An input that may go by several names: its digest enters keys, and its name is recorded for the reader."""

    name: str
    """What it is called in this run: `digits`, or a folder."""
    digest: str
    """The fingerprint of its content."""


@dataclass(frozen=True, eq=False)
class Artefact:
    """One piece of work of the cache, made or yet to be made."""

    kind: str
    """What it is, and the folder of the cache that it lies in: latents, fit, candidates ..."""
    inputs: Mapping[str, Any]
    """All that it depends on, by name: plain values, frozen objects, `Named` ones and other artefacts."""

    @cached_property
    def recorded(self) -> dict[str, Any]:
        """The inputs as its meta.json holds them."""
        return {name: canonical(value) for name, value in self.inputs.items()}

    @cached_property
    def key(self) -> str:
        """The fingerprint of its kind and its inputs."""
        return key_of(self.kind, self.recorded)

    @property
    def made_from(self) -> Iterator[Artefact]:
        """The artefacts among its inputs."""
        return _artefacts(self.inputs)


def key_of(kind: str, recorded: Any) -> str:
    """The key of the artefact of a kind whose inputs are recorded so."""
    return fingerprint(KEYS, kind, _without_names(recorded))


def is_named(recorded: Any) -> bool:
    """Whether this is the record of a `Named` input."""
    return isinstance(recorded, dict) and recorded.keys() == {"named", "digest"}


def is_artefact(recorded: Any) -> bool:
    """Whether this is the record of an artefact."""
    return isinstance(recorded, dict) and recorded.keys() == {"artefact", "key"}


def canonical(value: Any) -> Any:
    """A JSON value that is equal for equal objects: frozen dataclasses become their name and fields.

    Fields that a class names in `LATER` with their defaults came after its first keys: a default is left out there.

    Raises:
        TypeError: the value holds something whose equality a file cannot record (a tensor, a function, a path).
    """
    if isinstance(value, Artefact):
        return {"artefact": value.kind, "key": value.key}
    if isinstance(value, Named):
        return {"named": value.name, "digest": value.digest}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        later = getattr(type(value), "LATER", {})
        kept = {name: canonical(own) for name, own in fields.items() if name not in later or own != later[name]}
        return {"is": type(value).__qualname__, **kept}
    if isinstance(value, dict):
        return {str(k): canonical(v) for k, v in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"cannot fingerprint a {type(value).__name__}")


def fingerprint(*values: Any) -> str:
    """A 32-digit hexadecimal key: equal values give equal keys, in every process and on every machine."""
    text = json.dumps(canonical(values), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def digest(data: bytes) -> str:
    """The fingerprint of file contents."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """The fingerprint of a file's contents, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _without_names(recorded: Any) -> Any:
    if is_named(recorded):
        return recorded["digest"]
    if isinstance(recorded, dict):
        return {name: _without_names(value) for name, value in recorded.items()}
    return [_without_names(value) for value in recorded] if isinstance(recorded, list) else recorded


def _artefacts(value: Any) -> Iterator[Artefact]:
    if isinstance(value, Artefact):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _artefacts(part)
