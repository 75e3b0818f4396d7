"""The loop that all of a prior's parts are trained by: resumable to the same weights, on one device or several."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from attar.core.config import Range, check_ranges
from attar.core.errors import AttarError, NotFinite
from attar.core.files import replacing, resumed
from attar.core.finite import bounded, finite
from attar.core.progress import Progress, duration, silent
from attar.core.store import note_seconds

if TYPE_CHECKING:
    from accelerate import Accelerator

REPORT_SECONDS = 1.0
CURVE_POINTS = 400
"""About so many points are kept of the loss."""


RANGES: tuple[Range, ...] = (
    ("a whole number of 1 or more", lambda x: x >= 1, ("steps", "batch")),
    ("a number above 0", lambda x: 0 < x < math.inf, ("learning_rate", "clip")),
    ("a number of 0 or more", lambda x: 0 <= x < math.inf, ("warmup", "weight_decay")),
    ("a number from 0 to below 1", lambda x: 0 <= x < 1, ("ema_decay",)),
)


@dataclass(frozen=True)
class Optimisation:
    """How weights are optimised: AdamW, a learning rate that warms up, gradients of norm 1 at most, and an average."""

    steps: int = 10_000
    batch: int = 128
    learning_rate: float = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    """Of the learning rate; cosine falls to a twentieth."""
    warmup: int = 100
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.0
    ema_decay: float = 0.999
    """Of the averaged weights, which are what is kept."""
    ema_warmup: bool = True
    """Warmed up: min(decay, (1 + n) / (10 + n)) after n steps. Off: the average begins at the untrained weights."""
    clip: float | None = 1.0
    """Largest norm of a step's gradients."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, RANGES, "training")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        fall = 0.5 * (1 + np.cos(np.pi * step / self.steps)) if self.schedule == "cosine" else 1.0
        return float(self.learning_rate * warm * (0.05 + 0.95 * fall))


@dataclass(frozen=True)
class Moment:
    """Where a training is: what `after` is told at the end of each step."""

    step: int
    """Steps done."""
    curve: list[tuple[int, float]]
    """(step, mean loss since the point before)."""
    average: list[Tensor]
    """The averaged weights, in the parameters' order."""
    seconds: float
    """Spent so far, interruptions left out."""


