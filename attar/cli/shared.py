"""What the commands share: options, and how progress is shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attar.cli import failures
from attar.cli.flags import Assignments, FieldOptions, Settings
from attar.cli.told import note
from attar.core.config import parsed
from attar.core.engine import Engine
from attar.core.errors import AttarError
from attar.core.files import as_json
from attar.core.limits import IPC, check_most
from attar.core.limits import seeds as numbered
from attar.core.processes import rank
from attar.evaluation import RECIPES, Recipe
from attar.evaluation.conditions import Conditions
from attar.job import Spec
from attar.methods import METHODS
from attar.teachers.reference import TeacherReference

if TYPE_CHECKING:
    from attar.core.progress import Progress
    from attar.methods.base import Method


@dataclass(frozen=True)
class Trainings:
    """The trainings that judge a set."""

    recipe: str = "quick"
    """The evaluation protocol (`attar list recipes`); one that learns from soft labels needs a `teacher`."""
    network: tuple[str, ...] = ("convnet3",)
    """Networks to train (`attar list networks`, or any of timm); several: A,B or repeat it."""
    seeds: int = 3
    """Number of training seeds."""
    test: str | None = None
    """Test images, or held-out; none: the test split of the set's data."""

    def conditions(self, **others: Any) -> Conditions:
        """These trainings, with what else evaluations share."""
        return Conditions(tuple(dict.fromkeys(self.network)), tuple(numbered(self.seeds)), self.test, **others)


def a_recipe(options: Mapping[str, Any]) -> Recipe:
    """Any recipe: all have the same fields."""
    return RECIPES.open("quick")


def _method(options: Mapping[str, Any]) -> Method:
    return METHODS.open(str(options["method"]))


Engines = Annotated[Settings, FieldOptions(Engine)]
Device = Annotated[Settings, FieldOptions(Spec, only=("device",))]
TeacherOption = Annotated[
    Settings,
    FieldOptions(
        TeacherReference,
        renamed={"source": "teacher", "classes": "teacher_classes", "normalise": "teacher_normalise"},
        optional=True,
    ),
]
MethodFields = Annotated[
    dict[str, Any],
    Assignments("A field of the method: --set sampler.steps=20 (`attar describe METHOD` lists them)", _method),
]
RecipeFields = Annotated[
    dict[str, Any],
    Assignments("A field of the recipe: --set steps=200 (`attar list recipes` lists them)", a_recipe),
]
MethodName = Annotated[str, typer.Option(help="The distiller (`attar list methods`)")]
OptionalMethodName = Annotated[
    str | None, typer.Option(help="The distiller (`attar list methods`); none: one that suits, said")
]
SetFolder = Annotated[Path, typer.Argument(help="A distilled set", metavar="DIR")]
SetFolders = Annotated[list[Path], typer.Argument(help="Distilled sets, or folders of them", metavar="DIR...")]
Ipc = Annotated[str, typer.Option(help="Images per class; several as 1,10,50")]
Sets = Annotated[Path, typer.Option(help="Folder to write; several IPCs go to OUT/ipc-001, OUT/ipc-010 ...")]
Config = Annotated[Path | None, typer.Option(help="TOML with any of these options, and a table [set]; flags win")]
TrackerName = Annotated[
    str | None,
    typer.Option(help="Send losses and accuracies to a tracker of accelerate: tensorboard, wandb, trackio ..."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be done, and stop")]


def say(text: str) -> None:
    """A line for the user, of the main process alone."""
    if rank() > 0:
        return
    spoken = failures.running.spoken(text)
    note(said=spoken)
    if not failures.running.quiet:
        print(spoken, flush=True)


def say_json(value: Any) -> None:
    """JSON, for scripts.

    Raises:
        AttarError: it holds a NaN or an infinity.
    """
    say(as_json(value, "standard output"))


@contextmanager
def showing() -> Iterator[Progress]:
    """A progress bar with the time left on a terminal, elsewhere a line every ten seconds; in the main process."""
    from attar.core.progress import bar, lines, silent

    if rank() > 0:
        yield silent
        return
    shown = nullcontext(silent) if failures.running.quiet else bar() if sys.stderr.isatty() else lines()
    with shown as progress:
        noted = -1.0

        def show(text: str, fraction: float) -> None:
            nonlocal noted
            failures.running.stage = text
            progress(text, fraction)
            if (now := time.monotonic()) - noted >= 1:
                noted = now
                note(doing=text, fraction=round(fraction, 4))

        yield show


def named_teacher(settings: Settings) -> TeacherReference | None:
    """The teacher that the options name, or several as one; None where there is none."""
    if "source" not in settings:
        if settings:
            raise AttarError("`teacher_classes` and `teacher_normalise` say more of a `teacher`, which is missing")
        return None
    return TeacherReference.from_text([settings["source"]], settings.get("classes"), settings.get("normalise"))


def ipcs_of(value: Any) -> list[int]:
    """Images per class, as an option or TOML gives them."""
    items = value if isinstance(value, list) else str(value).split(",")
    try:
        ipcs: list[int] = [parsed(item, int, "ipc") for item in items]
    except AttarError as error:
        raise AttarError(f"`ipc` {value}: whole numbers, separated by commas") from error
    if not ipcs:
        raise AttarError("`ipc`: at least one number")
    if min(ipcs) < 1:
        raise AttarError(f"`ipc` {min(ipcs)}: the number of images per class must be 1 or more")
    check_most("`ipc`", max(ipcs), IPC)
    return ipcs
