"""Rectified flow: a straight path walked as velocity prediction, trained, saved, loaded again, and adapted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiTPipeline, DiTTransformer2DModel, FlowMatchEulerDiscreteScheduler
from test_train_prior import QUICK, TINY, spec, weights
from torch import Tensor
from toys import GaussianPrior, linear_schedule, save_folder, save_tiny_dit, save_tiny_sd, with_flow

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.diffusion import (
    CHECKPOINT,
    Denoiser,
    FixedPoint,
    Sampler,
    grid,
    invert,
    inverted,
    sample,
    sampling_times,
    schedule_of,
)
from attar.diffusion.loss import forward_of
from attar.diffusion.straight import FLOW, shares_of_noise, velocity
from attar.priors import load_prior
from attar.priors.describe import prior_in_words
from attar.priors.prior import Prior
from attar.priors.shared_embedders import share_embedders
from attar.priors.training.finetune import finetune_prior
from attar.priors.training.run import train_new_prior
from attar.priors.training.settings import AdaptedPrior, Denoising, Training
from attar.priors.unread import unread_prior

MEAN, STD = torch.tensor([0.6, -0.8, 0.0]), torch.tensor([0.5, 0.2, 1.1])
LABELS = torch.tensor([0, 1, 2, 0])
CPU = torch.device("cpu")


class StraightGaussian(GaussianPrior):
    """Class y is N(mean[y], std[y]^2): the best network of the straight path is known, and called as a prior's is."""

    def __init__(self) -> None:
        super().__init__(MEAN, STD)
        self.schedule = schedule_of(FlowMatchEulerDiscreteScheduler())

    def flow(self, z: Tensor, share: Tensor, y: Tensor) -> Tensor:
        """E[noise - z_0 | z] at shares of noise (N,), for latents on the path."""
        s = share.view(-1, 1, 1, 1)
        mean, std = (table[y].reshape(-1, 1, 1, 1) for table in (MEAN, STD))
        return -mean + (s - (1 - s) * std**2) / ((1 - s) ** 2 * std**2 + s**2) * (z - (1 - s) * mean)

    def __call__(self, z: Tensor, t: int, y: Tensor) -> Tensor:
        self.calls += 1
        return velocity(lambda path, time: self.flow(path, time / 1000, y), z, torch.full((len(z),), t))


def clean(n: int = 4) -> Tensor:
    z = torch.randn(n, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    return MEAN[LABELS].reshape(-1, 1, 1, 1) + STD[LABELS].reshape(-1, 1, 1, 1) * z


@pytest.mark.parametrize("t", [0, 50, 499, 500, 900, 998])
def test_the_noise_that_a_straight_network_means_is_the_gaussians(t: int) -> None:
    prior, z = StraightGaussian(), clean()
    expected = GaussianPrior.__call__(prior, z, t, LABELS)
    torch.testing.assert_close(prior.schedule.epsilon(prior(z, t, LABELS), z, t), expected, rtol=1e-3, atol=1e-4)


def sampling_error(steps: int, solver: str = "ddim", spacing: str = "leading", t: int = 900) -> float:
    prior, z = StraightGaussian(), clean()
    made = sample(prior, prior.at(z, t, LABELS), t, LABELS, Sampler(solver, steps, guidance=1, spacing=spacing))
    return float((made - z).abs().max())


def inversion_error(steps: int, t: int = 600) -> float:
    prior, z = StraightGaussian(), clean()
    times = [time for time in grid(steps) if time <= t]
    return float((invert(prior, z, LABELS, times) - prior.at(z, t, LABELS)).abs().max())


@pytest.mark.parametrize("error", [sampling_error, inversion_error])
def test_its_exact_flow_is_reached_as_steps_grow(error: Callable[[int], float]) -> None:
    coarse, fine, finest = error(10), error(100), error(500)
    assert finest < 0.03
    assert finest < fine / 2 < coarse / 4


@pytest.mark.parametrize("solver", ["dpm++", "DEISMultistepScheduler", "UniPCMultistepScheduler"])
def test_solvers_of_any_schedule_walk_it(solver: str) -> None:
    fine, coarse = (sampling_error(steps, solver, "trailing", t) for steps, t in ((100, 899), (20, 899)))
    assert fine < min(0.1, coarse)


def test_exact_inversion_is_undone_by_sampling() -> None:
    prior, z = StraightGaussian(), clean()
    there = list(inverted(prior, z, LABELS, grid(20)[:13], guidance=4, exact=FixedPoint(tolerance=1e-6)))
    back = sample(prior, there[-1].z, 600, LABELS, Sampler(steps=20, guidance=4))
    assert float((back - z).norm() / z.norm()) < 1e-4


@pytest.mark.parametrize("steps", [4, 10, 28])
def test_the_solver_of_the_checkpoint_is_diffusers_euler_on_the_straight_path(steps: int) -> None:
    """At numbers of steps whose times are whole in diffusers, too."""
    prior, scheduler = StraightGaussian(), FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(steps)
    z = theirs = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        theirs = scheduler.step(prior.flow(theirs, (t / 1000).expand(4), LABELS), t, theirs).prev_sample
    sampler = Sampler(CHECKPOINT, steps, guidance=1)
    times = sampling_times(sampler, prior)
    assert [time + 1 for time in times[::-1]] == [round(t) for t in scheduler.timesteps.tolist()]
    ours = sample(prior, z, times[-1], LABELS, sampler)
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3)
    assert prior.calls == steps


