"""The fixed batch size that networks are called with, so that a row's bytes do not depend on its company.

The user's setting `tile` is this size.

Matrix products differ in their last bits with the batch. With the batch held fixed, a row's result is the same wherever
it stands and whatever stands beside it; `choose` proves that for the network at hand before it settles on a size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from attar.core.errors import AttarError, suggestion
from attar.core.finite import finite
from attar.core.progress import Progress, silent
from attar.core.store import Artefact, Store

CPU_BATCH_SIZES = (16, 8, 32, 4, 2, 1)
CPU_HALF_BATCH_SIZES = (32, 16, 8, 4, 2, 1)
"""Of half-precision weights: 32 rows a call were a tenth faster than 16, and in float32 no faster."""
GPU_BATCH_SIZES = (128, 64, 32, 16, 8, 4, 2, 1)
CPU_FILLED = 200 * 10**9
"""FLOPs of a call that fill a CPU, about two seconds of one core: from there on more rows make no row faster."""


def calls(batch_size: int, device: torch.device, weights: torch.dtype = torch.float32) -> dict[str, Any]:
    """What the last bits of a network's output depend on in how it is called, for keys and manifests.

    That is how many rows a call has and, of few rows on a CPU, the number of threads; and the number format of its
    `weights`, where they are not in float32.
    """
    few = device.type == "cpu" and batch_size < CPU_BATCH_SIZES[0]
    form = {"tile": batch_size, **({"threads": torch.get_num_threads()} if few else {})}
    return form | weight_format(weights)


def weight_format(weights: torch.dtype) -> dict[str, str]:
    """The number format of a network's weights, as keys hold it: half precision is named, float32 is not."""
    return {} if weights == torch.float32 else {"weights": str(weights).removeprefix("torch.")}


def in_batches(network: Callable[..., Tensor], batch_size: int, *rows: Tensor) -> Tensor:
    """`network(*rows)` in batches of exactly `batch_size` rows; the last is filled up with copies of its first row."""
    begins = range(0, len(rows[0]), batch_size)
    return torch.cat([padded(network, batch_size, *(r[i : i + batch_size] for r in rows)) for i in begins])


def padded(network: Callable[..., Tensor], batch_size: int, *rows: Tensor) -> Tensor:
    """One call of `network` with `batch_size` rows, of which the first `len(rows[0])` are returned.

    The rows are laid out contiguously whatever their strides were, because the layout, too, decides the last bits.
    """
    n = len(rows[0])
    filled = (torch.cat([r, r[:1].expand(batch_size - n, *r.shape[1:])]) if n < batch_size else r for r in rows)
    return network(*(r.clone(memory_format=torch.contiguous_format) for r in filled))[:n]


