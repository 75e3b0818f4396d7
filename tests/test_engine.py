"""Who makes the items of a command: what an engine is told, and what it asks of a cluster."""

from __future__ import annotations

import pickle
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from toys import attar, save_folder, save_tiny_dit

from attar.core.engine import Engine, check_same
from attar.core.errors import AttarError
from attar.core.fingerprints import Artefact
from attar.core.progress import silent
from attar.core.store import Store
from attar.distillation.checks import planned
from attar.distillation.cluster_items import item_stages
from attar.job import Job, Spec
from attar.methods import load_method


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"ray_address": "auto"}, "`ray_address` auto: has no effect without `engine` ray"),
        ({"item_cpus": 1.0}, "`item_cpus` 1.0: has no effect without `engine` ray"),
        ({"engine": "ray", "item_cpus": 0.0}, "`item_cpus` 0: more than 0; 0.5 lets two items share a CPU"),
        ({"engine": "ray", "item_gpus": -1.0}, "`item_gpus` -1.0: a number of 0 or more"),
        (
            {"engine": "ray", "item_gpus": 1.5},
            "`item_gpus` 1.5: above 1 only whole numbers; Ray shares one device, not several",
        ),
        ({"engine": "rai"}, "`engine` = 'rai' (did you mean 'ray'?): must be one of local, ray"),
    ],
)
def test_what_an_engine_cannot_be_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(AttarError) as caught:
        Engine(**given)
    assert str(caught.value) == told


def test_an_engine_by_its_name() -> None:
    assert Engine.of("ray") == Engine("ray")
    assert Engine.of("local") == Engine.of(Engine()) == Engine()
    with pytest.raises(AttarError, match=r"^`engine` Ray \(did you mean 'ray'\?\): choose local or ray$"):
        Engine.of("Ray")


def test_without_ray_it_says_so_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    words = ("distill", "--data", "digits", "--method", "random", "--ipc", 1, "--out", "out")
    assert attar(monkeypatch, *words, "--engine", "ray", "--dry-run") == 2
    assert "--engine ray: Ray is not installed; `pip install attar[ray]`" in capsys.readouterr().err
    assert attar(monkeypatch, *words, "--item-gpus", "0.5") == 2
    assert "--item-gpus 0.5: has no effect without --engine ray" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_numbered_gpu_is_refused() -> None:
    with pytest.raises(AttarError, match=r"^`device` cuda:1: Ray gives each worker a GPU of its own; leave the number"):
        Engine("ray").check("cuda:1")
    Engine().check("cuda:1")


def test_a_job_travels_in_words_and_is_opened_once(tmp_path: Path) -> None:
    job = Job(Spec("digits", device="cpu"), Store(tmp_path / "cache"))
    assert len(job.images)
    sent = pickle.dumps(job)
    assert len(sent) < 2000
    there = pickle.loads(sent)
    assert (there.spec, there.store.root) == (job.spec, job.store.root)
    assert "images" not in vars(there)
    assert pickle.loads(sent) is there


def test_a_worker_that_would_make_other_bytes_is_refused() -> None:
    one, other = (Artefact("fit", {"latents": Artefact("latents", {"device": name})}) for name in ("cpu", "gpu"))
    check_same("it", [one], [one])
    told = r"^it: the worker on .* other bytes \(latents.device is gpu there, and cpu here\); start"
    with pytest.raises(AttarError, match=told):
        check_same("it", [one], [other])


@pytest.mark.parametrize(("name", "count"), [("d3hr", 3), ("prior", 0), ("minimax", 2)])
def test_items_together_make_all_of_a_run(tmp_path: Path, name: str, count: int) -> None:
    """Made here, one by one, in any order within a sequence, they leave nothing to be done."""
    data = save_folder(tmp_path / "data", ["a", "b", "c"], each=6)
    spec = Spec(str(data), str(save_tiny_dit(tmp_path / "dit", ["a", "b", "c"])), device="cpu", tile=1)
    every: dict[str, dict[str, Any]] = {
        "d3hr": {"sampler.steps": 5, "fit.steps": 5, "subsets": 9},
        "prior": {"sampler.steps": 3},
        "minimax": {
            "sampler.steps": 5,
            "sampler.guided_channels": "none",
            "select.pool": 3,
            "fit.group": 2,
            "fit.batch": 4,
            "fit.max_steps": 2,
            "fit.monitor.times": 0,
        },
    }
    job, method = Job(spec, Store(tmp_path / "cache")), load_method(name, every[name])
    plan = planned(job, name, method, (1, 2), tmp_path / "out", lambda text: None)
    fits, samples = item_stages(plan, (1, 2))
    assert len(fits) == count
    for items in (fits, samples):
        for item in reversed(items):
            item.make()
            assert item.done
    wanted = [artefact for ipc in (1, 2) for artefact in plan.artefacts[ipc].stored]
    assert all(map(job.store.has, wanted))
    assert Engine().ahead(samples, "cpu", silent) == []


def test_a_cluster_that_does_not_answer_is_named_within_seconds() -> None:
    ray_workers = pytest.importorskip("attar.core.ray_workers")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(AttarError, match=f"^`ray_address` {address}: nothing answers .*; `ray start` makes a cluster$"):
        Engine("ray", ray_address=address).cluster().__enter__()
    assert ray_workers.PATIENCE < 10
