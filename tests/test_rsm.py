"""RSM: its term held to the formula, what it does to samples, and that minimax stays what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toys import job_of, learnt, save_world

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.methods import load_method
from attar.methods.minimax.finetune import Tune
from attar.methods.minimax.loss import MinimaxLoss

CLASSES = ["ant", "bee"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_world(tmp_path_factory.mktemp("world"), CLASSES)


def fit_of(**changes: Any) -> Any:
    fields = {"batch": 4, "max_steps": 3, "monitor.times": 0, **changes}
    method: Any = load_method("rsm", {f"fit.{name}": value for name, value in fields.items()})
    return method.fit


def test_the_loss_is_the_diffusion_loss_and_the_size_of_the_predicted_latents(
    world: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, loss = job_of(world, store), MinimaxLoss.__call__
    told: list[float] = []
    sizes: list[float] = []

    def telling(self: MinimaxLoss, step: int) -> torch.Tensor:
        value = loss(self, step)
        told.append(float(value.detach()))
        z, _, times, noise, y = self._drawn(step)
        abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[times].float().view(-1, 1, 1, 1)
        noisy = abar.sqrt() * z + (1 - abar).sqrt() * noise
        with torch.no_grad():
            predicted = self.network(noisy, times, y)[:, : z.shape[1]]
        sizes.append(float(((noisy - (1 - abar).sqrt() * predicted) / abar.sqrt()).abs().mean()))
        return value

    monkeypatch.setattr(MinimaxLoss, "__call__", telling)
    for weight in (0.0, 0.5):
        learnt(job, fit_of(sparsity=weight, learning_rate=1e-12), [0, 1])
    assert [b - a for a, b in zip(told[:3], told[3:], strict=True)] == pytest.approx(
        [0.5 * x for x in sizes[:3]], rel=1e-4
    )


def test_the_term_moves_what_is_tuned(world: Path, store: Store) -> None:
    job = job_of(world, store)
    without, tuned = (learnt(job, fit_of(sparsity=weight), [0, 1]) for weight in (0.0, 0.5))
    assert any(not torch.equal(value, without[name]) for name, value in tuned.items())


def test_the_term_is_the_only_one_beside_the_diffusion_loss_and_minimax_has_none(world: Path, store: Store) -> None:
    fit = fit_of()
    assert (fit.representativeness, fit.diversity, fit.sparsity) == (0, 0, 0.004)
    assert "sparsity" not in job_of(world, store).to_config(Tune())


def test_a_weight_below_0_is_refused() -> None:
    with pytest.raises(AttarError, match=r"^fit.sparsity -0.1: must be 0 or more"):
        fit_of(sparsity=-0.1)
