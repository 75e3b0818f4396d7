"""Options of commands, made from the fields of frozen objects: a field is written once, with its note.

A command is a function. A parameter that is marked with `FieldOptions` becomes an option for each of those fields, and
is given what the user said of them; one that is marked with `Assignments` becomes an option of field=value words. A
command with a parameter `config` takes all of these, and its own parameters, from TOML too, flags first.
"""

from __future__ import annotations

import functools
import inspect
import keyword
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import ArgumentInfo

from attar.cli import failures
from attar.cli.naming import Example, Names
from attar.core.config import changed, is_plain, notes
from attar.core.errors import AttarError, reason, suggestion
from attar.core.hub_ids import near

Settings = dict[str, Any]
"""What the user said of some fields, by their dotted names."""


@dataclass(frozen=True)
class Option:
    """A field as an option."""

    name: str
    """The key of TOML; with dashes, the flag."""
    field: str
    """The dotted name of the field."""
    kind: Any
    default: Any
    """MISSING of a field that must be given."""
    note: str

    @property
    def parameter(self) -> str:
        """The name as a parameter of a function."""
        return f"{self.name}_" if keyword.iskeyword(self.name) else self.name

    @property
    def flag(self) -> str:
        """The option as the command line has it."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def kinds(self) -> tuple[Any, ...]:
        """What its values can be, but None."""
        return tuple(kind for kind in _alternatives(self.kind) if kind is not type(None))

    @property
    def _shown(self) -> str:
        """The default, as it is given on the command line."""
        if isinstance(self.default, bool):
            return self.flag[2:] if self.default else f"no-{self.flag[2:]}"
        return ",".join(self.default) if isinstance(self.default, tuple) else str(self.default)

    def annotation(self, names: Names, default: bool) -> Any:
        """How typer sees it. Values stay texts: the field's type reads them, as those of TOML."""
        shown = f" [default: {self._shown}]" if default and self.default not in (None, MISSING) else ""
        text = names.spoken(self.note).rstrip(".") + shown
        if bool in self.kinds:
            flags = f"{self.flag}/--no-{self.flag[2:]}"
            return Annotated[bool | None, typer.Option(flags, help=text, show_default=False)]
        several = any(typing.get_origin(kind) is tuple for kind in self.kinds)
        words = "|".join(_word(kind) for kind in self.kinds if typing.get_origin(kind) is not tuple) or "str"
        taken: Any = list[str] | None if several else str | None
        return Annotated[taken, typer.Option(self.flag, help=text, metavar=f"<{words}>", show_default=False)]


@dataclass(frozen=True)
class FieldOptions:
    """Marks a parameter that is given what the user said of fields of a frozen object."""

    thing: type
    only: tuple[str, ...] = ()
    """These fields; none: all that a text can set."""
    without: tuple[str, ...] = ()
    """But not these."""
    parts: tuple[str, ...] = ()
    """Parts whose fields are options, too."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Dotted name -> option, where it is not called like the field."""
    optional: bool = False
    """Whether nothing need be given: fields have their defaults elsewhere, and none is shown."""

    def options(self) -> list[Option]:
        """An option for each of the fields."""
        every = {option.field: option for option in _options(self.thing, None, "")}
        own = [name for name in every if "." not in name and name not in self.without]
        chosen = list(self.only or own) + [name for name in every if name.rpartition(".")[0] in self.parts]
        chosen += [name for name in self.renamed if name not in chosen]
        return [replace(every[name], name=self.renamed.get(name, every[name].name)) for name in chosen]


@dataclass(frozen=True)
class Assignments:
    """Marks a parameter that is given a dictionary of field=value words."""

    help: str
    of: Example
    """Makes an object that has these fields, of the command's own parameters."""
    flag: str = "--set"


def made(thing: type, settings: Settings, command: str, **given: Any) -> Any:
    """A frozen object with the fields that the user set; a field that must be given is in the settings."""
    required = {attribute.name for attribute in fields(thing) if attribute.init and attribute.default is MISSING}
    needed = required & settings.keys()
    changes = {name: value for name, value in settings.items() if name not in needed}
    start = {name: _text(settings[name], f"{command}.{name}") for name in needed}
    return changed(thing(**start, **given), changes, command)


def with_field_options(function: Callable[..., None]) -> Callable[..., None]:
    """A command with its marked parameters as options, for typer."""
    command = _Command.of(function)

    def run(**given: Any) -> None:
        function(**command.arguments(given))

    parameters = command.parameters()
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def names_of(function: Callable[..., None]) -> Names:
    """What the options of a command are called, for messages."""
    return _Command.of(function).names()