def test_the_loss_is_that_of_noise_less_latents() -> None:
    forward = forward_of(FlowMatchEulerDiscreteScheduler(), CPU)
    z, noise, predicted = (torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(k)) for k in range(3))
    times = torch.tensor([0, 3, 300, 500, 998])
    s = shares_of_noise(times).view(-1, 1, 1, 1)
    noisy = forward.noised(z, times, noise)

    def network(path: Tensor, time: Tensor) -> Tensor:
        torch.testing.assert_close(path, (1 - s) * z + s * noise, rtol=1e-4, atol=1e-5)
        assert time.tolist() == pytest.approx([1.0, 4.0, 301.0, 501.0, 999.0])
        return predicted

    terms = forward.terms(velocity(network, noisy, times), z, noisy, noise, times, min_snr=5.0)
    torch.testing.assert_close(terms.loss, (predicted - (noise - z)).pow(2).mean((1, 2, 3)), rtol=1e-4, atol=1e-4)
    perfect = velocity(lambda *_: noise - z, noisy, times)
    torch.testing.assert_close(forward.clean(perfect, noisy, times)[:4], z[:4], rtol=1e-4, atol=1e-4)


def test_times_of_a_training_are_logit_normal() -> None:
    times = forward_of(FlowMatchEulerDiscreteScheduler(), CPU).times(20_000, torch.Generator().manual_seed(0))
    logits = ((times + 0.5) / 1000).logit()
    assert abs(float(logits.mean())) < 0.03
    assert abs(float(logits.std()) - 1) < 0.03
    assert 0 <= int(times.min()) < int(times.max()) <= 999


def network_of(prior: Prior) -> Any:
    return prior.network


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("images"), ["cat", "dog"], 12)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out, root = tmp_path_factory.mktemp("flow") / "prior", tmp_path_factory.mktemp("cache")
    training = replace(TINY, prediction="flow")
    train_new_prior(spec(data, training=training), out, store=Store(root), say=lambda _: None)
    return out


