"""FLOPs and speeds: counted and timed once in a process for networks of one structure, and for no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import save_tiny_dit

from attar.core import flops
from attar.core.flops import flops_of
from attar.core.store import Store
from attar.distillation import device_speed
from attar.distillation.device_speed import decoded_per_second, passes_per_second
from attar.distillation.outlook import measured
from attar.priors import load_prior

ONE = torch.zeros(1, 8, device="meta")


class Repeated(nn.Module):
    """Its layers do not say how often they are used; its settings do."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.config = {"times": times}
        self.layer = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.config["times"]):
            x = self.layer(x)
        return x


def test_what_differs_in_width_settings_or_input_is_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flops, "_COUNTED", {})
    assert flops_of(nn.Linear(8, 4, bias=False), ONE) == 2 * 8 * 4
    assert flops_of(nn.Linear(8, 16, bias=False), ONE) == 2 * 8 * 16
    assert flops_of(nn.Linear(8, 4, bias=False), torch.zeros(3, 8, device="meta")) == 3 * 2 * 8 * 4
    assert [flops_of(Repeated(times), ONE) for times in (1, 3)] == [2 * 64, 3 * 2 * 64]


def test_equal_structures_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    count, counted = flops.counted_flops, []
    monkeypatch.setattr(flops, "_COUNTED", {})
    monkeypatch.setattr(flops, "counted_flops", lambda call: counted.append(1) or count(call))  # type: ignore[func-returns-value]
    assert [flops_of(nn.Linear(8, 4, bias=False), ONE) for _ in range(3)] == [64] * 3
    assert counted == [1]


def test_each_batch_size_is_timed_once(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    monkeypatch.setattr(device_speed, "_TIMED", {})
    monkeypatch.setattr(device_speed, "timed", lambda call: taken.append(call) or float(len(taken)))  # type: ignore[func-returns-value]
    prior = load_prior(str(save_tiny_dit(tmp_path / "dit", None)), device="cpu", tile=1, store=store)
    two = prior.with_batch_size(2)
    assert [passes_per_second(each) for each in (prior, two, prior, two)] == [1 / 1, 2 / 2, 1 / 1, 2 / 2]
    assert decoded_per_second(prior.codec) == decoded_per_second(prior.codec) == 1 / 3
    assert len(taken) == 3


def test_the_memory_of_each_batch_size_is_its_own(tmp_path: Path, store: Store) -> None:
    prior = load_prior(str(save_tiny_dit(tmp_path / "dit", None)), device="cpu", tile=1, store=store)
    wide = replace(prior, batch_size=64)
    first, second, again = (measured(each, rate=1.0) for each in (prior, wide, prior))
    assert second.sampling > first.sampling
    assert again == first