@dataclass(frozen=True)
class _Command:
    """A function's parameters: its own, and those that stand for fields."""

    own: dict[str, inspect.Parameter]
    groups: dict[str, tuple[FieldOptions, list[Option]]]
    words: dict[str, Assignments]

    @staticmethod
    @functools.cache
    def of(function: Callable[..., None]) -> _Command:
        every = inspect.signature(function, eval_str=True).parameters
        marks = {name: getattr(parameter.annotation, "__metadata__", (None,))[0] for name, parameter in every.items()}
        return _Command(
            dict(every),
            {name: (mark, mark.options()) for name, mark in marks.items() if isinstance(mark, FieldOptions)},
            {name: mark for name, mark in marks.items() if isinstance(mark, Assignments)},
        )

    @property
    def plain(self) -> list[str]:
        """The parameters that are what they seem."""
        return [name for name in self.own if name not in self.groups and name not in self.words]

    def names(self) -> Names:
        """Field or parameter -> flag; and what the command can set beside them."""
        flags: dict[str, str] = {}
        for name in self.plain:
            info = getattr(self.own[name].annotation, "__metadata__", (None,))[0]
            if not isinstance(info, ArgumentInfo):
                declared = getattr(info, "default", None)
                written = str(declared).split("/")[0] if isinstance(declared, str) else f"--{name.replace('_', '-')}"
                flags |= {name: written, written[2:].replace("-", "_"): written}
        for _, options in self.groups.values():
            flags |= {option.field: option.flag for option in options if "." in option.field}
            flags |= {option.name: option.flag for option in options}
        flags |= {mark.flag[2:].replace("-", "_"): mark.flag for mark in self.words.values()}
        return Names(flags, {mark.flag: mark.of for mark in self.words.values()})

    def parameters(self) -> list[inspect.Parameter]:
        """The parameters that typer sees: one for each option."""
        names, seen = self.names(), []
        for name, parameter in self.own.items():
            if name in self.groups:
                mark, options = self.groups[name]
                for option in options:
                    annotation = option.annotation(names, default=not mark.optional)
                    seen.append(_keyword(option.parameter, annotation, self._default(option.default, mark)))
            elif name in self.words:
                words = self.words[name]
                info = typer.Option(words.flag, help=words.help, metavar="FIELD=VALUE")
                seen.append(_keyword(name, Annotated[list[str] | None, info], None))
            elif "config" in self.own and parameter.default is inspect.Parameter.empty:
                base, info = typing.get_args(parameter.annotation)
                seen.append(_keyword(name, Annotated[base | None, info], None))
            else:
                seen.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        return seen

    def _default(self, default: Any, mark: FieldOptions) -> Any:
        required = default is MISSING and not mark.optional and "config" not in self.own
        return inspect.Parameter.empty if required else None

    def arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """What the function is called with."""
        options = {option.name: option for _, options in self.groups.values() for option in options}
        written: dict[str, Any] = {}
        tables: dict[str, dict[str, Any]] = {name: {} for name in self.words}
        if given.get("config") is not None:
            usual = [name for name in self.plain if name != "config" and self.own[name].default is not False]
            written, tables["sets"] = _written(given["config"], [*options, *usual])
        for name, mark in self.words.items():
            tables[name] = {**tables[name], **parsed_assignments(given[name] or [], mark.flag)}
        said = {option.name: given[option.parameter] for option in options.values()}
        said = {**written, **{name: _joined(value) for name, value in said.items() if value is not None}}
        own = {name: self._own(name, written) if given[name] is None else given[name] for name in self.plain}
        failures.running.options |= own
        self._check_there(said, own)
        values = {
            name: {option.field: said[option.name] for option in options if option.name in said}
            for name, (_, options) in self.groups.items()
        }
        return {**own, **tables, **values}

    def _own(self, name: str, written: dict[str, Any]) -> Any:
        """What TOML says of a parameter of the command's own."""
        value = written.get(name)
        is_place = Path in typing.get_args(self.own[name].annotation)
        return Path(value) if is_place and value is not None else value

    def _check_there(self, said: dict[str, Any], own: dict[str, Any]) -> None:
        if "config" not in self.own:
            return
        groups = self.groups.values()
        needed = [option.name for mark, options in groups for option in options if option.default is MISSING]
        for name in [name for name in needed if name not in said] + [
            name for name, value in own.items() if value is None and self.own[name].default is inspect.Parameter.empty
        ]:
            raise AttarError(f"`{name}` is missing (on the command line or in `config`)")


def parsed_assignments(words: list[str], flag: str = "--set") -> dict[str, str]:
    """`field=value` words as a dictionary."""
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise AttarError(f"{flag} {word}: write it as field=value")
        values[name.strip()] = value.strip()
    return values


def _written(config: Path, known: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a TOML file says of options, and its table [set].

    Raises:
        AttarError: a file that cannot be read, or a key that is no option.
    """
    try:
        written = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "" if config.exists() else near(str(config))
        raise AttarError(f"`config` {config}{hint} cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise AttarError(f"`config` {config} is not TOML: {error}") from error
    written = {name.replace("-", "_"): value for name, value in written.items()}
    table = written.pop("set", {})
    known = [*known, "set"]
    unknown = [name + suggestion(name, known) for name in sorted(set(written) - set(known))]
    if unknown:
        raise AttarError(f"`config` {config}: unknown key {', '.join(unknown)}; known: {', '.join(known)}")
    if not isinstance(table, dict):
        raise AttarError(f"`config` {config}: set must be a table, [set]")
    for name in ("out", "method"):
        if name in known and name in written:
            _text(written[name], f"`config` {config}: {name}")
    return written, table


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise AttarError(f"{name} = {value!r}: must be a text")
    return value


def _joined(value: Any) -> Any:
    """Several words of one option as one, as TOML may have them."""
    return ",".join(value) if isinstance(value, list) else value


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _options(thing: type, values: Any, prefix: str) -> Iterator[Option]:
    """The fields that a text can set, those of parts included; `values`: an object whose values are the defaults."""
    kinds, texts = typing.get_type_hints(thing), notes(thing)
    for attribute in fields(thing):
        default = attribute.default if values is None else getattr(values, attribute.name)
        name, kind = prefix + attribute.name, kinds[attribute.name]
        if is_dataclass(default):
            yield from _options(type(default), default, f"{name}.")
        elif attribute.init and is_plain(kind):
            yield Option(attribute.name, name, kind, default, texts.get(attribute.name, ""))


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    return inner if type(None) in inner or (inner and origin not in (tuple, typing.Literal)) else (kind,)


def _word(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(map(str, typing.get_args(kind)))
    return str(getattr(kind, "__name__", kind))
