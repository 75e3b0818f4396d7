"""Making a prior from a data set: everything checked, encoded and measured, trained, and written as a folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.arguments import checked
from attar.core.batching import device_class
from attar.core.errors import AttarError
from attar.core.fingerprints import Named
from attar.core.progress import Progress, Say, silent
from attar.core.store import Artefact, Store
from attar.core.tracking import begin_tracking
from attar.data import load_data, only_side
from attar.data.output_places import UNSURE, check_place, own_record
from attar.diffusion import schedule_of
from attar.priors.folder import RECORD, new_scheduler, publish, read_card, write_card, write_pipeline
from attar.priors.shared_embedders import untrained
from attar.priors.training.align import Maps, alignment
from attar.priors.training.best import Best
from attar.priors.training.estimate import estimate, looking
from attar.priors.training.lesson import open_lesson, random_real
from attar.priors.training.monitor import Monitor, set_to
from attar.priors.training.optimise import Session, TrainingState
from attar.priors.training.sample_quality import open_classifier, quality_in_words
from attar.priors.training.settings import NewPrior
from attar.priors.training.task import TrainingRun, TrainingTask
from attar.priors.training.train import TRAINING, check_patch, train_network
from attar.priors.training.vae import open_codec, train_vae
from attar.training.processes import check_shared, once_together

if TYPE_CHECKING:
    from attar.priors.codec import Codec


@checked
def train_new_prior(
    spec: NewPrior,
    out: Path,
    *,
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = print,
    dry_run: bool = False,
    teacher: Maps | None = None,
) -> None:
    """Trains a prior and writes its folder; run again, it goes on where it was, and a finished one is left as it is.

    `teacher` is the one that `spec.align` names, opened (attar.teachers.maps); of a dry run, or of a prior that is
    finished, another of its shape may stand in for it, under its name.

    Raises:
        AttarError: any input is wrong, or `out` holds something else; before any long work.
    """
    check_place(out, "`out`", [spec.data])
    if (spec.align is None) is not (teacher is None):
        raise AttarError(f"`align` {spec.align}: give `teacher`, opened by attar.teachers.maps, with it")
    spec = _sized(spec)
    run = TrainingRun(spec, store or Store(), progress, say, dry_run)
    codec = _codec(spec, run, dry_run)
    check_patch(spec.training.patch, codec.shape[-1])
    check_shared(spec.training.batch, run.helper)
    taught = {} if teacher is None else {"teacher": Named(str(spec.align), teacher.named)}
    artefact = run.artefact(codec, **taught)
    if already_there(run, artefact, out):
        return
    network = untrained(codec.shape, len(run.classes), spec.training, spec.training.seed, "train-prior", "weights")
    title = f"A DiT of {len(run.classes)} classes"
    aligned = None if teacher is None else alignment(network, teacher, spec.training, run.helper.device)
    parameters = None if aligned is None else [*network.parameters(), *aligned.head.parameters()]
    scheduler, training = new_scheduler(spec.training.prediction), spec.training
    task = TrainingTask(title, network, parameters, codec, scheduler, training, lambda folder: network, aligned)
    say(estimate(run, task))
    if not dry_run:
        produce(run, task, artefact, out)


def already_there(run: TrainingRun, artefact: Artefact, out: Path) -> bool:
    """Whether the prior is in `out`, and says so; raises AttarError where something else is."""
    record = own_record(out, RECORD, artefact.key, "prior", sure=not looking(run))
    if not record:
        return False
    if record["key"] != artefact.key:
        run.say(f"{out} {UNSURE}")
        return True
    as_asked = record.get("settings", {}).get("report") == asdict(run.material.report)
    hint = "" if as_asked else f"; its measures are of the `report` in its {RECORD}"
    run.say(f"{out} is already there, and is this prior: nothing to do{hint}")
    return True


def _sized(spec: NewPrior) -> NewPrior:
    """The prior, with the size of the images where all have one and the codec knows none."""
    if spec.size is not None or spec.codec not in ("pixel", "grey", "train"):
        return spec
    side = only_side(load_data(spec.data))
    if side is None:
        raise AttarError(f"`codec` {spec.codec} needs a `size`, in pixels: the images of {spec.data} are of several")
    return replace(spec, size=side)


def _codec(spec: NewPrior, run: TrainingRun, dry_run: bool) -> Codec:
    device, source = run.helper.device, spec.codec
    if source == "train":
        if spec.size is None or spec.size % spec.vae.shrink:
            raise AttarError(f"`codec` train needs a `size`, in pixels, a multiple of {spec.vae.shrink}")
        if dry_run:
            raise AttarError("`dry_run`: with `codec` train the autoencoder comes first; it cannot be tried dry")
        begin_tracking()
        train_images, how = run.images[0], spec.preprocess
        common = (spec.size, how, spec.flip, spec.vae, run.helper, run.store, run.progress)
        source = str(train_vae(train_images, *common))
    return open_codec(source, spec.size, device, run.dtype, dry_run)


def produce(run: TrainingRun, task: TrainingTask, artefact: Artefact, out: Path) -> None:
    """Trains in the store's scratch folder, resuming what is there, and copies the finished folder to `out`."""
    begin_tracking()
    helper, store = run.helper, run.store
    best = Best() if run.material.keep == "best" else None
    if helper.is_main_process:
        finished, pictures = "trained already: it is only copied", f"progress pictures: {store.scratch(artefact)}"
        run.say(finished if store.has(artefact) else pictures)
    made = once_together(
        store,
        artefact,
        helper,
        make=lambda folder: _made(run, task, artefact.key, folder, best),
        assist=lambda folder: _trained(run, task, folder, None, best),
    )
    if helper.is_main_process:
        publish(made, out)
        run.say(f"wrote {out.resolve()}")
        run.say(quality_in_words(read_card(out)["measures"], len(run.classes)))
    helper.wait_for_everyone()