def test_a_flow_prior_is_loaded_as_one(trained: Path, store: Store) -> None:
    prior = load_prior(str(trained), device="cpu", store=store)
    assert prior.schedule.straight
    config = json.loads((trained / "scheduler" / "scheduler_config.json").read_text())
    assert config["_class_name"] == FLOW
    assert "flow: noise - z on a straight path" in prior_in_words(prior)
    assert "knows no such scheduler" in (trained / "README.md").read_text()
    assert DiTPipeline.from_pretrained(trained, vae=None).scheduler.config["_class_name"] == FLOW
    assert not [field for field in (prior.schedule.scheduler or ("", {}))[1] if field.startswith("_")]
    plain = DiTTransformer2DModel.from_pretrained(trained / "transformer").eval()
    z, y = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2])

    def network(path: Tensor, times: Tensor) -> Tensor:
        output: Tensor = plain(path, timestep=times, class_labels=y).sample
        return output

    with torch.no_grad():
        expected = velocity(network, z, torch.full((2,), 300))
        torch.testing.assert_close(prior(z, 300, y), expected, rtol=1e-4, atol=1e-5)
        tuned: Any = share_embedders(network_of(prior).transformer, "prior")
        torch.testing.assert_close(tuned(z, torch.full((2,), 300), y), expected, rtol=1e-4, atol=1e-5)
    unread = unread_prior(str(trained), "cpu", "float32", 1)
    assert unread.schedule.straight
    assert unread.network(z.to("meta"), torch.full((2,), 300, device="meta"), y.to("meta")).shape == z.shape
    assert network_of(unread).transformer.on_straight_path


def test_its_samples_are_measured_by_its_own_solver(
    data: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []

    def noted(denoiser: Denoiser, z: Tensor, t: int, y: Tensor, sampler: Sampler) -> Tensor:
        seen.append((sampler.solver, t))
        return sample(denoiser, z, t, y, sampler)

    monkeypatch.setattr("attar.priors.training.monitor.sample", noted)
    for prediction in ("flow", "v_prediction"):
        training = replace(TINY, steps=2, prediction=prediction)
        train_new_prior(spec(data, training=training), tmp_path / prediction, store=store, say=lambda _: None)
    assert list(dict.fromkeys(seen)) == [(CHECKPOINT, 999), ("ddim", 500)]


def test_the_same_weights_are_another_prior(tmp_path: Path, store: Store) -> None:
    folders = [save_tiny_dit(tmp_path / name, None, learned_sigma=False) for name in ("a", "b")]
    with_flow(folders[1])
    noise_key, flow_key = (load_prior(str(folder), device="cpu", store=store).key for folder in folders)
    assert noise_key != flow_key


@pytest.mark.parametrize("adapt", ["all", "difffit"])
def test_an_adapted_flow_stays_one(trained: Path, data: Path, tmp_path: Path, store: Store, adapt: str) -> None:
    training = Denoising(steps=3, batch=4, learning_rate=1e-3, warmup=1)
    asked: dict[str, Any] = {"prior": str(trained), "adapt": adapt, "training": training}
    adapted = AdaptedPrior(str(data), device="cpu", report=QUICK, **asked)
    finetune_prior(adapted, tmp_path / "out", store=store, say=lambda _: None)
    assert load_prior(str(tmp_path / "out"), device="cpu", store=store).schedule.straight
    before, after = weights(trained), weights(tmp_path / "out")
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_what_is_no_plain_flow_of_a_dit_is_refused(tmp_path: Path, store: Store) -> None:
    def opened(folder: Path) -> None:
        load_prior(str(folder), device="cpu", store=store)

    with pytest.raises(AttarError, match="it predicts a variance, too, which a rectified flow"):
        opened(with_flow(save_tiny_dit(tmp_path / "a", None)))
    with pytest.raises(AttarError, match=r"scheduler_config\.json has shift 3\.0; of FlowMatch.* only the plain one"):
        opened(with_flow(save_tiny_dit(tmp_path / "b", None, learned_sigma=False), shift=3.0))
    newer = with_flow(save_tiny_dit(tmp_path / "d", None, learned_sigma=False))
    config = newer / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "bent_by": "a newer diffusers"}))
    with pytest.raises(AttarError, match="has bent_by 'a newer diffusers'; of FlowMatch"):
        opened(newer)
    with pytest.raises(AttarError, match="of rectified flows only DiTs are supported"):
        opened(with_flow(save_tiny_sd(tmp_path / "c")))
    with pytest.raises(AttarError, match="`prediction` flow: it has no variance to learn"):
        Training(prediction="flow", learned_sigma=True)


def test_other_schedules_are_not_straight(tmp_path: Path, store: Store) -> None:
    prior = load_prior(str(save_tiny_dit(tmp_path / "dit", None)), device="cpu", store=store)
    assert not prior.schedule.straight
    assert not linear_schedule().straight
