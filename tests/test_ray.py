"""The workers of a Ray cluster: the same bytes as here, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kills import command, ended, moments
from test_methods import FAST, TAUGHT
from toys import save_tiny_dit

from attar.core.engine import Engine
from attar.core.errors import AttarError
from attar.core.fingerprints import Artefact
from attar.core.progress import quiet, silent
from attar.core.store import Store
from attar.distillation.run import distill_sets
from attar.evaluation import named_recipe
from attar.evaluation.conditions import Conditions
from attar.evaluation.relabel import Relabelling, relabel
from attar.evaluation.run import evaluate_sets
from attar.job import Job, Spec
from attar.methods import load_method
from attar.sets.distilled import open_distilled
from attar.teachers.reference import TeacherReference
from attar.teachers.settings import TeacherTraining
from attar.teachers.soft_labels import StoredLabels
from attar.teachers.train import train_teacher

ray = pytest.importorskip("ray", reason="needs the extra `ray`")
pytestmark = pytest.mark.slow

CLASSES = ("0", "1", "2", "3")
RAY = Engine("ray", item_cpus=1)
ABOUT = {"num_cpus": 1, "object_store_memory": 100 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, on this machine; a lost one is noticed at once."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    quick = {"health_check_period_ms": 300, "health_check_failure_threshold": 3, "health_check_initial_delay_ms": 0}
    nodes = Cluster(initialize_head=True, head_node_args={**ABOUT, "_system_config": quick})
    nodes.add_node(**ABOUT)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with RAY.cluster():
        yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    save_tiny_dit(root / "dit", [str(digit) for digit in range(10)])
    new = TeacherTraining("digits@train", "convnet3-bn-w16", flip=False, shift=0, epochs=8, batch=50, device="cpu")
    train_teacher(new, root / "teacher", store=Store(root / "cache"), say=quiet)
    return root


def distilled(world: Path, root: Path, name: str, engine: Engine) -> list[dict[str, str]]:
    spec = Spec("digits@train", prior=str(world / "dit"), classes=CLASSES, device="cpu")
    teacher = {TAUGHT[name]: str(world / "teacher")} if name in TAUGHT else {}
    method = load_method(name, {**FAST.get(name, {}), **teacher})
    folders = distill_sets(Job(spec, Store(root / "cache")), name, method, (1, 2), root / name, engine=engine)
    return [open_distilled(folder).manifest["images"] for folder in folders]


EACH_KIND = ("rded", "d3hr", "minimax", "dmgd", "cgs")
"""Composed and sampled images; with a fit of each class, and of groups; made one after another, and together.