def _trained(
    run: TrainingRun,
    task: TrainingTask,
    scratch: Path,
    after: Callable[[TrainingState], None] | None,
    best: Best | None,
) -> float:
    data, memories = run.encoded(task.codec), () if best is None else (best,)
    session = Session(scratch, run.helper, TRAINING, run.progress, memories)
    align = None if task.align is None else task.align.to(run.maps(task.align.teacher))
    common = (task.network, data, task.scheduler, task.training, session, task.parameters, after)
    return train_network(*common, align)


def _made(run: TrainingRun, task: TrainingTask, key: str, folder: Path, best: Best | None) -> None:
    """Trains the network under a monitor and writes its pipeline and its card into the folder."""
    monitor, begun, spent = _monitor(run, task, folder, best), time.monotonic(), 0.0

    def after(moment: TrainingState) -> None:
        nonlocal spent
        spent = moment.seconds
        monitor(moment)

    loss = _trained(run, task, folder, after, best)
    if best is not None:
        set_to(task.trained, best.weights)
    network = task.finished(folder)
    vae = getattr(task.codec, "vae", None)
    write_pipeline(folder, network.with_own_embedders().cpu(), task.scheduler, run.classes, vae)
    record = {
        **_described(run, task, key),
        "vae": vae is not None,
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": round(spent or time.monotonic() - begun, 1),
        "loss": loss,
        "measures": monitor.measures(),
    }
    write_card(folder, task.title, record)


def _monitor(run: TrainingRun, task: TrainingTask, folder: Path, best: Best | None) -> Monitor:
    (train_images, held), report = run.images, run.material.report
    size, how = task.codec.size, run.material.preprocess
    lesson = open_lesson(held, size, how)
    real = None if lesson is None else lesson(*random_real(train_images, report.samples, size, how))
    return Monitor(
        folder=folder,
        report=report,
        total=task.training.steps,
        network=task.network,
        parameters=task.trained,
        schedule=schedule_of(task.scheduler),
        codec=task.codec,
        classes=run.classes,
        classifier=open_classifier(train_images, held, run.classifier(task.codec), run.store, run.progress),
        lesson=lesson,
        taught_real=real,
        device=run.helper.device,
        seed=task.training.seed,
        progress=run.progress,
        best=best,
    )


def _described(run: TrainingRun, task: TrainingTask, key: str) -> dict[str, Any]:
    """What a prior was asked to be, and of what it was made."""
    return {
        "key": key,
        "data": run.material.data,
        "classes": list(run.classes),
        "settings": asdict(run.material),
        "codec": task.codec.key,
        "images": len(run.images[0]),
        "images_seen": task.training.steps * task.training.batch,
        "steps": task.training.steps,
        "device": device_class(run.helper.device),
    }
