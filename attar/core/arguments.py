"""What functions and frozen objects are given from Python, held to their annotations before any work."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
import os
import types
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from attar.core.errors import AttarError, suggestion
from attar.core.limits import check_seed

P = ParamSpec("P")
R = TypeVar("R")

LONGEST = 60
"""The most characters of a value that a message shows."""
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a pathlib.Path",
    type(None): "None",
    Any: "anything",
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A function that raises an AttarError for arguments of other kinds than its annotations say.

    Annotations of names that only type checkers know hold for anything.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*given: P.args, **named: P.kwargs) -> R:
        kinds, bound = _of_function(function), signature.bind(*given, **named)
        for name, value in bound.arguments.items():
            if signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = plain(value)
                check_value(bound.arguments[name], kinds[name], f"`{name}`")
        return function(*bound.args, **bound.kwargs)

    return call


def check_fields(thing: Any, owner: str = "") -> None:
    """Raises AttarError for a field of a frozen object of another kind than its annotation says, or no usable seed.

    `owner` is where a part stands in what it belongs to: messages name `fit.steps`, not `steps`.
    """
    kinds = _of_object(typing.cast(Any, type(thing)))
    for field in dataclasses.fields(thing):
        value, name = plain(getattr(thing, field.name)), f"`{owner}.{field.name}`" if owner else f"`{field.name}`"
        if value is not getattr(thing, field.name):
            object.__setattr__(thing, field.name, value)
        check_value(value, kinds[field.name], name)
        if field.name == "seed" and value is not None:
            check_seed(name, value)


def plain(value: Any) -> Any:
    """A value whose numpy integers, also those in a list or tuple, are Python's; any other as it is."""
    if isinstance(value, numbers.Integral) and not isinstance(value, int):
        return int(value)
    if type(value) in (list, tuple) and any(plain(part) is not part for part in value):
        return type(value)(map(plain, value))
    return value


def check_value(value: Any, kind: Any, name: str) -> None:
    """Raises AttarError, which says what `name` got and what it takes, for a value of another kind."""
    if isinstance(value, str) and not value and Path in typing.get_args(kind):
        raise AttarError(f"{name} is empty: name a file or folder")
    if not _fits(value, kind):
        shown = repr(value)
        shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]} ..."
        choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
        raise AttarError(f"{name} = {shown}{suggestion(str(value), choices)}: must be {_in_words(kind)}")


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, member) for member in inner)
    if origin is typing.Literal:
        return value in inner
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if kind is Any or getattr(kind, "_is_protocol", False):
        return True
    return isinstance(value, os.PathLike if kind is Path else origin or kind) and _holds(value, origin, inner)


def _holds(value: Any, origin: Any, inner: tuple[Any, ...]) -> bool:
    """Whether what a list or a dictionary holds is of the kinds that it should be."""
    if not isinstance(origin, type) or not issubclass(origin, Collection):
        return True
    if issubclass(origin, Mapping):
        return all(_fits(key, inner[0]) and _fits(held, inner[1]) for key, held in value.items())
    kinds = inner if origin is tuple and Ellipsis not in inner else [inner[0]] * len(value)
    return not isinstance(value, str) and len(kinds) == len(value) and all(map(_fits, value, kinds))


def _in_words(kind: Any) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_in_words, inner))
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is Callable:
        return "a function"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a dictionary ({_in_words(inner[0])} -> {_in_words(inner[1])})"
    if origin is tuple and Ellipsis not in inner:
        return f"a tuple ({', '.join(map(_in_words, inner))})"
    if isinstance(origin, type) and issubclass(origin, Collection):
        return f"a {'tuple' if origin is tuple else 'list'} (each {_in_words(inner[0])})"
    return _WORDS.get(kind) or f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


@functools.cache
def _of_function(function: Callable[..., Any]) -> dict[str, Any]:
    kinds: dict[str, Any] = {}
    for name, written in function.__annotations__.items():
        annotated = types.SimpleNamespace(__annotations__={name: written})
        try:
            kinds |= typing.get_type_hints(annotated, inspect.unwrap(function).__globals__)
        except NameError:
            kinds[name] = Any
    return kinds


@functools.cache
def _of_object(kind: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)