benchmarks/soak.py runs all methods."""


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("name", EACH_KIND)
def test_every_kind_of_method_makes_the_same_bytes(world: Path, tmp_path: Path, name: str) -> None:
    assert distilled(world, tmp_path / "ray", name, RAY) == distilled(world, tmp_path / "here", name, Engine())


@pytest.mark.usefixtures("cluster")
def test_evaluations_and_labels_are_the_same(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distilled(world, tmp_path, "random", Engine())
    folder, recipe = tmp_path / "random" / "ipc-002", named_recipe("quick", {"steps": 4, "flip": False})
    conditions = Conditions(("convnet3-w8",), (0, 1), device="cpu")
    reference, fkd = TeacherReference(str(world / "teacher")), named_recipe("fkd-soft-cifar", {"epochs": 3})

    def judged(engine: Engine) -> list[tuple[float, ...]]:
        store = Store(tmp_path / engine.engine)
        return [each.accuracies for each in evaluate_sets([folder], recipe, conditions, store=store, engine=engine)]

    def labels(engine: Engine) -> Any:
        out = tmp_path / f"labels-{engine.engine}"
        monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / engine.engine))
        relabel(Relabelling(folder, reference, fkd, "cpu"), out, say=quiet, engine=engine)
        return StoredLabels(out).manifest["shards"]

    assert judged(RAY) == judged(Engine())
    assert labels(RAY) == labels(Engine())


@dataclass(frozen=True, eq=False)
class Deadly:
    """An item that kills its process as often as it is told, and then waits until its node may go on."""

    root: Path
    number: int
    deaths: int = 0
    waits: bool = False

    @property
    def what(self) -> str:
        return f"item {self.number}"

    @property
    def wanted(self) -> Artefact:
        return Artefact("tile", {"number": self.number})

    @property
    def done(self) -> bool:
        return Store(self.root).has(self.wanted)

    def make(self) -> None:
        begun = self.root / f"begun-{self.number}-{os.getpid()}"
        node = ray.get_runtime_context().get_node_id()
        begun.write_text(node)
        if len(list(self.root.glob(f"begun-{self.number}-*"))) <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        while self.waits and not (self.root / f"go-{node}").exists():
            time.sleep(0.05)
        Store(self.root).once(self.wanted, lambda scratch: (scratch / "x").touch())


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_costs_its_item_a_retry(tmp_path: Path) -> None:
    items = [Deadly(tmp_path, number, deaths=number) for number in range(3)]
    assert RAY.ahead(items, "cpu", silent) == []
    assert [len(list(tmp_path.glob(f"begun-{number}-*"))) for number in range(3)] == [1, 2, 3]


@pytest.mark.usefixtures("cluster")
def test_an_item_that_kills_every_worker_is_given_up_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attar.core.ray_workers.RESTARTS", 1)
    (lost,) = RAY.ahead([Deadly(tmp_path, 0, deaths=9), Deadly(tmp_path, 1)], "cpu", silent)
    assert str(lost.error).startswith("item 0: its worker, or the worker's node, died 2 times; if memory was short")
    assert Deadly(tmp_path, 1).done


def starved(root: Path) -> None:
    """Writes what is said of an item on a cluster that finds its memory short at all times, and ends every worker."""
    from ray.cluster_utils import Cluster

    from attar.core import ray_workers

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    short = {"memory_usage_threshold": 0.001, "memory_monitor_refresh_ms": 50}
    node = Cluster(initialize_head=True, head_node_args={**ABOUT, "_system_config": short})
    ray.init(address=node.address, log_to_driver=False, logging_level="ERROR")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    vars(ray_workers)["RESTARTS"] = 1
    with RAY.cluster():
        lost = RAY.ahead([Deadly(root, 0, waits=True)], "cpu", silent)
    (root / "said").write_text("".join(str(one.error) for one in lost))
    ray.shutdown()
    node.shutdown()


def test_an_item_whose_workers_end_at_the_memory_limit_is_named(tmp_path: Path) -> None:
    assert ended(starved, tmp_path) == 0
    said = (tmp_path / "said").read_text()
    assert said.startswith("item 0: its worker, or the worker's node, died 2 times; if memory was short, give an item")
    assert said.endswith("The same command goes on from here")


@pytest.mark.usefixtures("cluster")
def test_what_a_cluster_has_no_room_for_is_refused(tmp_path: Path) -> None:
    for engine, told in (
        (Engine("ray", item_cpus=3), "`item_cpus` 3: no node of the Ray cluster has more than 1"),
        (Engine("ray", item_gpus=0.5), "`item_gpus` 0.5: no node of the Ray cluster has more than 0"),
    ):
        with pytest.raises(AttarError, match=f"^{told}$"):
            engine.ahead([Deadly(tmp_path, 0)], "cpu", silent)


def test_a_lost_node_costs_its_item_a_retry(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers wait; the node of one is killed; its item ends on a node that is left."""
    monkeypatch.setattr("attar.core.ray_workers.IDLE", 0.5)
    node = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    items = [Deadly(tmp_path, number, waits=True) for number in range(3)]
    lost: list[Any] = []
    run = threading.Thread(target=lambda: lost.extend(RAY.ahead(items, "cpu", silent)), daemon=True)
    run.start()
    while run.is_alive() and len(list(tmp_path.glob("begun-*"))) < 3:
        time.sleep(0.05)
    assert node.node_id in {file.read_text() for file in tmp_path.glob("begun-*")}
    cluster.remove_node(node, allow_graceful=False)
    for other in {file.read_text() for file in tmp_path.glob("begun-*")} - {node.node_id}:
        (tmp_path / f"go-{other}").touch()
    run.join(60)
    assert not run.is_alive()
    assert lost == []
    assert all(item.done for item in items)
    assert len(list(tmp_path.glob("begun-*"))) == 4


def test_a_driver_that_is_stopped_goes_on_to_the_same_bytes(cluster: Any, world: Path, tmp_path: Path) -> None:
    from attar.core import ray_workers

    assert ray_workers._kept is not None
    ray_workers._kept.clear()  # the drivers need the room of this process's workers
    words = ["distill", "--data", "digits@train", "--prior", str(world / "dit"), "--classes", ",".join(CLASSES)]
    words += ["--method", "prior", "--ipc", "1", "--set", "sampler.steps=4", "--device", "cpu", "--out", "out"]
    on_ray = [*words, "--engine", "ray", "--ray-address", cluster.address, "--item-cpus", "1"]

    def run(name: str, words: list[str], *fatal: Any) -> int:
        (tmp_path / name).mkdir(exist_ok=True)
        return ended(command, tmp_path / name, words, *fatal)

    def images(name: str) -> dict[str, str]:
        images: dict[str, str] = open_distilled(tmp_path / name / "out").manifest["images"]
        return images

    assert run("here", words) == 0
    assert run("whole", on_ray) == 0
    assert images("whole") == images("here")
    stops = {signal.SIGINT: 128 + signal.SIGINT, signal.SIGKILL: -signal.SIGKILL}
    for (number, status), fatal in zip(stops.items(), moments(tmp_path / "whole", 2), strict=True):
        assert run(number.name, on_ray, *fatal, number) == status, fatal
        assert run(number.name, on_ray) == 0, fatal
        assert images(number.name) == images("here"), fatal
