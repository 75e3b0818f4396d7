"""The commands: flags and TOML become frozen objects here."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from attar.cli import (
    cache,
    compare,
    doctor,
    export,
    failures,
    hub,
    lists,
    nearest,
    priors,
    regenerate,
    reproduce,
    score,
    sets,
    teachers,
    tune,
    waterfall,
)
from attar.cli.flags import names_of, with_field_options
from attar.cli.shared import say
from attar.cli.told import shared_options
from attar.core.errors import AttarError, suggestion
from attar.core.processes import launched, rank
from attar.core.progress import duration
from attar.core.store import check_writable
from attar.core.wording import listed

SHOWN: dict[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
}
"""How help and errors are shown: as they are written."""

COMMANDS: dict[str, Callable[..., None]] = {
    "distill": sets.distill,
    "regenerate": regenerate.regenerate,
    "reproduce": reproduce.reproduce,
    "evaluate": sets.evaluate,
    "compare": compare.compare,
    "tune": tune.tune,
    "waterfall": waterfall.waterfall,
    "score": score.score,
    "report": sets.report,
    "verify": sets.verify,
    "export": export.export,
    "expand": export.expand,
    "nearest": nearest.nearest,
    "push": hub.push,
    "pull": hub.pull,
    "train-prior": priors.train_prior,
    "finetune-prior": priors.finetune_prior,
    "train-teacher": teachers.train_teacher,
    "relabel": teachers.relabel,
    "describe-prior": lists.describe_prior,
    "list": lists.list_,
    "describe": lists.describe,
    "doctor": doctor.doctor,
    "demo": sets.demo,
}
GROUPS: dict[str, tuple[typer.Typer, str]] = {
    "cache": (cache.app, "Show what is in the cache; explain what is made of what; make room."),
}
"""Commands that have commands of their own, and what they do."""


TIMES = "; times are those of a few passes of the networks, timed here; to start, read and check took"
UNTIMED = ("report", "export", "expand", "push")
"""Commands whose dry runs tell no times."""


TOGETHER = ("train-prior", "finetune-prior", "train-teacher")
"""Commands that several processes may share."""


TEXTS = ("--prompt", "--negative-prompt")
"""Options that may be empty."""


def _say_if_busy() -> None:
    """Says where other work takes the cores, which makes times longer than they would be, and what helps."""
    from attar.core.machine import threads

    found = threads()
    if found.advice:
        say(f"this machine is busy ({found.state}): times may be twice what they are when it is not; {found.advice}")


class Command(TyperCommand):
    """A command that looks first at where it is to write, and whose options are known to whoever tells how it ended."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuses an empty word, which would stand for the current folder, or for nothing."""
        for before, word in zip(["", *args], args, strict=False):
            flag = word[:-1] if word.startswith("--") and word.endswith("=") else before if not word else None
            if flag is not None and flag not in TEXTS:
                shown = flag if flag.startswith("--") else "an argument"
                raise AttarError(f"{shown} is empty: give a value, or leave it out")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        _check_alone(str(self.name))
        failures.running.options = dict(ctx.params)
        failures.running.names = names_of(COMMANDS[str(self.name)])
        for option, place in failures.places_to_write():
            check_writable(place, f"`{option}`")
        notes, begun = logging.getLogger("attar"), time.monotonic()
        notes.addFilter(_spoken)
        try:
            result = super().invoke(ctx)
            if ctx.params.get("dry_run"):
                _say_if_busy()
                started = f"{TIMES} {duration(time.monotonic() - begun)}, and is not in them"
                say(f"dry run: nothing was trained, made or written{'' if self.name in UNTIMED else started}")
            return result
        except KeyboardInterrupt:
            failures.running.stopped = failures.running.stopped or signal.SIGINT
            raise
        finally:
            notes.removeFilter(_spoken)


def _check_alone(command: str) -> None:
    """Raises AttarError for a command that was started in several processes and runs in one; the main one says so."""
    if launched() == 1 or command in TOGETHER:
        return
    if rank() > 0:
        raise SystemExit(2)
    raise AttarError(f"only {listed(TOGETHER)} run in several processes: start `attar {command}` as it is")


def _spoken(record: logging.LogRecord) -> bool:
    """Lets a warning from below name fields by their flags."""
    record.msg, record.args = failures.running.spoken(record.getMessage()), ()
    return True


def built(name: str) -> Any:
    """A command with its options; they are made for the command that is asked for alone."""
    if name in GROUPS:
        return typer.main.get_command(GROUPS[name][0])
    group = typer.Typer(add_completion=False, **SHOWN)
    group.command(name, cls=Command)(with_field_options(COMMANDS[name]))
    command = typer.main.get_command(group)
    if name == "demo" or any(param.name == "dry_run" for param in command.params):
        command.params += shared_options()
    return command


class Commands(TyperGroup):
    """The commands by name, each built when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS, *GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in (known := self.list_commands(ctx)):
            ctx.fail(f"no command {cmd_name!r}{suggestion(cmd_name, known)}; `attar --help` lists them")
        if cmd_name not in self.commands:
            self.commands[cmd_name] = built(cmd_name)
        return self.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, _summary(command)) for name, command in COMMANDS.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows + [(name, summary) for name, (_, summary) in GROUPS.items()])


def _summary(command: Callable[..., None]) -> str:
    return " ".join((command.__doc__ or "").partition("\n\n")[0].split())


app = typer.Typer(
    name="attar",
    cls=Commands,
    no_args_is_help=True,
    **SHOWN,
    help="Dataset distillation with diffusion models: a large labelled image set in, a few images per class out.\n\n"
    "Start with `attar demo`, or:\n\n"
    "  attar distill --data digits --prior digits --method d3hr --ipc 1 --out runs/d3hr\n\n"
    "  attar evaluate runs/d3hr --recipe quick --set flip=false --network convnet3-bn-w48 --seeds 3",
)


@app.callback()
def attar(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=lists.version, help="Show it")] = False,
) -> None:
    """The options of `attar` itself."""
