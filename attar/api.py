"""The same from Python as from the command line, in plain arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.arguments import checked
from attar.core.engine import LOCAL, Engine
from attar.core.errors import AttarError
from attar.core.progress import Progress, Say, quiet, silent

if TYPE_CHECKING:
    from attar.core.cache import CacheContents, CachedArtefact
    from attar.core.prune import Pruned
    from attar.distillation.explain_run import Reuse
    from attar.evaluation.conditions import Conditions
    from attar.job import Spec
    from attar.methods.base import Method


@checked
def distill(
    data: str,
    *,
    method: str | Method | None = None,
    ipc: int | Sequence[int],
    out: str | Path,
    prior: str | None = None,
    seed: int = 0,
    fields: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    engine: Engine | str = LOCAL,
    dry_run: bool = False,
    progress: Progress = silent,
    say: Say = quiet,
    **spec: Any,
) -> list[Path]:
    """`attar distill`: the folders written, one for each IPC in rising order.

    Args:
        data: images, for example "digits" or "parquet:cifar10@train".
        method: a name of `attar list methods`, or a method of your own (`attar.methods.base`): a frozen dataclass;
            None: one that suits the data, with a small teacher that is trained for it
            (`attar.distillation.run_without_method`).
        ipc: images per class; several make `out/ipc-001`, `out/ipc-010` ...
        prior: "digits", a folder or hub id (DiT or Stable Diffusion); methods of real images need none. "train": one
            is trained on the images first, and written to `OUT.prior` (`attar.distillation.prior_first`).
        fields: fields of the method, for example {"sampler.steps": 20}.
        classes: only these classes, by name.
        engine: "local", "ray", or an `attar.Engine`, which says more of the cluster and of what an item takes.
        say: called with which method was chosen, what is left to do, and what was written.
        spec: further fields of `attar.job.Spec`: labels, label_teacher, preprocess, prompt, device, dtype, tile ...

    Raises:
        AttarError: any input is wrong; before any long work.
    """
    from attar.job import Job

    job = Job(_spec("distill", data, prior, classes, {"seed": seed, **spec}), progress=progress, dry=dry_run)
    how: dict[str, Any] = {"ipcs": _ipcs(ipc), "out": Path(out), "engine": Engine.of(engine)}
    from attar.distillation.prior_first import distill_with

    if method is None:
        from attar.distillation.run_without_method import distill_chosen

        if fields:
            raise AttarError("`fields` are of a method: name one as `method`")
        return distill_with(job, None, partial(distill_chosen, **how), Path(out), say)
    from attar.distillation.run import distill_sets

    name, chosen = _method(method, dict(fields or {}))
    return distill_with(job, chosen, partial(distill_sets, name=name, method=chosen, **how), Path(out), say)


@checked
def evaluate(
    folder: str | Path,
    *,
    recipe: str | None = None,
    network: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] = 3,
    fields: Mapping[str, Any] | None = None,
    test: str | None = None,
    baseline: bool = True,
    weights: bool = True,
    teacher: str | Sequence[str] | None = None,
    labels: str | Path | None = None,
    device: str = "auto",
    engine: Engine | str = LOCAL,
    dry_run: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """`attar evaluate`: a record for each distilled set in `folder` and each network; none of a dry run.

    Its keys are those of a results file: the fields of `attar.evaluation.records.Record`.

    Args:
        recipe: a name of `attar list recipes`; None: quick, which sees photographs at 64 pixels.
        network: one name or several; None: a ConvNet that suits the images' size.
        seeds: how many training seeds, or which.
        fields: fields of the recipe, for example {"flip": False}.
        test: test images; None is the test split of the set's own data.
        baseline: whether random real images of the same count are evaluated beside each set.
        weights: whether images weigh what their set says; of sets without weights all weigh the same.
        teacher: who gives soft labels (`attar.teachers.load.load_pretrained`); of several, the mean of their logits.
        labels: a folder that `attar relabel` wrote; without `recipe`, that of the labels. Without them, sets that hold
            labels themselves are learnt from with these, and by class alone with {"labels": "hard"} as `fields`.
        say: called with what the trainings take, and where the data has changed or shares images with the test set.

    Raises:
        AttarError: any input is wrong; before any training.
    """
    from attar.evaluation.outlook import evaluation_forecast
    from attar.evaluation.run import evaluate_sets
    from attar.evaluation.suited import suited
    from attar.evaluation.teaching import asked_recipe, with_own_labels
    from attar.sets.distilled import find_distilled

    stored = None if labels is None else Path(labels)
    others: dict[str, Any] = {"test": test, "baseline": baseline, "weights": weights}
    others |= {"labels": stored, "device": device}
    chosen = asked_recipe(stored, recipe, fields or {})
    asked = _conditions("convnet3" if network is None else network, seeds, teacher, **others)
    sets = find_distilled(Path(folder))
    chosen, asked = with_own_labels(sets, chosen, asked, recipe, fields or {}, say)
    protocol, conditions = suited(
        sets,
        chosen,
        asked,
        any_size=recipe is None and (asked.labels is None or chosen.fixed) and "size" not in (fields or {}),
        any_network=network is None,
        say=say,
    )
    how: dict[str, Any] = {"progress": progress, "say": say, "dry_run": dry_run, "engine": Engine.of(engine)}
    if not dry_run:
        say(evaluation_forecast(sets, protocol, conditions))
    records = evaluate_sets(sets, protocol, conditions, **how)
    return [record.as_json() for record in records]


@checked
def compare(
    file: str | Path,
    *,
    only: Sequence[str] = (),
    engine: Engine | str = LOCAL,
    dry_run: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = print,
) -> list[str]:
    """`attar compare`: what failed, a line each; results, tables and figures are in the folder that the file names.

    Args:
        file: a TOML file; `attar.experiments.spec` says what stands in it.
        only: labels of the methods to run; none: all.

    Raises:
        AttarError: anything in the file, or any input, is wrong; before any long work.
    """
    from attar.experiments.spec import read_experiment
    from attar.report.written_experiments import compare_and_write

    how: dict[str, Any] = {"progress": progress, "say": say, "dry_run": dry_run, "engine": Engine.of(engine)}
    return list(compare_and_write(read_experiment(Path(file)), only=only, **how))


@checked
def tune(
    data: str,
    *,
    method: str,
    ipc: int | Sequence[int],
    out: str | Path,
    prior: str | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    fields: Mapping[str, Any] | None = None,
    recipe: str = "quick",
    recipe_fields: Mapping[str, Any] | None = None,
    network: str | Sequence[str] = "convnet3",
    seeds: int | Sequence[int] = 3,
    eta: int = 3,
    teacher: str | Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    engine: Engine | str = LOCAL,
    dry_run: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = print,
    **spec: Any,
) -> dict[int, dict[str, Any]]:
    """`attar tune`: for each IPC the fields that do best on the held-out tenth, as `distill` takes them.

    Args:
        grid: field of the method -> values to try; None: `attar.experiments.candidates.default_grid`.
        fields: fields of the method that all candidates share.
        recipe, recipe_fields, network, teacher: as of `evaluate`.
        seeds: training seeds of the last rung; those before it take the first.
        eta: 1/eta of the candidates go on to eta times the training.
        spec: further fields of `attar.job.Spec`: seed, preprocess, prompt, device, dtype, tile ...

    Raises:
        AttarError: any input is wrong; before any long work.
    """
    from attar.evaluation import named_recipe
    from attar.experiments.candidates import default_grid
    from attar.experiments.settings import Tuning
    from attar.report.written_experiments import tune_and_write

    fixed = dict(fields or {})
    tuning = Tuning(
        spec=_spec("tune", data, prior, classes, spec),
        name=method,
        fixed=fixed,
        grid=default_grid(method, fixed) if grid is None else grid,
        ipcs=tuple(sorted(set(_ipcs(ipc)))),
        out=Path(out),
        recipe=named_recipe(recipe, recipe_fields),
        conditions=_conditions(network, seeds, teacher),
        eta=eta,
    )
    return tune_and_write(tuning, progress=progress, say=say, dry_run=dry_run, engine=Engine.of(engine)).chosen


@checked
def explain_run(
    data: str,
    *,
    method: str | Method,
    ipc: int | Sequence[int],
    out: str | Path,
    prior: str | None = None,
    seed: int = 0,
    fields: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    progress: Progress = silent,
    say: Say = quiet,
    **spec: Any,
) -> Reuse:
    """`attar distill --explain`: what a run would find in the cache, and what differs where it would not.

    The arguments are those of `distill`. Everything is checked, and nothing is made.

    Raises:
        AttarError: any input is wrong.
    """
    from attar.distillation.explain_run import explain_run as explained

    asked, (name, chosen) = (
        _spec("distill", data, prior, classes, {"seed": seed, **spec}),
        _method(method, dict(fields or {})),
    )
    return explained(asked, name, chosen, _ipcs(ipc), Path(out), progress=progress, say=say)


@checked
def cache_contents(kind: str | None = None) -> CacheContents:
    """`attar cache`: all that is in the cache, or what it holds of one kind.

    Raises:
        AttarError: it holds nothing of this kind.
    """
    from attar.core.cache import contents

    return contents(kind=kind)


@checked
def explain(what: str | Path) -> CachedArtefact:
    """`attar cache explain`: what an artefact of the cache, or a distilled set, was made of.

    Args:
        what: a key or its beginning, `3f2a` or `fit/3f2a`; or the folder of an artefact or of a distilled set.

    Raises:
        AttarError: there is none, or there are several; or the cache does not know the set.
    """
    from attar.core.cache import contents, find, read_artefact

    folder = Path(what)
    if (folder / "manifest.json").is_file():
        from attar.sets.distilled import open_distilled

        manifest, cached = open_distilled(folder).manifest, contents()
        if source := manifest.get("expanded_from"):
            raise AttarError(f"{folder}: the parts of another set ({source['set']}), which `attar expand` wrote")
        run = manifest["run"]
        made = [record for record in cached.records if record.kind == "set" and record.inputs.get("run") == run]
        if not made:
            raise AttarError(
                f"{folder}: the cache {cached.root} does not know what it was made from: another cache, or an older "
                "Attar, made it, or that was removed; its settings stand in its manifest.json"
            )
        return made[-1]
    record = read_artefact(folder.absolute()) if (folder / "meta.json").is_file() else None
    return find(str(what)) if record is None else record


@checked
def prune_cache(
    *,
    older_than: str | float | None = None,
    max_size: str | int | None = None,
    kind: str | None = None,
    dry_run: bool = False,
) -> Pruned:
    """`attar cache prune`: removes what was not used for long, or is too much; the least recently used goes first.

    Args:
        older_than: "30d", or seconds.
        max_size: "50GB", or bytes.
        kind: only artefacts of this kind.
        dry_run: nothing is removed.

    Raises:
        AttarError: neither an age nor a size is given, or one of them cannot be read.
        Unwritable: the cache cannot be written.
    """
    from attar.core.prune import bytes_of, prune, seconds_of

    age = seconds_of(older_than, "older_than") if isinstance(older_than, str) else older_than
    size = bytes_of(max_size, "max_size") if isinstance(max_size, str) else max_size
    return prune(older_than=age, max_size=size, kind=kind, dry_run=dry_run)


def _spec(command: str, data: str, prior: str | None, classes: Sequence[str] | None, fields: Mapping[str, Any]) -> Spec:
    from attar.core.config import changed
    from attar.job import Spec

    named = {"classes": tuple(classes)} if classes is not None else {}
    return changed(Spec(data=data, prior=prior), {**fields, **named}, command)


def _conditions(
    network: str | Sequence[str], seeds: int | Sequence[int], teacher: str | Sequence[str] | None, **others: Any
) -> Conditions:
    from attar.core.limits import seeds as numbered
    from attar.evaluation.conditions import Conditions
    from attar.teachers.reference import TeacherReference

    return Conditions(
        (network,) if isinstance(network, str) else tuple(network),
        tuple(numbered(seeds) if isinstance(seeds, int) else seeds),
        teacher=None if teacher is None else TeacherReference.of(teacher),
        **others,
    )


def _method(method: str | Method, fields: dict[str, Any]) -> tuple[str, Method]:
    """A method, by its name or one of the user's own, with fields set, and what it is called."""
    from attar.core.config import changed
    from attar.methods import load_method
    from attar.methods.base import own

    if isinstance(method, str):
        return method, load_method(method, fields)
    name = type(method).__name__
    return name, changed(own(method), fields, name)


def _ipcs(ipc: int | Sequence[int]) -> list[int]:
    return list(ipc) if isinstance(ipc, Sequence) and not isinstance(ipc, str) else [ipc]