def fills(device: torch.device, row_flops: Callable[[], int]) -> int | None:
    """How many rows fill a CPU, 1 or more; None of a GPU, which its memory bounds.

    It follows from the network alone, not from timings, and keeps the memory of a call small.
    """
    return max(1, CPU_FILLED // max(1, row_flops())) if device.type == "cpu" else None


def choose(
    device: torch.device,
    exact_at: Callable[[int], bool],
    most: int | None = None,
    weights: torch.dtype = torch.float32,
) -> int:
    """The first size, in an order that is fixed for a kind of device and weights, that fits in memory and is exact.

    The order does not depend on any timing, so two runs on one kind of device choose the same size. None above `most`.
    1 needs no proof.
    """
    sizes = CPU_BATCH_SIZES if weights.itemsize == 4 else CPU_HALF_BATCH_SIZES
    for batch_size in sizes if device.type == "cpu" else GPU_BATCH_SIZES:
        if most is not None and batch_size > most:
            continue
        try:
            if batch_size == 1 or exact_at(batch_size):
                return batch_size
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return 1


class Batched(Protocol):
    """What calls a network in batches: a prior or a codec."""

    @property
    def weights(self) -> torch.dtype:
        """The number format of the network's weights."""
        ...

    def exact_at(self, batch_size: int) -> bool:
        """Whether a row's bytes do not depend on the others in its batch."""
        ...

    def row_flops(self) -> int:
        """FLOPs of the network for one row."""
        ...


@dataclass(frozen=True)
class Probe:
    """What is proved of one network's batch sizes on one device, found once and kept in the store."""

    network: Mapping[str, Any]
    """The digests of the network's weights and the sizes of its rows, by name."""
    batched: Batched
    """What calls it."""
    device: torch.device
    dtype: torch.dtype
    store: Store
    progress: Progress = silent

    def of(self, tile: int | Literal["likely"] | None) -> int:
        """The batch size that is chosen, is likely to be, or is given and proved."""
        if tile == "likely":
            return self.likely()
        return self.chosen() if tile is None else self.proved(tile)

    def chosen(self, most: int | None = None) -> int:
        """The batch size that `choose` finds: no more rows than fill the device, and none above `most`."""
        return self._remembered(lambda: self._first(most, self._proof), self._asked(most))

    def likely(self) -> int:
        """The batch size that was chosen, if one was; else the one that is tried first, nearly always exact."""
        made = self._artefact(self._asked(None))
        return self._read(made) if self.store.has(made) else self._first(None, lambda _: True)

    def _first(self, most: int | None, exact_at: Callable[[int], bool]) -> int:
        bounds = [bound for bound in (most, fills(self.device, self.batched.row_flops)) if bound is not None]
        return choose(self.device, exact_at, min(bounds, default=None), self.batched.weights)

    def _asked(self, most: int | None) -> dict[str, int | None]:
        return {"at most": most, "filled": CPU_FILLED if self.device.type == "cpu" else None}

    def proved(self, tile: int) -> int:
        """`tile` itself.

        Raises:
            AttarError: it does not fit in memory, or at it a row's bytes would depend on the others.
        """
        if tile < 1:
            raise AttarError(f"`tile` {tile}: at least 1")
        try:
            if tile == 1 or self._remembered(lambda: int(self._proof(tile)), {"tile": tile}):
                return tile
            why = "a row's bytes would depend on the rows beside it"
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            why = "it does not fit in memory"
        here = device_class(self.device)
        raise AttarError(f"`tile` {tile}: {why} on {here}; leave it out, and {self.chosen()} is chosen")

    def _proof(self, batch_size: int) -> bool:
        self.progress(f"trying batches of {batch_size} rows, once on this kind of device", 0.0)
        return self.batched.exact_at(batch_size)

    def _remembered(self, find: Callable[[], int], asked: Mapping[str, int | None]) -> int:
        def make(scratch: Path) -> None:
            (scratch / "tile").write_text(str(find()))

        self.store.once(made := self._artefact(asked), make)
        return self._read(made)

    def _artefact(self, asked: Mapping[str, int | None]) -> Artefact:
        where = {"device": device_class(self.device), "dtype": str(self.dtype), "torch": torch.__version__}
        where |= weight_format(self.batched.weights)
        return Artefact("tile", {**self.network, **where, **asked})

    def _read(self, made: Artefact) -> int:
        return int((self.store.folder(made) / "tile").read_text())


def exact(network: Callable[..., Tensor], *rows: Tensor) -> bool:
    """Whether every row's result has the same bits in reverse order and among other rows.

    Raises:
        NotFinite: the network does not give numbers.
    """
    n = len(rows[0])
    straight = finite(network(*rows), "what it makes of noise")
    swapped = network(*(r.flip(0) for r in rows)).flip(0)
    alone = network(*(torch.cat([r[: n // 2], r[:1].expand(n - n // 2, *r.shape[1:])]) for r in rows))
    return torch.equal(straight, swapped) and torch.equal(straight[: n // 2], alone[: n // 2])


def device_class(device: torch.device) -> str:
    """What must agree for bytes to agree: the GPU's name, or the instruction set of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products in bfloat16: GPUs of compute capability 8.0, many newer CPUs."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(able for name, able in known.items() if name.endswith("bf16"))


def _usual(device: torch.device) -> str:
    """The number format that `auto` means on a device; of a CPU the variable ATTAR_CPU_DTYPE may say it."""
    asked = os.environ.get("ATTAR_CPU_DTYPE") if device.type == "cpu" else None
    if asked not in (None, "", "float32", "bfloat16"):
        raise AttarError(f"the variable ATTAR_CPU_DTYPE is {asked}: set it to float32 or bfloat16, or to nothing")
    fast = device.type == "cuda" or multiplies_bfloat16(device)
    return asked or ("bfloat16" if fast else "float32")


def resolve(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """The device and number format that `auto` means here: a GPU where there is one, in bfloat16; else the CPU, in
    bfloat16 where it multiplies that, as many newer ones do, and in float32 where not (`ATTAR_CPU_DTYPE` may say)."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        hint = suggestion(device.partition(":")[0], ("auto", "cpu", "cuda", "mps"))
        raise AttarError(f"`device` {device}{hint}: no such device; here there are {_here()}") from error
    try:
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        raise AttarError(f"`device` {device}: not usable here ({reason}); here there are {_here()}") from error
    formats: dict[str, Any] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        dtype = _usual(found)
    if dtype not in formats:
        raise AttarError(f"`dtype` {dtype}{suggestion(dtype, formats)}: choose auto, {', '.join(formats)}")
    return found, formats[dtype]


def _here() -> str:
    """The devices of this machine, as `device` takes them."""
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ", ".join(["auto", "cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])])
