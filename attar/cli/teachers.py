"""The commands that make teachers and label with them: train-teacher and relabel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attar.cli.flags import DATA_HELP, DryRun, assignments, merged, say, showing
from attar.core.errors import AttarError

if TYPE_CHECKING:
    from attar.evaluation import Recipe
    from attar.teachers.reference import TeacherReference

Teacher = Annotated[
    list[str] | None,
    typer.Option(
        help="Who gives soft labels: a folder of `attar train-teacher`, timm/NAME or torchvision/NAME (pretrained), or "
        "NETWORK:FILE, a checkpoint; several, A,B or repeated: the mean of their logits"
    ),
]
TeacherClasses = Annotated[
    Path | None,
    typer.Option(help="The teacher's class names in the order of its logits: one a line, a JSON list, or TOML classes"),
]
TeacherNormalise = Annotated[
    str | None,
    typer.Option(help="Statistics of a checkpoint's input: imagenet, cifar, half (default: the recipe's)"),
]


def named_teacher(words: list[str] | None, classes: Path | None, normalise: str | None) -> TeacherReference | None:
    """The teacher of the flags, or several as one; None where there is none."""
    from attar.teachers.reference import TeacherReference

    if not words:
        if classes is not None or normalise is not None:
            raise AttarError("--teacher-classes and --teacher-normalise say more of a --teacher, which is missing")
        return None
    return TeacherReference.from_text(words, None if classes is None else str(classes), normalise)


def labelled_recipe(labels: Path, recipe: str | None) -> Recipe:
    """The recipe that labels were made for; or a named one, with the labels' scheme and number of epochs."""
    from attar.evaluation import modified, named_recipe
    from attar.teachers.soft_labels import StoredLabels

    made = StoredLabels(labels)
    own = modified(named_recipe(made.about("recipe")), made.about("changes"))
    if recipe is None:
        return own
    return modified(named_recipe(recipe), {"scheme": own.scheme, "label_epochs": own.label_epochs})


def train_teacher(
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write: model.safetensors and teacher.json")] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="`attar list networks`, or any timm network (default airbench-w32; below 32 pixels convnet3-bn-w48)"
        ),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images, in pixels (default: their own)")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images (default 16)")] = None,
    batch: Annotated[int | None, typer.Option(help="Images in a batch (default 256)")] = None,
    lr: Annotated[float | None, typer.Option(help="The highest learning rate (default 0.25; of ConvNets 0.05)")] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the images (default); off for digits, text")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness (default 0)")] = None,
    test: Annotated[
        str | None, typer.Option(help="Test images, for a final table only; a tenth of the data is always held out")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu, cuda")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Any other field: --set shift=4")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML with any of these flags, and a table [set]; flags win")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, estimate the cost, and stop")] = False,
) -> None:
    """Train a classifier on your images that then labels distilled ones.

    Run the same command again after an interruption: it goes on where it was, to the same weights.
    """
    flags = {name: value for name, value in locals().items() if name not in ("sets", "config", "dry_run")}
    settings = merged(flags, config)
    for name in ("data", "out"):
        if name not in settings:
            raise AttarError(f"--{name} is missing (on the command line or in --config)")
    target = Path(settings.pop("out"))
    settings = {**settings, **settings.pop("set", {}), **assignments(sets or [])}
    from attar.core.config import changed
    from attar.teachers.train import TeacherTraining
    from attar.teachers.train import train_teacher as train

    spec = changed(TeacherTraining(settings.pop("data")), settings, "train-teacher")
    with showing() as progress:
        train(spec, target, progress=progress, say=say, dry_run=dry_run)


def relabel(
    folder: Annotated[Path, typer.Argument(help="A distilled set", metavar="DIR")],
    teacher: Teacher = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write")] = None,
    recipe: Annotated[
        str, typer.Option(help="The recipe whose views are labelled: their augmentation, epochs")
    ] = "fkd-soft",
    scheme: Annotated[
        str | None,
        typer.Option(help="How logits are stored: fp16 (default), int8, int4, or the k largest: top5-int8"),
    ] = None,
    label_epochs: Annotated[
        int | None, typer.Option(help="So many epochs' labels, used again and again (default: each epoch its own)")
    ] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="A field of the recipe: --set epochs=100")] = None,
    teacher_classes: TeacherClasses = None,
    teacher_normalise: TeacherNormalise = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    dry_run: DryRun = False,
) -> None:
    """Store a teacher's soft labels for the views of every epoch, for `attar evaluate --labels`.

    Run the same command again after an interruption: it goes on where it was.
    """
    from attar.evaluation import modified, named_recipe

    named = named_teacher(teacher, teacher_classes, teacher_normalise)
    if named is None or out is None:
        raise AttarError(f"--{'teacher' if named is None else 'out'} is missing")
    given = {"scheme": scheme, "label_epochs": label_epochs}
    changes = {name: value for name, value in given.items() if value is not None}
    protocol = modified(named_recipe(recipe), {**assignments(sets or []), **changes})
    from attar.evaluation.relabel import relabel as write

    with showing() as progress:
        write(folder, named, protocol, out, device=device, progress=progress, say=say, dry_run=dry_run)
