"""Which class of the prior each class of the data is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from attar.core import toml_tables
from attar.core.errors import AttarError, suggestion
from attar.core.wording import counted, listed

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
    where it has as many classes as the whole data set, `all_names` (of which `names` may be a part), and these are no
    numbers in another order than they count.

    Raises:
        AttarError: lists every class that the prior does not know, that it knows more than once, that differs from
            another in capitals and spaces alone, or that `mapping` has and the data has not.
    """
    by_name = matches(names, known, n_known, all_names, mapping)
    unknown = [name for name, labels in by_name.items() if not labels]
    if unknown:
        raise AttarError(_unmatched(unknown, [] if known is None else list(_words(tuple(known)))))
    several = [f"{name!r} ({', '.join(map(str, labels))})" for name, labels in by_name.items() if len(labels) > 1]
    if several:
        raise AttarError(
            f"the prior has several classes of these names (its labels): {', '.join(several)}; "
            "choose one with `class_map` FILE"
        )
    unmapped = [] if known is None else [name for name in names if name not in (mapping or {})]
    bearers = Counter((by_name[name][0], normal(name)) for name in unmapped)
    if alike := [repr(name) for name in unmapped if bearers[by_name[name][0], normal(name)] > 1]:
        raise AttarError(
            f"the prior does not tell these classes of the data apart: {', '.join(alike)}; rename some, or say which "
            "of its classes they are with `class_map` FILE"
        )
    return [by_name[name][0] for name in names]


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
                'add an "id2label" table to its model_index.json, or say which is which with `class_map` FILE'
            )
        _refuse_numbers(rest, all_names)
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
    table = toml_tables.read_table_file(file, "class_map")
    if not isinstance(table, dict):
        raise AttarError(f"`class_map` {file}: not a table of data class names")
    wrong = [key for key, value in table.items() if isinstance(value, bool) or not isinstance(value, (int, str))]
    if wrong:
        raise AttarError(
            f"`class_map` {file}: {', '.join(map(repr, wrong))}: the value must be a label (a number) or a class name"
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
            raise AttarError(f"`class_map`: {name!r} = {value}: the prior's labels are 0 to {n_known - 1}")
        return value
    if known is None:
        raise AttarError(f"`class_map`: {name!r} = {value!r}: the prior has no class names; give its label, a number")
    labels = _named(value, known)
    if len(labels) == 1:
        return labels[0]
    if labels:
        raise AttarError(
            f"`class_map`: {name!r} = {value!r}: the prior has several, {labels}; give one of these labels"
        )
    near = suggestion(normal(value), _words(tuple(known)))
    raise AttarError(f"`class_map`: {name!r} = {value!r}: the prior has no such class{near}")


def _refuse_numbers(names: Sequence[str], all_names: Sequence[str]) -> None:
    """Raises AttarError for classes without names in the prior whose own names are numbers that their places belie.

    Folders 0, 1, 10, 2 sort as text: the third of them is 10, which a prior may know as label 2 or as label 10.
    """
    if not all(re.fullmatch(r"\d+", name, re.ASCII) for name in all_names):
        return
    numbers = sorted(map(int, all_names))
    counted = numbers if numbers[-1] < len(all_names) else range(len(all_names))
    by_number = dict(zip(numbers, counted, strict=True))
    for place, name in enumerate(all_names):
        if name in names and by_number[int(name)] != place:
            raise AttarError(
                "the prior has no class names, and the data's are numbers in another order than they count: "
                f"{name!r} is its label {place} by place, and {by_number[int(name)]} by number; rename them to sort as "
                "they count (01, 02 ... 10), or say which is which with `class_map` FILE"
            )


def _strangers(names: Sequence[str], all_names: Sequence[str]) -> str:
    hinted = [f"{name!r}{suggestion(name, all_names)}" for name in names]
    return f"`class_map`: the data has no class {', '.join(hinted)}"


def _unmatched(unknown: Sequence[str], words: Sequence[str]) -> str:
    lines = [f"  {name!r}{suggestion(normal(name), words)}" for name in unknown]
    are = "is" if len(unknown) == 1 else "are"
    known_as = "known to the prior (say which they are with `class_map` FILE)"
    title = f"{counted(len(unknown), 'class')} of the data {are} not {known_as}:"
    return "\n".join([title, *lines])
