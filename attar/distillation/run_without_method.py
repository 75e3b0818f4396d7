"""A run that names no method: a small teacher is trained, and chooses the real images that the sets are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.engine import LOCAL, Engine
from attar.core.errors import AttarError
from attar.core.files import as_source
from attar.core.progress import Say, of_item, quiet
from attar.data import load_data
from attar.data.output_places import named_after, occupied
from attar.distillation.hub_prior import DIT, are_imagenets, with_hub_prior
from attar.methods import load_method
from attar.networks import check_size, suited_convnet
from attar.teachers.settings import TeacherTraining

if TYPE_CHECKING:
    from attar.job import Job
    from attar.methods.exemplars.settings import ExemplarSettings

SIDE = 64
"""The teacher sees images at this size at most, in pixels: it is trained in minutes on a CPU."""
STEPS = 400
"""Steps that the teacher is trained for, about: a weak one chooses best (docs/results.md)."""
MANY, BATCH, LARGE_BATCH = 10_000, 64, 256
"""The teacher is trained with the large batch where there are this many images."""


def distill_chosen(job: Job, ipcs: Sequence[int], out: Path, *, say: Say = quiet, engine: Engine = LOCAL) -> list[Path]:
    """Distills as `distill_sets`, by a method of its own choice, and says which and why.

    Without a prior it copies real images, with one (hub_prior.py) it makes exemplars of them; either way a small
    teacher, written to `OUT.teacher`, says which are typical.

    Raises:
        AttarError: any input is wrong; before the teacher is trained.
    """
    from attar.distillation.checks import foreseen
    from attar.distillation.run import distill_sets
    from attar.teachers.train import train_teacher

    engine.check(job.spec.device)
    _balanced(job)
    job, teacher = with_hub_prior(job, say), teacher_of(out)
    name, fields = _chosen(job, teacher)
    folders = foreseen(job, name, load_method(name, fields(None)), ipcs, out).folders
    _same_choice(folders.values(), name)
    training = suited_teacher(job)
    check_teachable(job, training)
    for line in _reasons(job, training, teacher):
        say(line)
    with named_after(out):
        train_teacher(training, teacher, store=job.store, progress=job.progress, say=say, dry_run=job.dry)
    if not teacher.exists():
        say("the images are chosen when the teacher is there")
        return list(folders.values())
    if job.dry and not all(_is_decided(job, teacher, job.spec.made(ipc)) for ipc in folders):
        say("a race decides whether typical images are chosen, or any")
        return list(folders.values())
    job.progress = job.progress if len(folders) == 1 else of_item(job.progress)
    for ipc, folder in folders.items():
        method = load_method(name, fields(job.spec.made(ipc)))
        if name == "herding" and (race := _choice(teacher, job.spec.made(ipc)).race(job)):
            say(f"ipc {ipc}: {race.outcome().words}")
        distill_sets(job, name, method, [ipc], folder, say=say, engine=engine)
    return list(folders.values())


def _same_choice(folders: Iterable[Path], name: str) -> None:
    """Raises AttarError where one of the folders holds a set of another method."""
    from attar.sets.distilled import open_distilled

    for folder in filter(occupied, folders):
        if (other := open_distilled(folder).manifest["method"]["name"]) != name:
            raise AttarError(
                f"{folder} is a set of {other}, and {name} is the choice here and now: choose another `out`, or name "
                "the `method`"
            )


def _balanced(job: Job) -> None:
    """Raises AttarError for a long-tailed view of the data."""
    if (factor := job.spec.imbalance_factor) is not None:
        other = "name a `method`; the teacher that would choose is trained on all images"
        raise AttarError(f"`imbalance_factor` {factor:g}: {other}")


def teacher_of(out: Path) -> Path:
    """Where the teacher of the sets in `out` is written."""
    return out.parent / f"{out.name}.teacher"


def _chosen(job: Job, teacher: Path) -> tuple[str, Callable[[int | None], dict[str, Any]]]:
    """A method's name, and its fields by the number of images (None: before the teacher is there).

    It is the choice that docs/results.md shows to be the best.
    """
    if job.spec.prior is not None:
        return "exemplars", lambda _: {"fit.select.teacher": as_source(teacher)}

    def herding(made: int | None) -> dict[str, Any]:
        share = 1.0 if made is None else _choice(teacher, made).decided(job).share
        return {"select.teacher": as_source(teacher), "select.share": share}

    return "herding", herding


def _choice(teacher: Path, made: int) -> ExemplarSettings:
    """The choice of so many images of a class, as `exemplars` makes it."""
    from attar.methods.exemplars.settings import ExemplarSettings
    from attar.selection import Select

    return ExemplarSettings(Select(rule="herding", teacher=as_source(teacher))).for_ipc(made)


def _is_decided(job: Job, teacher: Path, made: int) -> bool:
    """Whether the share that real images are chosen from is known without a race."""
    race = None if job.spec.prior is not None else _choice(teacher, made).race(job)
    return race is None or job.store.has(race.artefact)


def suited_teacher(job: Job) -> TeacherTraining:
    """The teacher's training: a ConvNet, for as many steps whatever the data."""
    spec, size, count = job.spec, min(job.side, SIDE), len(job.everything)
    batch = LARGE_BATCH if count >= MANY else BATCH
    return TeacherTraining(
        data=spec.data,
        network=f"{suited_convnet(size)}-bn-w48",
        size=size,
        preprocess=spec.preprocess,  # type: ignore[arg-type]  # one of the names that were checked
        epochs=-(-STEPS // max(1, count * 9 // 10 // batch)),
        batch=batch,
        seed=spec.seed,
        on_bad_image=spec.on_bad_image,
        device=spec.device,
    )


def check_teachable(job: Job, training: TeacherTraining) -> None:
    """Raises AttarError where no teacher can be trained on the images."""
    other = "where no `method` is named, a small teacher chooses: name one, such as random or herding"
    try:
        check_size(training.network, len(job.everything.classes), job.side)
        load_data(training.data).held_out()
    except AttarError as error:
        raise AttarError(f"{error}; {other}") from error


def _reasons(job: Job, training: TeacherTraining, teacher: Path) -> list[str]:
    """What is chosen and why, and what would be better."""
    first = f"{training.network} is trained first at {training.size} pixels, in {teacher}"
    if job.spec.prior is not None:
        return [
            f"no `method` is named: exemplars, real images that a small teacher finds typical; {first}",
            "for better ones: `attar tune` chooses their settings on a tenth of your data",
        ]
    if are_imagenets(job):
        better = f"the classes are ImageNet's: `prior` {DIT} makes exemplars of them (on a GPU)"
    else:
        better = (
            "a `prior` of your images makes exemplars of them; of thousands, on a GPU, `attar train-prior` trains one"
        )
    return [
        "neither a `method` nor a `prior` is named: herding among the images that a small teacher is surest of, or "
        f"among all where a short race finds these no worse; {first}",
        f"for better ones: {better}",
    ]
