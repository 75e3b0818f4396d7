from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import save_tiny_dit

from attar.core.batching import choose, exact, in_batches, resolve
from attar.core.errors import AttarError
from attar.core.store import Store
from attar.priors import load_prior


def test_networks_see_tiles_only() -> None:
    seen: list[int] = []

    def network(x: Tensor) -> Tensor:
        seen.append(len(x))
        return 2 * x

    rows = torch.arange(10.0)[:, None]
    assert torch.equal(in_batches(network, 4, rows), 2 * rows)
    assert seen == [4, 4, 4]


def test_a_network_whose_rows_depend_on_their_company_is_not_exact() -> None:
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    assert exact(lambda x: x * 3, rows)
    assert not exact(lambda x: x - x.mean(0), rows)
    assert not exact(lambda x: x * torch.arange(len(x))[:, None], rows)


def test_the_first_exact_tile_is_chosen() -> None:
    assert choose(torch.device("cpu"), lambda tile: True) == 16
    assert choose(torch.device("cpu"), lambda tile: tile == 4) == 4
    assert choose(torch.device("cpu"), lambda tile: False) == 1


def test_a_tile_that_does_not_fit_in_memory_is_passed_over() -> None:
    def exact_at(tile: int) -> bool:
        if tile > 8:
            raise torch.OutOfMemoryError
        return True

    assert choose(torch.device("cuda"), exact_at) == 8


def test_a_rows_bytes_do_not_depend_on_its_company(tmp_path: Path, store: Store) -> None:
    prior = load_prior(str(save_tiny_dit(tmp_path / "dit", None)), device="cpu", store=store)
    z = torch.randn(37, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(37) % 10
    whole, images = prior(z, 500, y), prior.codec.decode(z)
    for index in (0, 17, 36):
        one = slice(index, index + 1)
        assert torch.equal(prior(z[one], 500, y[one])[0], whole[index])
        assert torch.equal(prior.codec.decode(z[one])[0], images[index])
        mean, _ = prior.codec.encode(images[one])
        assert torch.equal(mean[0], prior.codec.encode(images)[0][index])


@pytest.mark.parametrize(
    ("device", "dtype", "said"),
    [("cuda:99", "auto", "`device`"), ("nonsense", "auto", "`device`"), ("cpu", "int8", "`dtype`")],
)
def test_unusable_devices_and_formats_are_refused(device: str, dtype: str, said: str) -> None:
    with pytest.raises(AttarError, match=said):
        resolve(device, dtype)
