"""The same from Python as from the command line, in plain arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.progress import Progress, silent

if TYPE_CHECKING:
    from attar.methods.base import Method


def distill(
    data: str,
    *,
    method: str | Method,
    ipc: int | Sequence[int],
    out: str | Path,
    prior: str | None = None,
    seed: int = 0,
    fields: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    dry_run: bool = False,
    progress: Progress = silent,
    **spec: Any,
) -> list[Path]:
    """`attar distill`: the folders written, one for each IPC in rising order.

    Args:
        data: images, for example "digits" or "parquet:cifar10@train".
        method: a name of `attar list methods`, or a method of your own (`attar.methods.base`): a frozen dataclass.
        ipc: images per class; several make `out/ipc-001`, `out/ipc-010` ...
        prior: "digits", a folder or hub id (DiT or Stable Diffusion); methods of real images need none.
        fields: fields of the method, for example {"sampler.steps": 20}.
        classes: only these classes, by name.
        spec: further fields of `attar.job.Spec`: preprocess, prompt, negative_prompt, device, dtype, tile ...

    Raises:
        AttarError: any input is wrong; before any long work.
    """
    from attar.core.config import changed
    from attar.distillation.run import distill_sets
    from attar.job import Spec
    from attar.methods import load_method
    from attar.methods.base import own

    ipcs = [ipc] if isinstance(ipc, int) else list(ipc)
    named = {**spec, **({"classes": tuple(classes)} if classes is not None else {})}
    job = changed(Spec(data=data, prior=prior, seed=seed), named, "distill")
    name = method if isinstance(method, str) else type(method).__name__
    settings = dict(fields or {})
    chosen = load_method(method, settings) if isinstance(method, str) else changed(own(method), settings, name)
    return distill_sets(job, name, chosen, ipcs, Path(out), progress=progress, dry_run=dry_run)


def evaluate(
    folder: str | Path,
    *,
    recipe: str = "quick",
    network: str | Sequence[str] = "convnet3",
    seeds: int | Sequence[int] = 3,
    fields: Mapping[str, Any] | None = None,
    test: str | None = None,
    baseline: bool = True,
    teacher: str | Sequence[str] | None = None,
    labels: str | Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """`attar evaluate`: a record for each distilled set in `folder` and each network.

    Its keys are those of a results file: the fields of `attar.evaluation.records.Record`.

    Args:
        recipe: a name of `attar list recipes`.
        network: one name or several.
        seeds: how many training seeds, or which.
        fields: fields of the recipe, for example {"flip": False}.
        test: test images; None is the test split of the set's own data.
        baseline: whether random real images of the same count are evaluated beside each set.
        teacher: who gives soft labels, as `--teacher`; of several, the mean of their logits.
        labels: a folder that `attar relabel` wrote.
        say: told where the data has changed, or shares images with the test set.

    Raises:
        AttarError: any input is wrong; before any training.
    """
    from attar.core.limits import seeds as numbered
    from attar.evaluation import modified, named_recipe
    from attar.evaluation.run import evaluate_sets

    records = evaluate_sets(
        [Path(folder)],
        modified(named_recipe(recipe), dict(fields)) if fields else named_recipe(recipe),
        [network] if isinstance(network, str) else network,
        numbered(seeds) if isinstance(seeds, int) else seeds,
        test=test,
        baseline=baseline,
        teacher=teacher,
        labels=labels,
        device=device,
        progress=progress,
        say=say,
    )
    return [record.as_json() for record in records]


def compare(
    file: str | Path,
    *,
    only: Sequence[str] = (),
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
    from attar.report.run import compare as run

    return list(run(read_experiment(Path(file)), only=only, dry_run=dry_run, progress=progress, say=say))


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
    dry_run: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = print,
    **spec: Any,
) -> dict[int, dict[str, Any]]:
    """`attar tune`: for each IPC the fields that do best on the held-out tenth, as `distill` takes them.

    Args:
        grid: field of the method -> values to try; None: `attar.experiments.tune.default_grid`.
        fields: fields of the method that all candidates share.
        recipe, recipe_fields, network, teacher: as of `evaluate`.
        seeds: training seeds of the last rung; those before it take the first.
        eta: 1/eta of the candidates go on to eta times the training.
        spec: further fields of `attar.job.Spec`: seed, preprocess, prompt, device, dtype, tile ...

    Raises:
        AttarError: any input is wrong; before any long work.
    """
    from attar.core.config import changed
    from attar.core.limits import seeds as numbered
    from attar.evaluation import modified, named_recipe
    from attar.experiments.tune import Tuning, default_grid
    from attar.job import Spec
    from attar.report.run import tune as run
    from attar.teachers.reference import TeacherReference

    named = {**spec, **({"classes": tuple(classes)} if classes is not None else {})}
    fixed = dict(fields or {})
    tuning = Tuning(
        spec=changed(Spec(data=data, prior=prior), named, "tune"),
        name=method,
        fixed=fixed,
        grid=default_grid(method, fixed) if grid is None else grid,
        ipcs=(ipc,) if isinstance(ipc, int) else tuple(sorted(set(ipc))),
        out=Path(out),
        recipe=modified(named_recipe(recipe), dict(recipe_fields or {})),
        networks=(network,) if isinstance(network, str) else tuple(network),
        seeds=tuple(numbered(seeds) if isinstance(seeds, int) else seeds),
        eta=eta,
        teacher=None if teacher is None else TeacherReference.of(teacher),
    )
    return run(tuning, progress=progress, say=say, dry_run=dry_run).chosen
