"""A whole run, read first: check everything, say what it will cost, distill, write, evaluate. Every stage resumes.

    distill_sets   data, prior, method, IPCs -> distilled sets on disk      (attar.distill.pipeline does the work)
    evaluate_sets  distilled sets, recipe, networks, seeds -> records       (attar.evaluation does)

What is expensive is kept in the store under the fingerprint of all that it depends on, so that a run that was killed,
or another run that shares a stage, goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.errors import AttarError
from attar.core.progress import Progress, silent
from attar.core.store import Store, fingerprint

if TYPE_CHECKING:
    from attar.core.progress import Say
    from attar.distill.checks import Plan
    from attar.distill.pipeline import Engine
    from attar.evaluation import Images, Recipe
    from attar.evaluation.teaching import Soft
    from attar.job import Job, Spec
    from attar.methods.base import Method
    from attar.sets.distilled import DistilledSet
    from attar.teachers.reference import TeacherReference


def quiet(text: str) -> None:
    """Says nothing."""


def distill_sets(
    spec: Spec,
    name: str,
    method: Method,
    ipcs: Sequence[int],
    out: Path,
    *,
    store: Store | None = None,
    engine: Engine | None = None,
    progress: Progress = silent,
    say: Say = quiet,
    dry_run: bool = False,
) -> list[Path]:
    """Distills, and writes one set for each IPC: `out` itself, or `out/ipc-001`, `out/ipc-010` ... for several.

    A set that is already there is left as it is; a dry run ends after the checks and the estimate.

    Raises:
        AttarError: any input is wrong, or a folder belongs to another run; before any long work.
    """
    from attar.job import Job

    job = Job(spec, store, progress, dry_run)
    return make_sets(job, name, method, ipcs, out, engine=engine, say=say, dry_run=dry_run)


def make_sets(
    job: Job,
    name: str,
    method: Method,
    ipcs: Sequence[int],
    out: Path,
    *,
    engine: Engine | None = None,
    say: Say = quiet,
    dry_run: bool = False,
) -> list[Path]:
    """The same for a job, which says where images and prior come from."""
    from attar.distill.checks import checked
    from attar.distill.pipeline import Local, distill, final_images, prototype_images
    from attar.methods.base import real_choice
    from attar.sets.distilled import write_distilled

    plan = checked(job, name, method, ipcs, out, say)
    missing = plan.missing(plan.ipcs, say)
    say(_estimate(plan, missing))
    if dry_run or not missing:
        return list(plan.folders.values())
    distill(job, method, missing, engine or Local())
    for ipc in missing:
        begun = time.monotonic()
        with job.store.lock("writing", fingerprint(str(plan.folders[ipc].absolute()))):
            if [ipc] == plan.missing([ipc], quiet):
                images = partial(final_images, job, method, ipc)
                prototypes = prototype_images(job, method, ipc)
                kept = plan.statistics() if job.spec.keep_statistics else None
                distinct = method.sampler is not None and real_choice(method.fit) is None
                write_distilled(plan.folders[ipc], job.classes, images, plan.manifest(ipc), prototypes, kept, distinct)
        say(f"wrote {plan.folders[ipc]} in {time.monotonic() - begun:.1f} s")
    return list(plan.folders.values())


def _estimate(plan: Plan, ipcs: Sequence[int]) -> str:
    size = f"{len(plan.job.images):,} images of {len(plan.job.classes)} classes"
    if not ipcs:
        return f"{size}: nothing left to do"
    from attar.distill.cost import choosing, remaining
    from attar.methods.base import Composed

    first = choosing(plan.job, plan.method, ipcs)
    if plan.method.sampler is None and not isinstance(plan.method, Composed):
        return f"{size}: {sum(ipcs) * len(plan.job.classes)} of them will be copied{first}"
    trained = "; the prior digits is trained before that" if plan.uses_prior and plan.job.untrained else ""
    return f"{size}: {remaining(plan.job, plan.method, ipcs)}{first}{trained}"


def evaluate_sets(
    folders: Sequence[Path | DistilledSet],
    recipe: Recipe,
    networks: Sequence[str],
    seeds: Sequence[int],
    *,
    test: str | None = None,
    baseline: bool = True,
    teacher: str | Sequence[str] | TeacherReference | None = None,
    labels: str | Path | None = None,
    device: str = "auto",
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = quiet,
) -> Iterator[dict[str, Any]]:
    """One record for each distilled set in `folders` and each network, as soon as it is there.

    A set from elsewhere is given opened (attar.sets.layouts).
    Random real images of the same count are evaluated beside each set, unless `baseline` is False; with the same
    teacher, and labels of their own. `labels` is what `attar relabel` wrote for the set.

    Raises:
        AttarError: a set is damaged, the test data does not have its classes, the network or recipe is unknown, the
            teacher fails a check, the labels are of something else, or the data of the random images has changed.
    """
    from attar.data import test_spec
    from attar.evaluation import changes
    from attar.evaluation.inputs import in_memory, opened, random_real, tried
    from attar.evaluation.teaching import check_given, soft
    from attar.sets.distilled import DistilledSet, find_distilled, verify
    from attar.sets.images import check_data, tested_images
    from attar.teachers.reference import TeacherReference

    teacher = teacher if teacher is None or isinstance(teacher, TeacherReference) else TeacherReference.of(teacher)
    labels = None if labels is None else Path(labels)
    check_given(recipe, teacher, labels)
    opened_sets = ([one] if isinstance(one, DistilledSet) else find_distilled(one) for one in folders)
    sets = list(chain.from_iterable(opened_sets))
    if labels is not None and len(sets) != 1:
        raise AttarError(f"--labels {labels}: labels are of one set, and {len(sets)} were given")
    held = {}
    for one in sets:
        if one.elsewhere is None and (problems := verify(one.folder)):
            raise AttarError(
                f"{one.folder} is damaged ({problems[0]}); `attar verify` lists all {len(problems)} problems"
            )
        held[one.folder] = tested_images(one, test, store or Store(), progress)
        check_data(one, held[one.folder], baseline, store or Store(), say)
    for one in sets:
        train = opened(one, recipe)
        side, pictures = train.side, {"set": train}
        if baseline:
            pictures["baseline"] = random_real(one, recipe, side, store or Store())
        tests = in_memory(held[one.folder], recipe.shorter_side(recipe.size or side), "resize-crop")
        tried_on = partial(tried, one, train, store or Store())
        taught = soft(recipe, train, teacher, labels, tried_on, device, baseline)
        for network in networks:
            record = _record(one, pictures, tests, recipe, network, seeds, taught, device, store or Store(), progress)
            yield {**record, "test": test or test_spec(one.manifest["data"]["spec"]), "changes": changes(recipe)}


def evaluate_all(
    data: str,
    recipe: Recipe,
    networks: Sequence[str],
    seeds: Sequence[int],
    *,
    test: str | None = None,
    device: str = "auto",
    store: Store | None = None,
    progress: Progress = silent,
) -> Iterator[dict[str, Any]]:
    """One record for each network, trained on all of the data: the ceiling of what distilled sets can reach."""
    from attar.data import load_data, test_spec, usual_side
    from attar.evaluation import changes, evaluate
    from attar.evaluation.inputs import in_memory, real

    tested_on = test or test_spec(data)
    images, held = load_data(data), load_data(tested_on)
    side = recipe.size or usual_side(images)
    train = real(images, recipe, side, "resize-crop")
    tests = in_memory(held.restricted(images.classes), recipe.shorter_side(side), "resize-crop")
    for network in networks:
        common: dict[str, Any] = {"recipe": recipe, "network": network, "seeds": seeds, "device": device}
        told = _prefixed(progress, "all of the data")
        result = evaluate(train, tests, **common, store=store or Store(), progress=told)
        about = {"set": "", "method": "all data", "seed": None, "test": tested_on, "changes": changes(recipe)}
        yield {**about, **result.record(), "baseline": None}


def _prefixed(progress: Progress, prefix: str) -> Progress:
    return lambda text, fraction: progress(f"{prefix}: {text}", fraction)


def _record(
    one: DistilledSet,
    pictures: dict[str, Images],
    test: Images,
    recipe: Recipe,
    network: str,
    seeds: Sequence[int],
    soft: Soft,
    device: str,
    store: Store,
    progress: Progress,
) -> dict[str, Any]:
    from attar.evaluation import evaluate

    records = {}
    for what, train in pictures.items():
        text = str(one.folder) if what == "set" else f"random real images beside {one.folder}"
        records[what] = evaluate(
            train,
            test,
            recipe=recipe,
            network=network,
            seeds=seeds,
            device=device,
            store=store,
            progress=_prefixed(progress, text),
            teacher=soft.teacher,
            labels=soft.labels if what == "set" else None,
        ).record()
    manifest = one.manifest
    about = {"set": str(one.folder), "method": manifest["method"]["name"], "seed": manifest["seed"]}
    about |= {"teacher": soft.about, **({"layout": manifest["layout"]} if "layout" in manifest else {})}
    return {**about, **records["set"], "ipc": manifest["ipc"], "baseline": records.get("baseline")}