def optimise(
    parameters: Sequence[nn.Parameter],
    loss: Callable[[int], Tensor],
    plan: Optimisation,
    scratch: Path,
    helper: Accelerator,
    text: str,
    progress: Progress = silent,
    after: Callable[[Moment], None] | None = None,
    checkpoint_seconds: float = 30.0,
    memories: Sequence[Stateful] = (),
) -> float:
    """Minimises `loss(step)` over parameters and sets them to their average; resumes from a checkpoint in `scratch`.

    With several processes each takes its share of a batch, and their gradients are averaged. `after` is called at the
    end of each step. What `loss` carries from one step to the next is in `memories`, which checkpoints keep. Returns
    the mean loss of the last twentieth.

    Raises:
        NotFinite: the training diverged, which is looked for at every point of the curve and at the end.
    """
    optimiser = torch.optim.AdamW(
        parameters,
        lr=plan.learning_rate,
        weight_decay=plan.weight_decay,
        fused=helper.device.type in ("cpu", "cuda"),
    )
    state = _State(parameters, optimiser, memories)
    state.resume(scratch / ".checkpoint")
    helper.wait_for_everyone()
    averaged: Any = torch.optim.swa_utils.get_ema_multi_avg_fn
    begun = saved = reported = time.monotonic()
    first, every = state.step, max(1, plan.steps // CURVE_POINTS)
    while state.step < plan.steps:
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(state.step)
        value = loss(state.step)
        optimiser.zero_grad()
        helper.backward(value)
        _shared_gradients(parameters, helper)
        if plan.clip is not None:
            nn.utils.clip_grad_norm_(parameters, plan.clip)
        optimiser.step()
        warm = (1 + state.step) / (10 + state.step) if plan.ema_warmup else 1.0
        decay = min(plan.ema_decay, warm)
        averaged(decay)(state.average, [p.detach() for p in parameters], state.step)
        now = time.monotonic()
        with _converging(text, state, plan):
            state.count(value.detach(), every)
            if after is not None:
                after(Moment(state.step, state.curve, state.average, state.seconds + now - begun))
        if now - reported > REPORT_SECONDS:
            progress(_told(text, state, plan, first, now - begun), state.step / plan.steps)
            reported = now
        if now - saved > checkpoint_seconds and helper.is_main_process:
            state.save(scratch / ".checkpoint", state.seconds + now - begun)
            note_seconds(scratch, now - saved)
            saved = now
    with _converging(text, state, plan):
        for average in state.average:
            finite(average, "the weights")
    for parameter, average in zip(parameters, state.average, strict=True):
        parameter.data.copy_(average)
    last = [value for _, value in state.curve[-max(1, len(state.curve) // 20) :]]
    return sum(last) / max(len(last), 1)


class Stateful(Protocol):
    """What can be kept in a checkpoint."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


class _State:
    """All that a training must find again to go on as if it had never stopped."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], optimiser: torch.optim.Optimizer, memories: Sequence[Stateful]
    ) -> None:
        self.parameters, self.optimiser, self.memories = list(parameters), optimiser, memories
        self.average = [p.detach().clone() for p in parameters]
        self.step = 0
        self.curve: list[tuple[int, float]] = []
        self.since: list[Tensor] = []
        self.seconds = 0.0

    def count(self, loss: Tensor, every: int) -> None:
        self.step += 1
        self.since.append(loss)
        if self.step % every == 0:
            self.curve.append((self.step, bounded(torch.stack(self.since).mean(), "the loss")))
            self.since = []

    def save(self, file: Path, seconds: float) -> None:
        state = {
            "parameters": [p.detach() for p in self.parameters],
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "memories": [memory.state_dict() for memory in self.memories],
            "step": self.step,
            "curve": self.curve,
            "since": [float(loss) for loss in self.since],
            "seconds": seconds,
        }
        with replacing(file) as temporary:
            torch.save(state, temporary)

    def resume(self, file: Path) -> None:
        state = resumed(file, lambda there: torch.load(there, weights_only=True, map_location="cpu"))
        if state is None:
            return
        for mine, theirs in ((self.parameters, "parameters"), (self.average, "average")):
            for parameter, value in zip(mine, state[theirs], strict=True):
                parameter.data.copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        for memory, value in zip(self.memories, state["memories"], strict=True):
            memory.load_state_dict(value)
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.curve = [(int(s), float(v)) for s, v in state["curve"]]
        device = self.average[0].device
        self.since = [torch.tensor(value, device=device) for value in state["since"]]


@contextmanager
def _converging(text: str, state: _State, plan: Optimisation) -> Iterator[None]:
    """Says that a training diverged where something of it, or of samples of it, is no number."""
    try:
        yield
    except NotFinite as error:
        raise NotFinite(
            f"{text}: it diverged by step {state.step:,} of {plan.steps:,} ({error}); lower the learning rate, "
            f"{plan.learning_rate:g}"
        ) from error


def _shared_gradients(parameters: Iterable[nn.Parameter], helper: Accelerator) -> None:
    if helper.num_processes > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = helper.reduce(parameter.grad, reduction="mean")


def _told(text: str, state: _State, plan: Optimisation, first: int, seconds: float) -> str:
    speed = (state.step - first) / max(seconds, 1e-9)
    left = duration((plan.steps - state.step) / max(speed, 1e-9))
    loss = f", loss {state.curve[-1][1]:.3f}" if state.curve else ""
    return f"{text}, step {state.step:,}/{plan.steps:,}{loss}, {speed * plan.batch:,.0f} images/s, {left} left"


def accelerator(device: str, dtype: str) -> Accelerator:
    """Hugging Face's Accelerator for `auto`, `cpu` or `cuda` and `auto`, `float32` or `bfloat16`.

    Started by `accelerate launch` or torchrun, every process gets its share of each batch.

    Raises:
        AttarError: the device or the number format is not usable here.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    from attar.core.batching import resolve

    place, number_format = resolve(device, dtype)
    if number_format == torch.float16:
        raise AttarError("--dtype float16: gradients vanish in it; train in bfloat16 or float32")
    if place.index:
        raise AttarError(f"--device {device}: name one GPU of several with CUDA_VISIBLE_DEVICES={place.index}")
    mixed = "bf16" if number_format == torch.bfloat16 else "no"
    if AcceleratorState._shared_state or PartialState._shared_state:
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(cpu=place.type == "cpu", mixed_precision=mixed)
