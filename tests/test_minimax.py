"""Minimax Diffusion: its criteria, its fine-tuning, its samples."""

from __future__ import annotations

import collections
import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toys import job_of, learnt, original_dit, recorded, save_folder, save_tiny_dit, under_original_names

from attar.core.errors import AttarError
from attar.core.files import read_lines
from attar.core.rng import generator
from attar.core.store import Store
from attar.diffusion.loss import Forward
from attar.distillation.artefacts import artefacts, fit_artefact
from attar.distillation.run import distill_sets
from attar.job import Job
from attar.methods import load_method
from attar.methods.minimax.criteria import Memory, diversity, representativeness
from attar.methods.minimax.loss import MinimaxLoss
from attar.methods.minimax.measures import measures, neighbourhoods
from attar.methods.minimax.monitor import MEASURES
from attar.priors.shared_embedders import share_embedders
from attar.priors.training.adaptors import DiffFit
from attar.priors.training.latent_set import held_in_memory
from attar.sets.distilled import open_distilled

CLASSES = ["ant", "bee", "cat", "dog"]
FAST: dict[str, Any] = {
    "fit.batch": 4,
    "fit.max_steps": 8,
    "fit.monitor.times": 0,
    "sampler.steps": 4,
    "sampler.guided_channels": "none",
    "select.pool": 4,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("minimax")
    save_folder(root / "data", CLASSES, each=12)
    save_tiny_dit(root / "dit", CLASSES)
    return root


def fit_of(**changes: Any) -> Any:
    method: Any = load_method("minimax", {**FAST, **{f"fit.{name}": value for name, value in changes.items()}})
    return method.fit


@pytest.mark.golden
def test_terms_and_gradients_are_those_of_the_reference_at_every_step() -> None:
    golden, _, facts = recorded("minimax_criteria")
    features = golden["step0.pred"][0].numel()
    real, generated = (Memory.empty(3, int(facts["memory_size"]), features) for _ in range(2))
    for step in range(8):
        pred = golden[f"step{step}.pred"].clone().requires_grad_()
        labels = golden[f"step{step}.label"]
        pos = float(facts["lambda_pos"]) * representativeness(pred, labels, real)
        neg = float(facts["lambda_neg"]) * diversity(pred, labels, generated)
        gradient = torch.zeros_like(pred)
        if step:
            (gradient,) = torch.autograd.grad(pos + neg, pred)
        for found, name in ((pos, "pos"), (neg, "neg"), (gradient, "grad")):
            torch.testing.assert_close(found, golden[f"step{step}.{name}"].reshape(found.shape), rtol=1e-5, atol=1e-8)
        real.add(golden[f"step{step}.real"], labels)
        generated.add(pred, labels)


@pytest.mark.golden
def test_the_predicted_clean_latents_are_those_of_the_reference() -> None:
    golden, weights, sizes = recorded("minimax_dit")
    z, t, y, noise = (golden[name] for name in ("z", "t", "y", "noise"))
    forward = Forward(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
    noisy = forward.noised(z, t, noise)
    clean = forward.clean(original_dit(weights, noisy, t, y, int(sizes["num_heads"])), noisy, t)
    torch.testing.assert_close(clean, golden["x0"], rtol=1e-4, atol=1e-4)


def test_a_memory_holds_the_last_ones_of_each_class_first_in_first_out() -> None:
    draw = torch.Generator().manual_seed(0)
    memory = Memory.empty(3, 4, 6)
    plain: dict[int, Any] = {label: collections.deque(maxlen=4) for label in range(3)}
    for size in (1, 7, 2, 11, 5):
        z, labels = torch.randn(size, 6, 1, 1, generator=draw), torch.randint(2, (size,), generator=draw)
        memory.add(z, labels)
        for row, label in zip(F.normalize(z.flatten(1)), labels.tolist(), strict=True):
            plain[label].append(row)
        for label, kept in plain.items():
            found = memory.units[label][: min(int(memory.seen[label]), 4)]
            assert sorted(map(tuple, found.tolist())) == sorted(tuple(row.tolist()) for row in kept)


def brute(real: Tensor, generated: Tensor, k: int) -> dict[str, float]:
    """Naeem et al., 2020, in loops, its neighbours from scikit-learn."""
    from sklearn.neighbors import NearestNeighbors

    def radii(points: np.ndarray) -> np.ndarray:
        radius: np.ndarray = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[0][:, -1]
        return radius

    x, y = real.double().numpy(), generated.double().numpy()
    rx, ry = radii(x), radii(y)
    apart = np.linalg.norm(x[:, None] - y[None], axis=2)
    return {
        "precision": float(np.mean([any(apart[i, j] < rx[i] for i in range(len(x))) for j in range(len(y))])),
        "recall": float(np.mean([any(apart[i, j] < ry[j] for j in range(len(y))) for i in range(len(x))])),
        "density": float(sum(apart[i, j] < rx[i] for i in range(len(x)) for j in range(len(y))) / (k * len(y))),
        "coverage": float(np.mean([apart[i].min() < rx[i] for i in range(len(x))])),
    }


@pytest.mark.parametrize("shift", [0.0, 0.7, 30.0])
def test_neighbourhoods_are_those_of_a_second_implementation(shift: float) -> None:
    draw = torch.Generator().manual_seed(0)
    real, generated = torch.randn(40, 3, generator=draw), torch.randn(25, 3, generator=draw) * 0.6 + shift
    assert neighbourhoods(real, generated, 3) == pytest.approx(brute(real, generated, 3))
    if shift == 30:
        assert set(neighbourhoods(real, generated, 3).values()) == {0.0}


def test_measures_know_a_collapsed_class() -> None:
    draw = torch.Generator().manual_seed(0)
    real = [torch.randn(60, 2, 2, 2, generator=draw) for _ in range(2)]
    varied = [torch.randn(20, 2, 2, 2, generator=draw) for _ in range(2)]
    collapsed = [v[:1] + 0.01 * torch.randn(20, 2, 2, 2, generator=draw) for v in varied]
    good, bad = (measures(real, made, 64) for made in (varied, collapsed))
    assert good["coverage"] > bad["coverage"]
    assert good["recall"] > bad["recall"]
    assert good["nearest"] < 0.99 < bad["nearest"]


def test_images_are_taken_in_turn_or_evenly() -> None:
    labels = torch.tensor([0] * 90 + [1] * 9 + [2])
    data = held_in_memory(torch.zeros(100, 1, 1, 1), labels)
    epoch = torch.cat([data.in_turn(8, step, 0) for step in range(12)])
    assert len(epoch.unique()) == 96
    assert not torch.equal(data.in_turn(8, 0, 0), data.in_turn(8, 12, 0))
    taken = labels[data.evenly(3000, generator("evenly"))].bincount()
    assert (taken - 1000).abs().max() < 100
    assert len(data.evenly(3000, generator("evenly")).unique()) > 95


def test_groups_and_steps() -> None:
    fit = fit_of(group=3, epochs=2, max_steps="none")
    assert fit.groups(range(7)) == [[0, 1], [2, 3], [4, 5, 6]]
    assert fit.training_steps([5, 6]) == 4
    assert fit_of(epochs=2, max_steps=3).training_steps([5, 6]) == 3
    with pytest.raises(AttarError, match=r"fit.batch 4: more than the 2 images"):
        fit.training_steps([1, 1])
    usual: Any = load_method("minimax")
    assert len(usual.fit.groups(range(1000))) == 50


def test_without_the_criteria_it_is_plain_fine_tuning(world: Path, store: Store) -> None:
    job = job_of(world, store)
    fit = fit_of(representativeness=0.0, diversity=0.0, balanced=True, label_dropout=0.0, ema_decay=0.5)
    tuned = learnt(job, fit, [0, 1])
    network = share_embedders(job.prior.network.transformer, "").requires_grad_(False)
    data = fit.data(job, [0, 1])
    forward = Forward(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
    adaptor = DiffFit.of(network)
    average: dict[str, Tensor] = {name: value.detach().clone() for name, value in adaptor.values.items()}
    optimiser = torch.optim.AdamW(adaptor.parameters(), lr=1e-3, weight_decay=0.0)
    with adaptor.attached(network):
        for step in range(8):
            draw = generator(0, "minimax", step)
            z, labels = data.take(data.evenly(4, draw), draw)
            times, noise = torch.randint(1000, (4,), generator=draw), torch.randn(z.shape, generator=draw)
            noisy = forward.noised(z, times, noise)
            loss = forward.terms(network(noisy, times, labels), z, noisy, noise, times).loss.mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            for name, value in adaptor.values.items():
                decay = min(0.5, (1 + step) / (10 + step))
                average[name].lerp_(value.detach(), 1 - decay)
    assert set(tuned) == set(average)
    for name, kept in average.items():
        if not name.endswith("to_k.bias"):  # attention does not depend on it: its gradients are rounding errors
            torch.testing.assert_close(tuned[name], kept, rtol=1e-4, atol=1e-5)
    fresh = DiffFit.of(share_embedders(job.prior.network.transformer, "")).values
    assert any((tuned[name] - value).abs().max() > 1e-3 for name, value in fresh.items())


@pytest.mark.parametrize("criterion", ["representativeness", "diversity"])
def test_a_weight_adds_its_criterion_to_the_loss(
    world: Path, store: Store, monkeypatch: pytest.MonkeyPatch, criterion: str
) -> None:
    job, loss = job_of(world, store), MinimaxLoss.__call__
    told: list[float] = []

    def telling(self: Any, step: int) -> Tensor:
        value = loss(self, step)
        told.append(float(value.detach()))
        return value

    monkeypatch.setattr(MinimaxLoss, "__call__", telling)
    still = {"representativeness": 0.0, "diversity": 0.0, "max_steps": 6, "learning_rate": 1e-12}
    for weight in (0.0, 3.0):
        fit = fit_of(
            **{
                **still,
                criterion: weight,
                "monitor.times": 2,
                "monitor.steps": 1,
                "monitor.samples": 6,
                "monitor.real": 6,
            }
        )
        learnt(job, fit, [0, 1])
    look = read_lines(job.store.path(fit_artefact(job, fit, [0, 1])) / MEASURES)[-1]
    assert look[criterion] > 0.05
    assert (sum(told[6:]) - sum(told[:6])) / 6 == pytest.approx(3 * look[criterion], rel=1e-4)


class Stop(Exception):
    pass


def test_a_killed_fine_tuning_ends_with_the_same_weights(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attar.priors.training.optimise.CHECKPOINT_SECONDS", 0.0)
    fit = fit_of(memory=3, representativeness=5.0, diversity=5.0)
    whole = learnt(job_of(world, Store(tmp_path / "whole")), fit, [0, 1])
    job, loss = job_of(world, Store(tmp_path / "killed")), MinimaxLoss.__call__
    begun: list[int] = []

    def dying(self: Any, step: int) -> Tensor:
        begun.append(step)
        if len(begun) in (4, 7):
            raise Stop
        return loss(self, step)

    monkeypatch.setattr(MinimaxLoss, "__call__", dying)
    for _ in range(2):
        with pytest.raises(Stop):
            learnt(job, fit, [0, 1])
    resumed = learnt(job, fit, [0, 1])
    assert begun == [0, 1, 2, 3, 3, 4, 5, 5, 6, 7]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("adapt", ["difffit", "bitfit", "lora"])
def test_the_adaptor_changes_the_prior_only_while_it_is_attached(world: Path, store: Store, adapt: str) -> None:
    if adapt == "lora":
        pytest.importorskip("peft")
    job = job_of(world, store)
    fit = fit_of(adapt=adapt, rank=2, learning_rate=0.05)
    z, y = torch.randn(2, 4, 8, 8, generator=generator("z")), torch.tensor([0, 1])
    before, weights = job.prior(z, 300, y), copy.deepcopy(job.prior.network.state_dict())
    fitted = learnt(job, fit, [0, 1])
    assert sum(value.numel() for value in fitted.values()) < sum(value.numel() for value in weights.values())
    with fit.adapted(job.prior, fitted) as prior:
        within = prior(z, 300, y)
    assert (within - before).abs().max() > 0.01
    assert torch.equal(job.prior(z, 300, y), before)
    after = job.prior.network.state_dict()
    assert list(after) == list(weights)
    assert all(torch.equal(after[name], value) for name, value in weights.items())


def test_bitfit_trains_what_the_reference_marks_for_it(world: Path, store: Store) -> None:
    """Its names that contain `bias`: all but the label table and the scales of DiffFit's."""
    fitted = learnt(job_of(world, store), fit_of(adapt="bitfit"), [0, 1])
    of_difffit = DiffFit.of(share_embedders(job_of(world, store).prior.network.transformer, "tiny")).values
    bitfit, difffit = set(under_original_names(fitted)), set(under_original_names(of_difffit))
    assert bitfit == {name for name in difffit if "bias" in name}
    assert len(bitfit) == len(difffit) - 1 - 4 * 2


def test_a_group_is_tuned_on_its_own_classes_with_the_priors_labels(world: Path, store: Store) -> None:
    job = job_of(world, store, classes=("dog", "bee"))
    fitted = learnt(job, fit_of(label_dropout=0.0, learning_rate=0.05), [0, 1])
    name = "embedder.class_embedder.embedding_table.weight"
    transformer: Any = job.prior.network.transformer
    table = transformer.transformer_blocks[0].norm1.emb.class_embedder.embedding_table.weight
    moved = (fitted[name] - table).abs().amax(1) > 1e-6
    assert [CLASSES[row] for row in moved.nonzero().flatten().tolist()] == ["bee", "dog"]


def test_sets_of_smaller_ipc_are_the_beginnings_of_one_pool(world: Path, tmp_path: Path, store: Store) -> None:
    spec = job_of(world, store).spec
    small, large = distill_sets(Job(spec, store), "minimax", load_method("minimax", FAST), [1, 3], tmp_path / "out")
    one, three = open_distilled(small), open_distilled(large)
    for few, many in zip(one.files(), three.files(), strict=True):
        assert [few[0].read_bytes()] == [many[0].read_bytes()]
    job = Job(spec, store)
    method: Any = load_method("minimax", FAST)
    assert job.store.has(artefacts(job, method, 3).candidates[0])


def test_the_report_shows_how_the_prior_was_tuned(world: Path, tmp_path: Path, store: Store) -> None:
    from attar.report import write_report

    looks = {
        "fit.monitor.times": 3,
        "fit.monitor.steps": 2,
        "fit.monitor.samples": 6,
        "fit.monitor.real": 6,
        "fit.group": 2,
    }
    spec = job_of(world, store).spec
    (folder,) = distill_sets(
        Job(spec, store), "minimax", load_method("minimax", {**FAST, **looks}), [2], tmp_path / "out"
    )
    groups = open_distilled(folder).manifest["measures"]
    assert [group["classes"] for group in groups] == [["ant", "bee"], ["cat", "dog"]]
    assert [look["step"] for look in groups[0]["looks"]] == [0, 4, 8]
    write_report([folder], [], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    first, last = (np.mean([group["looks"][i]["coverage"] for group in groups]) for i in (0, -1))
    assert f"{first:.2f} → {last:.2f}" in page


def test_another_monitor_tunes_nothing_again(world: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attar.priors.training.optimise.CHECKPOINT_SECONDS", 0.0)
    looks = {"monitor.times": 2, "monitor.steps": 1, "monitor.samples": 6, "monitor.real": 6}
    looked, unseen = fit_of(**looks), fit_of()
    whole = learnt(job_of(world, Store(store.root / "whole")), looked, [0, 1])
    job, loss = job_of(world, store), MinimaxLoss.__call__
    begun: list[int] = []

    def dying(self: Any, step: int) -> Tensor:
        begun.append(step)
        if len(begun) == 4:
            raise Stop
        return loss(self, step)

    monkeypatch.setattr(MinimaxLoss, "__call__", dying)
    with pytest.raises(Stop):
        learnt(job, unseen, [0, 1])
    resumed = learnt(job, looked, [0, 1])
    assert begun == [0, 1, 2, 3, 3, 4, 5, 6, 7]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert fit_artefact(job, looked, [0, 1]).key == fit_artefact(job, unseen, [0, 1]).key
    assert fit_artefact(job, looked, [0, 1]).key != fit_artefact(job, fit_of(memory=3), [0, 1]).key


def test_bad_settings_are_refused_before_any_work(world: Path, store: Store, tmp_path: Path) -> None:
    for changes, message in (
        ({"fit.diversity": -1}, "fit.diversity -1"),
        ({"fit.batch": 0}, "fit.batch 0"),
        ({"fit.monitor.times": 1}, "fit.monitor.times 1"),
        ({"fit.monitor.samples": 5}, "fit.monitor.samples 5"),
        ({"fit.max_steps": 0}, "fit.max_steps 0"),
        ({"fit.monitor.steps": 0}, "fit.monitor.steps 0"),
        ({"fit.monitor.guidance": "nan"}, "`fit.monitor.guidance` nan"),
        ({"fit.learning_rate": "nan"}, "fit.learning_rate nan"),
        ({"fit.ema_decay": 1}, "fit.ema_decay 1"),
        ({"fit.label_dropout": -1}, "fit.label_dropout -1"),
        ({"select.pool": -1}, "select.pool -1"),
    ):
        with pytest.raises(AttarError, match=message):
            load_method("minimax", changes)
    with pytest.raises(AttarError, match=r"fit.batch 64: more than the 48 images"):
        distill_sets(
            Job(job_of(world, store).spec, store),
            "minimax",
            load_method("minimax", {**FAST, "fit.batch": 64}),
            [1],
            tmp_path / "out",
        )


def test_float16_samples_and_does_not_train(world: Path, store: Store, tmp_path: Path) -> None:
    spec = replace(job_of(world, store).spec, dtype="float16")
    (folder,) = distill_sets(Job(spec, store), "prior", load_method("prior", {"sampler.steps": 4}), [1], tmp_path / "a")
    assert open_distilled(folder).manifest["compute"]["dtype"] == "float16"
    with pytest.raises(AttarError, match="`dtype` float16: gradients vanish in it; train in bfloat16 or float32"):
        distill_sets(Job(spec, store), "minimax", load_method("minimax", FAST), [1], tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_prior_that_cannot_be_tuned_is_refused(world: Path, store: Store, tmp_path: Path) -> None:
    class Other(torch.nn.Module):
        pass

    with pytest.raises(AttarError, match="fit tunes DiTs only, and this prior is a Other"):
        fit_of().check(replace(job_of(world, store).prior, network=Other()))
    save_tiny_dit(tmp_path / "untied", CLASSES, tied=False)
    spec = replace(job_of(world, store).spec, prior=str(tmp_path / "untied"))
    with pytest.raises(AttarError, match="the embedders of the prior's blocks differ"):
        distill_sets(Job(spec, store), "minimax", load_method("minimax", FAST), [1], tmp_path / "out")
