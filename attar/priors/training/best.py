"""The moving average whose samples were best so far: what `keep = "best"` writes of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(eq=False)
class Best:
    """One of a training's memories: a checkpoint holds it as it was at that step, with its measures."""

    record: dict[str, Any] = field(default_factory=dict)
    """The measures of its samples, and their step; empty before the first report."""
    weights: list[Tensor] = field(default_factory=list)
    """In the parameters' order, on the CPU."""

    def offer(self, record: Mapping[str, Any], average: Sequence[Tensor]) -> None:
        """Takes a later average unless its samples are worse: by the classifier's share, then the Frechet distance."""
        if not self.record or _merit(record) >= _merit(self.record):
            self.record = dict(record)
            self.weights = [values.detach().to("cpu", copy=True) for values in average]

    def state_dict(self) -> dict[str, Any]:
        return {"record": self.record, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.record, self.weights = state["record"], state["weights"]


def _merit(record: Mapping[str, Any]) -> tuple[float, float]:
    return record["accuracy"], -record["frechet"]
