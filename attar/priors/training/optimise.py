"""The loop that all of a prior's parts are trained by: resumable to the same weights, on one device or several."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from attar.core.errors import NotFinite
from attar.core.files import replacing, resumed
from attar.core.finite import bounded, finite
from attar.core.progress import Progress, duration, silent
from attar.core.store import note_seconds
from attar.core.tracking import note, part
from attar.priors.training.settings import Optimisation
from attar.training.processes import mean_of_all, share_gradients

REPORT_SECONDS = 1.0
CHECKPOINT_SECONDS = 30.0
CURVE_POINTS = 400
"""About how many points are kept of the loss."""


@dataclass(frozen=True)
class TrainingState:
    """Where a training is at the end of a step."""

    step: int
    """Steps done."""
    curve: list[tuple[int, float]]
    """(step, mean loss since the point before)."""
    average: list[Tensor]
    """The averaged weights, in the parameters' order."""
    seconds: float
    """Spent so far, interruptions left out."""


class Stateful(Protocol):
    """What can be kept in a checkpoint."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True, eq=False)
class Session:
    """Where a training runs, and who follows it."""

    scratch: Path
    """The folder of its checkpoint."""
    helper: Accelerator
    """Its device, number format and processes."""
    text: str
    """What it is, for progress and errors: "training a prior"."""
    progress: Progress = silent
    memories: Sequence[Stateful] = ()
    """What its loss, or what follows it, carries from one step to the next: its checkpoint keeps them."""

    @property
    def checkpoint(self) -> Path:
        """The file of its checkpoint."""
        return self.scratch / ".checkpoint"


def optimise(
    parameters: Sequence[nn.Parameter],
    loss: Callable[[int], Tensor],
    plan: Optimisation,
    session: Session,
    after: Callable[[TrainingState], None] | None = None,
) -> float:
    """Minimises `loss(step)` over parameters and sets them to their average; resumes from the session's checkpoint.

    With several processes each takes its share of a batch, and their gradients are averaged. `after` is called at the
    end of each step. Returns the mean loss of the last twentieth.

    Raises:
        NotFinite: the training diverged, which is looked for at every point of the curve and at the end.
    """
    training = _Training(parameters, plan, session)
    training.resume()
    session.helper.wait_for_everyone()
    training.start_clocks()
    while training.step < plan.steps:
        value = training.descend(loss(training.step))
        now = time.monotonic()
        with training.converging():
            training.count(value)
            if after is not None:
                after(training.moment(now))
        training.report(now)
        training.save_if_due(now)
    with training.converging():
        training.keep_average()
    last = [value for _, value in training.curve[-max(1, len(training.curve) // 20) :]]
    return sum(last) / max(len(last), 1)


class _Training:
    """Parameters on their way: all that a training must find again to go on as if it had never stopped."""

    def __init__(self, parameters: Sequence[nn.Parameter], plan: Optimisation, session: Session) -> None:
        self.parameters, self.plan, self.session = list(parameters), plan, session
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=plan.learning_rate,
            weight_decay=plan.weight_decay,
            fused=session.helper.device.type in ("cpu", "cuda"),
        )
        self.average = [p.detach().clone() for p in parameters]
        self.step = 0
        self.curve: list[tuple[int, float]] = []
        self.losses: list[Tensor] = []
        """Since the last point of the curve."""
        self.seconds = 0.0
        """Spent before this start."""

    def start_clocks(self) -> None:
        """Notes when this start began, and with which step."""
        self.begun = self.saved = self.reported = time.monotonic()
        self.first = self.step

    def descend(self, loss: Tensor) -> Tensor:
        """One step of the optimiser and of the average; the loss of the whole batch, detached."""
        plan, helper = self.plan, self.session.helper
        for group in self.optimiser.param_groups:
            group["lr"] = plan.rate(self.step)
        self.optimiser.zero_grad()
        helper.backward(loss)
        share_gradients(self.parameters, helper)
        if plan.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, plan.clip)
        self.optimiser.step()
        warm = (1 + self.step) / (10 + self.step) if plan.ema_warmup else 1.0
        update: Any = torch.optim.swa_utils.get_ema_multi_avg_fn(min(plan.ema_decay, warm))
        update(self.average, [p.detach() for p in self.parameters], self.step)
        return mean_of_all(loss.detach(), helper)

    def count(self, loss: Tensor) -> None:
        """The step is done; every so often the mean loss becomes a point of the curve."""
        self.step += 1
        self.losses.append(loss)
        if self.step % max(1, self.plan.steps // CURVE_POINTS) == 0:
            self.curve.append((self.step, bounded(torch.stack(self.losses).mean(), "the loss")))
            self.losses = []
            with part(self.session.text):
                note(self.step, loss=self.curve[-1][1])

    def moment(self, now: float) -> TrainingState:
        """Where the training is."""
        return TrainingState(self.step, self.curve, self.average, self.seconds + now - self.begun)

    def report(self, now: float) -> None:
        """Shows step, loss, speed and the time left, about once a second, and at the end."""
        plan = self.plan
        if now - self.reported <= REPORT_SECONDS and self.step < plan.steps:
            return
        speed = (self.step - self.first) / max(now - self.begun, 1e-9)
        left = duration((plan.steps - self.step) / max(speed, 1e-9))
        loss = f", loss {self.curve[-1][1]:.3f}" if self.curve else ""
        text = f"{self.session.text}, step {self.step:,}/{plan.steps:,}{loss}, {speed * plan.batch:,.0f} images/s"
        self.session.progress(f"{text}, {left} left", self.step / plan.steps)
        self.reported = now

    def save_if_due(self, now: float) -> None:
        """Writes a checkpoint if the last one is old enough; the main process alone does."""
        if now - self.saved <= CHECKPOINT_SECONDS or not self.session.helper.is_main_process:
            return
        state = {
            "parameters": [p.detach() for p in self.parameters],
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "memories": [memory.state_dict() for memory in self.session.memories],
            "step": self.step,
            "curve": self.curve,
            "since": [float(loss) for loss in self.losses],
            "seconds": self.seconds + now - self.begun,
        }
        with replacing(self.session.checkpoint) as temporary:
            torch.save(state, temporary)
        note_seconds(self.session.scratch, now - self.saved)
        self.saved = now

    def resume(self) -> None:
        """Goes on from the checkpoint, if there is one."""
        state = resumed(self.session.checkpoint, lambda file: torch.load(file, weights_only=True, map_location="cpu"))
        if state is None:
            return
        for tensors, name in ((self.parameters, "parameters"), (self.average, "average")):
            for tensor, value in zip(tensors, state[name], strict=True):
                tensor.data.copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        for memory, value in zip(self.session.memories, state["memories"], strict=True):
            memory.load_state_dict(value)
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.curve = [(int(step), float(value)) for step, value in state["curve"]]
        device = self.average[0].device
        self.losses = [torch.tensor(value, device=device) for value in state["since"]]

    def keep_average(self) -> None:
        """Sets the parameters to their average."""
        for average in self.average:
            finite(average, "the weights")
        for parameter, average in zip(self.parameters, self.average, strict=True):
            parameter.data.copy_(average)

    @contextmanager
    def converging(self) -> Iterator[None]:
        """Says that the training diverged where something of it, or of samples of it, is no number."""
        try:
            yield
        except NotFinite as error:
            raise NotFinite(
                f"{self.session.text}: it diverged by step {self.step:,} of {self.plan.steps:,} ({error}); lower the "
                f"learning rate, {self.plan.learning_rate:g}"
            ) from error
