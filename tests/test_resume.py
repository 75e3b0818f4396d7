"""kill -9 at random events of every stage, each from an empty cache, then resumption: the bytes stay the same."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kills import Events, ended
from toys import GUIDED, save_folder, save_tiny_dit, tint

from attar.core.cache import contents
from attar.core.progress import quiet
from attar.core.store import Store, file_digest
from attar.distillation.run import distill_sets
from attar.evaluation import named_recipe
from attar.evaluation.records_file import read_records
from attar.evaluation.relabel import Relabelling, relabel
from attar.experiments.spec import read_experiment
from attar.job import Job, Spec
from attar.methods import load_method
from attar.priors.training import optimise
from attar.report.written_experiments import compare_and_write
from attar.sets.distilled import open_distilled, verify
from attar.teachers.reference import TeacherReference
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

STAGES = ("encoding", "inverting", "sampling", "decoding")
SETTINGS = {"sampler.steps": 10, "fit.steps": 10, "subsets": 200}


def distill_once(spec: Spec, name: str, settings: dict[str, Any], root: Path, what: str = "", nth: int = 0) -> None:
    """Runs in a process of its own: sets and cache below `root`, and how often what happened if it lives."""
    optimise.CHECKPOINT_SECONDS = 0.0
    events = Events(root, what, nth)
    method = load_method(name, settings)
    distill_sets(Job(spec, Store(root / "cache"), events.progress), name, method, (1, 4), root / "out")
    events.save(root / "events.json")


def digests(root: Path) -> list[dict[str, str]]:
    out = root / "out"
    assert sorted(folder.name for folder in out.iterdir()) == ["ipc-001", "ipc-004"]
    assert all(verify(folder) == [] for folder in out.iterdir())
    return [open_distilled(out / name).manifest["images"] for name in ("ipc-001", "ipc-004")]


def kill_and_resume(
    spec: Spec,
    settings: dict[str, Any],
    root: Path,
    trials: int,
    name: str = "d3hr",
    stages: tuple[str, ...] = STAGES,
) -> None:
    """Each of the trials dies at its event, and ends with the bytes of a run that was left alone."""
    assert ended(distill_once, spec, name, settings, root / "whole") == 0
    whole, events = digests(root / "whole"), json.loads((root / "whole" / "events.json").read_text())
    draw = random.Random(0)
    for trial in range(trials):
        turn, number = divmod(trial, len(stages))
        what = f"{stages[number]} {('changed', 'told')[(number + turn) % 2]}"
        place, nth = root / f"trial{trial}", draw.randint(1, events[what])
        told = f"a kill at {what}, {nth} of {events[what]}"
        assert ended(distill_once, spec, name, settings, place, what, nth) == -signal.SIGKILL, told
        assert all((folder / "manifest.json").exists() for folder in place.glob("out/[!.]*")), told
        assert ended(distill_once, spec, name, settings, place) == 0, told
        assert digests(place) == whole, f"bytes differ after {told}"


@pytest.mark.slow
def test_ten_kills(tmp_path: Path) -> None:
    data = save_folder(tmp_path / "data", ["a", "b"], each=40)
    spec = Spec(data=str(data), prior=str(save_tiny_dit(tmp_path / "dit", ["a", "b"])), device="cpu")
    kill_and_resume(spec, dict(SETTINGS), tmp_path, trials=10)


@pytest.mark.slow
def test_kills_of_a_fine_tuning(tmp_path: Path) -> None:
    data = save_folder(tmp_path / "data", ["a", "b", "c"], each=60)
    spec = Spec(data=str(data), prior=str(save_tiny_dit(tmp_path / "dit", ["a", "b", "c"])), device="cpu")
    settings = {"fit.max_steps": 20, "fit.group": 2, "fit.monitor.times": 0, "sampler.steps": 4, "select.pool": 4}
    kill_and_resume(spec, settings, tmp_path, 2, "minimax", ("tuning",))


@pytest.mark.slow
def test_kills_of_a_refinement_by_gradients(tmp_path: Path) -> None:
    data = save_folder(tmp_path / "data", ["a", "b"], each=12)
    spec = Spec(data=str(data), prior=str(save_tiny_dit(tmp_path / "dit", ["a", "b"])), device="cpu")
    settings = {"sampler.steps": 5, "sampler.guided_channels": "none", "guide.until": 2, "fit.outliers": 0.2}
    settings |= {"fit.weights": "root", "refine": "likelihood", "refine.steps": 5}
    kill_and_resume(spec, settings, tmp_path, 2, "mgd3", ("refining",))


@pytest.mark.slow
@pytest.mark.parametrize("name", GUIDED)
def test_kills_of_a_guided_sampling(tmp_path: Path, name: str) -> None:
    """Images that look back to those before them, and images that are made together."""
    data = save_folder(tmp_path / "data", ["a", "b"], each=12)
    spec = Spec(data=str(data), prior=str(save_tiny_dit(tmp_path / "dit", ["a", "b"])), device="cpu")
    settings = {"sampler.steps": 5, "sampler.guided_channels": "none", **GUIDED[name]}
    stages = ("training", "sampling") if name == "igd" else ("sampling", "decoding")
    kill_and_resume(spec, settings, tmp_path, 2, name, stages)


def label_once(data: str, teacher: str, root: Path, what: str = "", nth: int = 0) -> None:
    """Runs in a process of its own: a set of real images below `root`, and the labels of its views."""
    events, recipe = Events(root, what, nth), named_recipe("fkd-soft-cifar", {"epochs": 4})
    job = Job(Spec(data, device="cpu"), Store(root / "cache"), events.progress)
    distill_sets(job, "random", load_method("random"), (2,), root / "set")
    reference, labels = TeacherReference(teacher), root / "labels"
    asked = Relabelling(root / "set", reference, recipe, device="cpu")
    relabel(asked, labels, progress=events.progress, say=quiet)
    events.save(root / "events.json")


@pytest.mark.slow
def test_kills_of_a_set_and_of_its_labels(tmp_path: Path) -> None:
    """What was killed is finished by the same run, and neither the cache nor the folder keeps anything half done."""
    tint(save_folder(tmp_path / "data", ["a", "b"], each=12))
    data = str(tmp_path / "data")
    settings = TeacherTraining(data, "convnet3-bn-w16", flip=False, shift=0, epochs=30, batch=10, lr=0.25, device="cpu")
    train_teacher(settings, tmp_path / "teacher", store=Store(tmp_path / "cache"), say=quiet)

    def labels(root: Path) -> dict[str, str]:
        return {file.name: file_digest(file) for file in (root / "labels").iterdir()}

    words = (data, str(tmp_path / "teacher"))
    assert ended(label_once, *words, tmp_path / "whole") == 0
    whole, events = labels(tmp_path / "whole"), json.loads((tmp_path / "whole" / "events.json").read_text())
    draw = random.Random(0)
    for trial, what in enumerate(what for what in sorted(events) if what.endswith("changed")):
        root, nth = tmp_path / f"trial{trial}", draw.randint(1, events[what])
        told = f"a kill at {what}, {nth} of {events[what]}"
        assert ended(label_once, *words, root, what, nth) == -signal.SIGKILL, told
        assert ended(label_once, *words, root) == 0, told
        assert labels(root) == whole, told
        assert contents(root / "cache").unfinished == (), told
        assert sorted(path.name for path in root.iterdir()) == ["cache", "events.json", "labels", "set"], told


def compare_once(root: Path, what: str = "", nth: int = 0) -> None:
    """Runs in a process of its own, within `root`."""
    os.chdir(root)
    events = Events(root, what, nth)
    compare_and_write(read_experiment(Path("file.toml")), store=Store(root / "cache"), progress=events.progress)
    events.save(root / "events.json")


@pytest.mark.slow
def test_kills_of_a_comparison(tmp_path: Path) -> None:
    text = 'data = "data@train"\nipc = 1\nseeds = 1\nout = "out"\n[methods.random]\n[evaluations.quick]\n'

    def begun(name: str) -> Path:
        for seed, split in enumerate(("train", "test")):
            save_folder(tmp_path / name / "data" / split, ["a", "b"], each=4, seed=seed)
        (tmp_path / name / "file.toml").write_text(text + 'networks = ["convnet3-w8"]\nset = {steps = 4}\n')
        return tmp_path / name

    def accuracies(root: Path) -> list[tuple[float, ...]]:
        return [record.accuracies for record in read_records(root / "out" / "results.json")]

    assert ended(compare_once, begun("whole")) == 0
    whole, events = accuracies(tmp_path / "whole"), json.loads((tmp_path / "whole" / "events.json").read_text())
    draw = random.Random(0)
    for what in draw.sample(sorted(events), 1):
        nth = draw.randint(1, events[what])
        told, root = f"a kill at {what}, {nth} of {events[what]}", begun(what.replace("/", " "))
        assert ended(compare_once, root, what, nth) == -signal.SIGKILL, told
        assert ended(compare_once, root) == 0, told
        assert accuracies(root) == whole, told
        assert contents(root / "cache").unfinished == (), told


@pytest.mark.slow
@pytest.mark.shared
def test_kills_on_cifar10(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    spec = Spec(
        data=f"parquet:{shared('data/cifar10')}@train",
        prior=str(shared("priors/cifar10-dit")),
        classes=("cat", "ship"),
        device="cpu",
    )
    settings = {**SETTINGS, "fit.steps": 5, "fit.per_class": 16}
    kill_and_resume(spec, settings, tmp_path, trials=int(os.environ.get("ATTAR_KILLS", "1")))
