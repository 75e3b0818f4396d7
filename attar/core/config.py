"""Fields of frozen objects, set by name: where words from the command line and TOML become values."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from attar.core.arguments import check_fields
from attar.core.errors import AttarError, suggestion

T = TypeVar("T")
Range = tuple[str, Callable[[float], bool], tuple[str, ...]]
"""What numbers may be, in words and as a test, and the fields that it holds for where they are not None."""


def changed(thing: T, changes: Mapping[str, Any], owner: str, fixed: Sequence[str] = ()) -> T:
    """A copy of a frozen dataclass with fields replaced; a dotted name sets a field of a part ("sampler.steps").

    Setting a field of a part that is None makes the part, and so does `true` for the part itself. Where it can be of
    several kinds, fields make the first kind that has them, `true` the first, and a kind's name that kind. Values may
    be text, as on the command line; they become what the field's type says. Fields that are `fixed` are no fields here.

    Raises:
        AttarError: an unknown field (with those there are), or a value that does not fit its type.
    """
    parts: dict[str, dict[str, Any]] = {}
    direct: dict[str, Any] = {}
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        if rest:
            parts.setdefault(head, {})[rest] = value
        elif isinstance(value, Mapping):
            parts.setdefault(head, {}).update(value)
        else:
            direct[head] = value
    kinds = typing.get_type_hints(type(thing))
    names = [f.name for f in dataclasses.fields(typing.cast(Any, thing)) if f.init and f.name not in fixed]
    for name in [*direct, *parts]:
        if name not in names:
            raise AttarError(_unknown(name, names, thing, owner))
    new = {name: parsed(value, kinds[name], f"{owner}.{name}") for name, value in direct.items()}
    for name, inner in parts.items():
        if name in new and new[name] is None:
            field = next(iter(inner))
            raise AttarError(f"{owner}.{name} is left out by {name}={direct[name]}, and {name}.{field} is set")
        part = _part(new.get(name, getattr(thing, name)), kinds[name], inner)
        if not dataclasses.is_dataclass(part):
            raise AttarError(f"{owner}.{name} is {part!r} and has no fields to set")
        new[name] = changed(part, inner, f"{owner}.{name}")
    return typing.cast(T, dataclasses.replace(typing.cast(Any, thing), **new))


def parsed(value: Any, kind: Any, owner: str) -> Any:
    """`value` as `kind`: int, float, bool, str, an optional of these, a tuple of these or one of some literals.

    An optional part with fields of its own is made by `true` or by the name of its kind, and left out by `false`.
    """
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return _optional(value, typing.get_args(kind), owner)
    if typing.get_origin(kind) is tuple:
        if isinstance(value, str):
            value = [item.strip() for item in value.split(",")]
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(parsed(item, typing.get_args(kind)[0], owner) for item in items)
    if typing.get_origin(kind) is typing.Literal:
        if value in typing.get_args(kind):
            return value
        choices = list(map(str, typing.get_args(kind)))
        raise AttarError(f"{owner} = {value!r}{suggestion(str(value), choices)}: choose one of {', '.join(choices)}")
    if kind is bool:
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
    elif kind is str and isinstance(value, str):
        return value
    elif kind in (int, float) and not isinstance(value, bool):
        try:
            if kind is float or float(value) == int(float(value)):
                return kind(float(value)) if kind is float else int(str(value).split(".")[0])
        except (TypeError, ValueError, OverflowError):
            pass
    hint = suggestion(str(value), ("true", "false")) if kind is bool else ""
    raise AttarError(f"{owner} = {value!r}{hint}: must be {_in_words(kind)}")


def check_ranges(thing: Any, ranges: Sequence[Range], owner: str, part: bool = False) -> None:
    """Raises AttarError, which names the field and what it can be, for a value of another kind or out of its range.

    A `part` of something else is a field of that, which its owner is called after.
    """
    check_fields(thing, owner if part else "")
    for words, holds, names in ranges:
        for name in names:
            value = getattr(thing, name)
            if value is not None and not holds(value):
                raise AttarError(f"{owner}: {name} = {value!r}: give {words}")


def field_rows(thing: Any, prefix: str = "", others: bool = False) -> list[tuple[str, str, str, str]]:
    """(name, default, type, meaning) of every field, those of its parts included, for help texts.

    A part that can be set stands before its fields, without a default; one that is None shows its fields all the same.
    With `others`, so does each other kind that the part can be, as `part=kind`.
    """
    rows = []
    kinds, meanings = typing.get_type_hints(type(thing)), notes(type(thing))
    for field in dataclasses.fields(thing):
        kind, note = kinds[field.name], meanings.get(field.name, "")
        value = _part(getattr(thing, field.name), kind)
        if dataclasses.is_dataclass(value):
            inner = field_rows(value, f"{prefix}{field.name}.")
            if inner:
                rows += [(prefix + field.name, "", type(value).__name__, note), *inner]
            for other in _part_kinds(kind) if others else ():
                if not isinstance(value, other):
                    about = (inspect.getdoc(other) or "").partition("\n")[0]
                    rows += [(f"{prefix}{field.name}={_kind_name(other)}", "", other.__name__, about)]
                    rows += field_rows(other(), f"{prefix}{field.name}.")
        elif field.init and is_plain(kind):
            rows.append((prefix + field.name, str(value), _type_in_words(kind), note))
    return rows


def _type_in_words(kind: Any) -> str:
    """A type in words."""
    if typing.get_origin(kind) is typing.Literal:
        return _in_words(kind)
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _part(value: Any, kind: Any, names: Iterable[str] = ()) -> Any:
    """The value of a field; of a part that is None, what it becomes when these fields of it are set."""
    if value is not None:
        return value
    parts, heads = _part_kinds(kind), {name.partition(".")[0] for name in names}
    having = [part for part in parts if heads <= {field.name for field in dataclasses.fields(part)}]
    return next((part() for part in having or parts), None)


def _part_kinds(kind: Any) -> list[Any]:
    """What a part of this type can be: its frozen objects."""
    return [inner for inner in typing.get_args(kind) if dataclasses.is_dataclass(inner)]


def _kind_name(part: Any) -> str:
    """What a kind of part is called where it is chosen by name."""
    return str(part.__name__).lower()


def is_plain(kind: Any) -> bool:
    """Whether a field of this type can be set by a text: numbers, texts, truths, choices, and tuples of them."""
    inner = typing.get_args(kind) or (kind,)
    plain = (int, float, str, bool, type(None), ...)
    return all(part in plain or isinstance(part, str) or (typing.get_args(part) and is_plain(part)) for part in inner)


def notes(cls: type) -> dict[str, str]:
    """The strings that stand below the fields of a dataclass, and below those that it inherits."""
    texts = {}
    for base in reversed([base for base in cls.__mro__ if dataclasses.is_dataclass(base)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in itertools.pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts[ast.unparse(field.target)] = inspect.cleandoc(str(text.value.value)).replace("\n", " ")
    return texts


def _optional(value: Any, kinds: tuple[Any, ...], owner: str) -> Any:
    named: dict[str, Any] = {_kind_name(part): part for part in kinds if dataclasses.is_dataclass(part)}
    said = str(value).lower()
    if type(None) in kinds and (value is None or said in ("none", *(["false"] if named else []))):
        return None
    if named and (said == "true" or said in named):
        return named.get(said, next(iter(named.values())))()
    for kind in kinds:
        if kind is not type(None):
            try:
                return parsed(value, kind, owner)
            except AttarError:
                continue
    words = " or ".join(dict.fromkeys(_in_words(kind) for kind in kinds if kind is not type(None)))
    several = tuple(named) if len(named) > 1 else ()
    hint, none = suggestion(str(value), several), ", or none" if type(None) in kinds else ""
    raise AttarError(f"{owner} = {value!r}{hint}: must be {', '.join((*several, words))}{none}")


def _in_words(kind: Any) -> str:
    """What a value of a type must be."""
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if typing.get_origin(kind) is tuple:
        return f"a list, each {_in_words(typing.get_args(kind)[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(
        kind, "true, or a table of its fields"
    )


def _unknown(name: str, names: list[str], thing: Any, owner: str) -> str:
    """What to say of a name that is no field of a thing; it may be one of its parts', or mistyped."""
    inner = [dotted for dotted, *_ in field_rows(thing) if dotted.rpartition(".")[2] == name]
    hint = f" (did you mean {' or '.join(map(repr, inner[:3]))}?)" if inner else suggestion(name, names)
    return f"{owner} has no field {name!r}{hint}; its fields: {', '.join(names) or 'none'}"


