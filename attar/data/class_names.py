"""Which class of the prior each class of the data is."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from attar.core.errors import AttarError
from attar.data.source import listed

ClassMap = Mapping[str, int | str]
"""Data class name -> label or class name of the prior."""


def match(
    names: Sequence[str],
    known: Sequence[str] | None,
    n_known: int,
    all_names: Sequence[str],
    mapping: ClassMap | None = None,
) -> list[int]:
    """The prior's label of each data class: as `mapping` says, else by name, WordNet id or synonym.

    Synonyms in a name are separated by commas. A prior without names is matched by position, which is only possible
    where it has as many classes as the whole data set, `all_names` (of which `names` may be a part).

    Raises:
        AttarError: lists every class that the prior does not know, or that it knows more than once, or that `mapping`
            has and the data has not.
    """
    found = matches(names, known, n_known, all_names, mapping)
    unknown = [name for name, labels in found.items() if not labels]
    if unknown:
        raise AttarError(_unmatched(unknown, [] if known is None else list(_words(tuple(known)))))
    several = [f"{name!r} ({', '.join(map(str, labels))})" for name, labels in found.items() if len(labels) > 1]
    if several:
        raise AttarError(
            f"the prior has several classes of these names (its labels): {', '.join(several)}; "
            "choose one with --class-map FILE"
        )
    return [found[name][0] for name in names]


def matches(
    names: Sequence[str],
    known: Sequence[str] | None,
    n_known: int,
    all_names: Sequence[str],
    mapping: ClassMap | None = None,
) -> dict[str, list[int]]:
    """Every label of the prior that each data class may be: none, one or several; else as `match`."""
    position = {name: label for label, name in enumerate(all_names)}
    mapping = mapping or {}
    strangers = [name for name in mapping if name not in position]
    if strangers:
        raise AttarError(_strangers(strangers, all_names))
    mapped = {name: [_label(name, mapping[name], known, n_known)] for name in names if name in mapping}
    rest = [name for name in names if name not in mapping]
    aligned = n_known == len(all_names)
    if known is None:
        if rest and not aligned:
            raise AttarError(
                f"the prior has {n_known} classes without names and the data {len(all_names)}: they cannot be matched; "
                'add an "id2label" table to its model_index.json, or say which is which with --class-map FILE'
            )
        return {name: mapped.get(name, [position[name]]) for name in names}
    by_name = {name: _named(name, known) for name in rest}
    if aligned:
        by_name = {name: [position[name]] if position[name] in labels else labels for name, labels in by_name.items()}
    return {name: mapped.get(name) or by_name[name] for name in names}


def normal(name: str) -> str:
    """A name as it is compared: lower case, every run of spaces, hyphens and underscores one space."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def named(id2label: object, count: int, where: str) -> tuple[str, ...]:
    """The class names in label order from `id2label`, a table that names each label 0 ... `count` - 1.

    Raises:
        AttarError: it is no such table; `where` says where it stands.
    """
    labels = [str(label) for label in range(count)]
    if not isinstance(id2label, Mapping) or not all(isinstance(name, str) for name in id2label.values()):
        raise AttarError(f"{where}: id2label must be a table of class names by label")
    odd = sorted(set(labels).symmetric_difference(id2label), key=lambda label: (len(label), label))
    if odd:
        raise AttarError(
            f"{where}: id2label must name the classes 0 to {count - 1}, and no others; see to {listed(odd, 4)}"
        )
    return tuple(id2label[label] for label in labels)


def read_class_map(file: Path) -> dict[str, int | str]:
    """A class map from TOML or JSON: a flat table of data class names, each with a label or class name of the prior.

    Raises:
        AttarError: the file cannot be read as such a table.
    """
    try:
        text = file.read_text(encoding="utf-8")
        table = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise AttarError(f"--class-map {file}: cannot be read as {file.suffix or 'TOML'}: {error}") from error
    if not isinstance(table, dict):
        raise AttarError(f"--class-map {file}: not a table of data class names")
    wrong = [key for key, value in table.items() if isinstance(value, bool) or not isinstance(value, (int, str))]
    if wrong:
        raise AttarError(
            f"--class-map {file}: {', '.join(map(repr, wrong))}: the value must be a label (a number) or a class name"
        )
    return table


@cache
def imagenet_names() -> tuple[str, ...]:
    """ImageNet-1k's class names in label order, synonyms separated by commas."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo().label_descriptions())


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """ImageNet-1k's WordNet ids in label order."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo().label_names())


def is_imagenet(known: Sequence[str]) -> bool:
    """Whether these are ImageNet-1k's classes in their usual order, whatever list their names were taken from."""
    if len(known) != 1000:
        return False
    return (
        sum(not _split(own).isdisjoint(_split(usual)) for own, usual in zip(known, imagenet_names(), strict=True)) > 900
    )


def _split(name: str) -> set[str]:
    return {normal(name), *map(normal, name.split(","))}


@cache
def _words(known: tuple[str, ...]) -> dict[str, set[int]]:
    """The labels of every name, synonym and, of ImageNet's classes, WordNet id."""
    words = [_split(name) for name in known]
    if is_imagenet(known):
        also = zip(imagenet_names(), imagenet_wnids(), strict=True)
        words = [own | _split(usual) | {wnid} for own, (usual, wnid) in zip(words, also, strict=True)]
    labels: dict[str, set[int]] = {}
    for label, own in enumerate(words):
        for word in own:
            labels.setdefault(word, set()).add(label)
    return labels


def _named(name: str, known: Sequence[str]) -> list[int]:
    """A WordNet id at its head decides; else the whole name; else any of its synonyms."""
    labels, plain = _words(tuple(known)), normal(name)
    wnid = re.match(r"n\d{8}(?= |$)", plain)
    untold = re.sub(r" \(\d+\)$", "", plain)
    for word in ([wnid.group()] if wnid else []) + [plain, untold]:
        if word in labels:
            return sorted(labels[word])
    return sorted(set().union(*(labels.get(word, set()) for word in _split(untold))))


def _label(name: str, value: int | str, known: Sequence[str] | None, n_known: int) -> int:
    if isinstance(value, int):
        if not 0 <= value < n_known:
            raise AttarError(f"--class-map: {name!r} = {value}: the prior's labels are 0 to {n_known - 1}")
        return value
    if known is None:
        raise AttarError(f"--class-map: {name!r} = {value!r}: the prior has no class names; give its label, a number")
    found = _named(value, known)
    if len(found) == 1:
        return found[0]
    if found:
        raise AttarError(f"--class-map: {name!r} = {value!r}: the prior has several, {found}; give one of these labels")
    close = difflib.get_close_matches(normal(value), _words(tuple(known)), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise AttarError(f"--class-map: {name!r} = {value!r}: the prior has no such class{hint}")


def _strangers(names: Sequence[str], all_names: Sequence[str]) -> str:
    lines = []
    for name in names:
        close = difflib.get_close_matches(name, all_names, n=1)
        lines.append(repr(name) + (f" (did you mean {close[0]!r}?)" if close else ""))
    return f"--class-map: the data has no class {', '.join(lines)}"


def _unmatched(unknown: Sequence[str], words: Sequence[str]) -> str:
    lines = []
    for name in unknown:
        close = difflib.get_close_matches(normal(name), words, n=1)
        lines.append(f"  {name!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))
    title = f"{len(unknown)} classes of the data are not known to the prior (say which they are with --class-map FILE):"
    return "\n".join([title, *lines])
