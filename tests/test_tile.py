from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toys import save_tiny_dit

from attar.core.batching import CPU_FILLED, Probe, calls, choose, exact, in_batches, resolve
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


@pytest.mark.parametrize(
    ("variable", "instructions", "meant"),
    [("", True, torch.bfloat16), ("", False, torch.float32), ("float32", True, torch.float32),
     ("bfloat16", False, torch.bfloat16)],
)  # fmt: skip
def test_what_auto_means_on_a_cpu_goes_by_its_instructions_or_by_a_variable(
    variable: str, instructions: bool, meant: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTAR_CPU_DTYPE", variable)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": instructions}, raising=False)
    assert resolve("cpu", "auto") == (torch.device("cpu"), meant)
    assert resolve("cpu", "float32")[1] == torch.float32


def test_a_variable_that_names_no_format_of_a_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTAR_CPU_DTYPE", "half")
    with pytest.raises(AttarError, match="ATTAR_CPU_DTYPE is half"):
        resolve("cpu", "auto")


class Costly:
    """Calls a network of this many FLOPs a row, exact at every size; notes the sizes that were tried."""

    weights = torch.float32

    def __init__(self, flops: int) -> None:
        self.flops, self.tried = flops, list[int]()

    def exact_at(self, batch_size: int) -> bool:
        self.tried.append(batch_size)
        return True

    def row_flops(self) -> int:
        return self.flops


@pytest.mark.parametrize(
    ("device", "flops", "chosen", "proofs"),
    [
        ("cpu", 0, 16, [16]),
        ("cpu", CPU_FILLED // 16, 16, [16]),
        ("cpu", CPU_FILLED // 16 + 1, 8, [8]),
        ("cpu", CPU_FILLED // 3, 2, [2]),
        ("cpu", CPU_FILLED, 1, []),
        ("cpu", 2 * CPU_FILLED, 1, []),
        ("meta", 2 * CPU_FILLED, 128, [128]),
    ],
)
def test_no_more_rows_than_fill_a_cpu(store: Store, device: str, flops: int, chosen: int, proofs: list[int]) -> None:
    network, told = Costly(flops), list[str]()
    probe = Probe({}, network, torch.device(device), torch.float32, store, lambda text, _: told.append(text))
    assert [probe.chosen(), probe.chosen()] == [chosen] * 2
    assert network.tried == proofs
    assert told == [f"trying batches of {size} rows, once on this kind of device" for size in proofs]


def test_the_flops_of_a_row_are_counted_without_computing(tmp_path: Path) -> None:
    prior = load_prior(str(save_tiny_dit(tmp_path / "dit", None)), device="cpu", tile=1)
    z, images = torch.zeros(1, *prior.codec.shape), torch.zeros(1, 3, prior.codec.size, prior.codec.size)

    def counted(call: Callable[[], object]) -> int:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # no other is counted on a CPU
            call()
        return counter.get_total_flops()

    assert prior.row_flops() == counted(lambda: prior(z, 500, torch.zeros(1, dtype=torch.long))) > 0
    coding = max(counted(lambda: prior.codec.encode(images)), counted(lambda: prior.codec.decode(z)))
    assert prior.codec.row_flops() == coding > 0


@pytest.mark.parametrize(("rows", "told"), [(16, {"tile": 16}), (4, {"tile": 4, "threads": 3})])
def test_of_few_rows_on_a_cpu_the_number_of_threads_is_told(
    rows: int, told: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert calls(rows, torch.device("cpu")) == told
    assert calls(rows, torch.device("cuda")) == {"tile": rows}
