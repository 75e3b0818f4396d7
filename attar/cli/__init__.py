"""The commands: flags and TOML become frozen objects here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from attar.cli import compare, export, lists, nearest, priors, regenerate, score, sets, teachers, tune, waterfall
from attar.core.errors import AttarError

app = typer.Typer(
    name="attar",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Dataset distillation with diffusion models: a large labelled image set in, a few images per class out.\n\n"
    "Start with [bold]attar demo[/bold], or:\n\n"
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
for name, command in COMMANDS.items():
    app.command(name)(command)


@app.callback()
def attar(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=lists.version, help="Show it")] = False,
) -> None:
    """The options of `attar` itself."""


def main() -> None:
    """The command `attar`."""
    try:
        app()
    except AttarError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
