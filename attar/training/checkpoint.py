"""A file in a store's scratch folder that an interrupted training of a network goes on from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from attar.core.files import replacing, resumed
from attar.core.store import note_seconds
from attar.training.processes import is_main

if TYPE_CHECKING:
    from accelerate import Accelerator


class Checkpoint:
    """A file in a store's scratch folder from which an interrupted training goes on; written every `seconds`.

    Of the processes that share a training, which `helper` knows, the main one writes it, and all go on from it.
    """

    def __init__(self, scratch: Path, seconds: float = 30.0, helper: Accelerator | None = None) -> None:
        self.helper = helper
        self.scratch, self.file, self.seconds = scratch, scratch / ".checkpoint", seconds
        self.kept = time.monotonic()

    def keep(
        self, step: int, network: nn.Module, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> None:
        """Writes all that a training must find again, if it is time."""
        now = time.monotonic()
        if now - self.kept < self.seconds or not is_main(self.helper):
            return
        state = {"step": step, "network": network.state_dict(), "optimiser": optimiser.state_dict()}
        state["scaler"] = scaler.state_dict()
        generators = [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]
        with replacing(self.file) as temporary:
            torch.save({**state, "generators": generators}, temporary)
        note_seconds(self.scratch, now - self.kept)
        self.kept = now

    def restore(self, network: nn.Module, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> int:
        """The steps already done: 0, and nothing is changed, where there is no file."""
        state = resumed(self.file, lambda file: torch.load(file, weights_only=True, map_location="cpu"))
        if state is None:
            return 0
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        if state.get("scaler"):
            scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["generators"][0])
        if len(state["generators"]) > 1 and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["generators"][1])
        return int(state["step"])