def by_ipc(table: int | str, ipc: float, field: str) -> int:
    """The entry of a table such as "9:15, 49:50, 100" for this many images per class."""
    return int(number_by_ipc(table, ipc, field))


def number_by_ipc(table: float | str, ipc: float, field: str) -> float:
    """The entry of such a table, which need not be whole."""
    for limit, value in entries(table, field):
        if not limit or ipc <= _number(limit, field, table):
            return value
    raise AttarError(
        f'{field} = {table!r}: nothing for {ipc:g} images per class; end it with a plain number ("10:64, 100")'
    )


def by_network(table: float | str, network: str, field: str) -> float:
    """The entry of a table such as "vit: 1e-4, 1e-3" for a network's name."""
    for part, value in entries(table, field):
        if part in network:
            return value
    raise AttarError(f'{field} = {table!r}: nothing for {network}; end it with a plain number ("vit: 1e-4, 1e-3")')


def entries(table: float | str, field: str) -> list[tuple[str, float]]:
    """(what stands before the colon, or nothing, and the number after it) for each entry."""
    pairs = [entry.rpartition(":") for entry in str(table).split(",")]
    return [(before.strip(), _number(value, field, table)) for before, _, value in pairs]


def _number(text: str, field: str, table: object) -> float:
    try:
        return float(text)
    except ValueError:
        raise AttarError(
            f'{field} = {table!r}: {text.strip()!r} is not a number (a table reads "10:64, 100")'
        ) from None
