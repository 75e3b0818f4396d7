"""A training that several processes share: each takes its part of every batch, and all take the same step.

`helper` is Hugging Face's Accelerator, which knows the processes; None: this one is alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attar.core.batching import resolve
from attar.core.errors import AttarError
from attar.core.store import Artefact, Store

if TYPE_CHECKING:
    from accelerate import Accelerator

PATIENCE = timedelta(days=1)
"""How long a process waits for the others: the main one may encode a large data set, or test a network, meanwhile.

Where one is killed the others learn it at once, or are ended by what started them."""


def accelerator(device: str, dtype: str) -> Accelerator:
    """The Accelerator for `auto`, `cpu` or `cuda` and `auto`, `float32` or `bfloat16`.

    Started by `accelerate launch` or torchrun, every process gets its share of each batch.

    Raises:
        AttarError: the device or the number format is not usable here.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import InitProcessGroupKwargs

    place, number_format = resolve(device, dtype)
    if number_format == torch.float16:
        raise AttarError("`dtype` float16: gradients vanish in it; train in bfloat16 or float32")
    if place.index:
        raise AttarError(f"`device` {device}: name one GPU of several with CUDA_VISIBLE_DEVICES={place.index}")
    mixed = "bf16" if number_format == torch.bfloat16 else "no"
    met = torch.distributed.is_initialized()
    if AcceleratorState._shared_state or PartialState._shared_state:
        AcceleratorState._reset_state(reset_partial_state=not met)
    helper = Accelerator(
        cpu=place.type == "cpu", mixed_precision=mixed, kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)]
    )
    if not met:  # torch returns in the main process before the others have found it; they fail if it ends at once
        helper.wait_for_everyone()
    return helper


def processes(helper: Accelerator | None) -> int:
    """How many there are."""
    return 1 if helper is None else int(helper.num_processes)


def is_main(helper: Accelerator | None) -> bool:
    """Whether this is the one that writes and speaks."""
    return helper is None or bool(helper.is_main_process)


def check_shared(batch: int, helper: Accelerator | None) -> None:
    """Raises AttarError where the processes cannot share a batch evenly."""
    if batch % processes(helper):
        raise AttarError(f"`batch` {batch}: must be divisible by the number of processes, {processes(helper)}")


def once_together(
    store: Store,
    artefact: Artefact,
    helper: Accelerator | None,
    make: Callable[[Path], None],
    assist: Callable[[Path], object],
) -> Path:
    """As `store.once`, by several processes: the main one calls `make`, and the others `assist`, which writes nothing.

    All return when it is there. The others begin when the main one does: another job may be at it, or have made it.

    Raises:
        AttarError: another process has ended.
    """
    if helper is None or processes(helper) == 1:
        return store.once(artefact, make)
    begun = False

    def begin(scratch: Path) -> None:
        nonlocal begun
        begun = as_main_finds(True, helper)
        make(scratch)

    with _in_company():
        if helper.is_main_process:
            store.once(artefact, begin)
            if not begun:
                as_main_finds(False, helper)
        elif as_main_finds(False, helper):
            assist(store.scratch(artefact))
        helper.wait_for_everyone()
    return store.path(artefact)


@contextmanager
def _in_company() -> Iterator[None]:
    """Within it, an error of what passes between processes becomes one that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        raise AttarError("another process of this training has ended: the same command goes on") from error


def own_part(helper: Accelerator | None) -> slice:
    """The part of a batch that this process takes."""
    return slice(None) if helper is None else slice(helper.process_index, None, helper.num_processes)


def mean_of_all(value: Tensor, helper: Accelerator | None) -> Tensor:
    """The mean of what each process has."""
    if helper is None or processes(helper) == 1:
        return value
    mean: Tensor = helper.reduce(value, reduction="mean")
    return mean


def sum_of_all(value: Tensor, helper: Accelerator | None) -> Tensor:
    """The sum of what each process has."""
    if helper is None or processes(helper) == 1:
        return value
    total: Tensor = helper.reduce(value, reduction="sum")
    return total


def share_gradients(parameters: Iterable[nn.Parameter], helper: Accelerator | None) -> None:
    """Gives every process the mean of all gradients."""
    for parameter in parameters if processes(helper) > 1 else ():
        if parameter.grad is not None:
            parameter.grad = mean_of_all(parameter.grad, helper)


def as_main_finds(found: bool, helper: Accelerator | None) -> bool:
    """What the main process has found, so that all go the same way."""
    if processes(helper) == 1:
        return found
    from accelerate.utils import broadcast_object_list

    said = [found]
    broadcast_object_list(said)
    return said[0]


@contextmanager
def joint_statistics(network: nn.Module, helper: Accelerator | None) -> Iterator[None]:
    """Within it, batch norm takes its statistics from the whole batch, whichever process has which part of it."""
    count = processes(helper)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and count > 1]
    for norm in norms:
        vars(norm)["forward"] = partial(_joint_norm, norm, count)
    try:
        yield
    finally:
        for norm in norms:
            del vars(norm)["forward"]


def _joint_norm(norm: _BatchNorm, parts: int, x: Tensor) -> Tensor:
    """torch's SyncBatchNorm, which knows no CPUs."""
    if not norm.training:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    others, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
    count = parts * x.numel() // x.shape[1]
    centred = x.float() - (mean := _SumOfAll.apply(x.float().sum(others)) / count).view(shape)
    variance = _SumOfAll.apply(centred.square().sum(others)) / count
    with torch.no_grad():
        _follow(norm, mean, variance * count / max(1, count - 1))
    y = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        y = y * norm.weight.view(shape) + norm.bias.view(shape)
    return y.to(x.dtype)


class _SumOfAll(torch.autograd.Function):
    """The sum of what each process has; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _SumOfAll.forward(ctx, gradients[0])


def _follow(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Moves the running statistics towards a batch's."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)
