"""The commands: flags and TOML become frozen objects here."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from attar.cli import (
    cache,
    compare,
    ending,
    export,
    lists,
    nearest,
    priors,
    regenerate,
    score,
    sets,
    teachers,
    tune,
    waterfall,
)
from attar.cli.flags import say
from attar.core.store import check_writable

app = typer.Typer(
    name="attar",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Dataset distillation with diffusion models: a large labelled image set in, a few images per class out.\n\n"
    "Start with `attar demo`, or:\n\n"
    "  attar distill --data digits --prior digits --method d3hr --ipc 1 --out runs/d3hr\n\n"
    "  attar evaluate runs/d3hr --recipe quick --set flip=false --network convnet3-bn-w48 --seeds 3",
)

COMMANDS: dict[str, Callable[..., None]] = {
    "distill": sets.distill,
    "regenerate": regenerate.regenerate,
    "evaluate": sets.evaluate,
    "compare": compare.compare,
    "tune": tune.tune,
    "waterfall": waterfall.waterfall,
    "score": score.score,
    "report": sets.report,
    "verify": sets.verify,
    "export": export.export,
    "nearest": nearest.nearest,
    "train-prior": priors.train_prior,
    "finetune-prior": priors.finetune_prior,
    "train-teacher": teachers.train_teacher,
    "relabel": teachers.relabel,
    "describe-prior": lists.describe_prior,
    "list": lists.list_,
    "describe": lists.describe,
    "demo": sets.demo,
}


TIMES = "; times are those of a few passes of the networks, timed here"
UNTIMED = ("evaluate", "report", "export", "nearest", "relabel")
"""Commands whose dry runs tell no times."""


class Command(TyperCommand):
    """A command that looks first at where it is to write, and whose options are known to whoever tells how it ended."""

    def invoke(self, ctx: Any) -> Any:
        ending.running.options = dict(ctx.params)
        for flag, place in ending.places():
            check_writable(place, flag)
        try:
            result = super().invoke(ctx)
            if ctx.params.get("dry_run"):
                say(f"dry run: nothing was trained, made or written{'' if self.name in UNTIMED else TIMES}")
            return result
        except KeyboardInterrupt:
            ending.running.stopped = ending.running.stopped or signal.SIGINT
            raise


for name, command in COMMANDS.items():
    summary = " ".join((command.__doc__ or "").partition("\n\n")[0].split())
    app.command(name, cls=Command, short_help=summary)(command)
app.add_typer(cache.app, name="cache", short_help="Show what is in the cache; explain what is made of what; make room.")


@app.callback()
def attar(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=lists.version, help="Show it")] = False,
) -> None:
    """The options of `attar` itself."""
