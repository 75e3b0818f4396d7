"""Minimax's fine-tuning: steps with the two criteria, biases, scales and label table trained."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from attar.core.store import Store
from attar.job import Job, Spec
from attar.priors.folder import linear_scheduler, write_pipeline
from benchmarks.minimax import BATCH, Attars, Straightforward
from benchmarks.models import autoencoder, named, of_blocks, pictures, transformer
from benchmarks.timing import Case, Where

SIZES = {"tiny": ("tiny", 10, 2), "small": ("small", 20, 2), "full": ("quarter", 4, 1)}
"""Network, images of each of ten classes, and steps."""


class Cached(Straightforward):
    """The same with latents that are encoded once, mixed precision, and an average of what is trained alone."""

    def __init__(self, job: Job, stack: ExitStack, dtype: torch.dtype) -> None:
        super().__init__(job, stack)
        self.dtype, self.kept = dtype, None
        self.average = {
            name: self.average[name] for name, value in self.network.named_parameters() if value.requires_grad
        }

    def latents(self, picked: Tensor) -> tuple[Tensor, Tensor]:
        if self.kept is None:
            self.kept = super().latents(torch.arange(len(self.job.images)))
        return self.kept[0][picked], self.kept[1][picked]


def case(size: str, where: Where) -> Case:
    network, each, steps = SIZES[size]
    root, stack = tempfile.TemporaryDirectory(), ExitStack()
    names = [f"class{label}" for label in range(10)]
    data = pictures(Path(root.name) / "data", len(names), each, 32)
    dit = transformer(network, len(names))
    write_pipeline(Path(root.name) / "dit", dit, linear_scheduler(), names, autoencoder(network))

    def job(dtype: torch.dtype) -> Job:
        spec = Spec(f"imagefolder:{data}", str(Path(root.name) / "dit"), device=str(where.device), dtype=named(dtype))
        return Job(spec, Store(Path(root.name) / "cache"))

    plain = job(torch.float32)
    best = {named(dtype): Cached(plain, stack, dtype) for dtype in where.formats}
    straight, ours = Straightforward(plain, stack), Attars(job(where.dtype), stack)

    def close() -> None:
        stack.close()
        root.cleanup()

    return Case(
        ours=partial(ours.tune, steps),
        best={name: partial(one.tune, steps) for name, one in best.items()},
        straight=partial(straight.tune, steps),
        work=f"{steps} steps of {BATCH} latents{of_blocks(network)}",
        flops=2.0 * BATCH * steps * plain.prior.row_flops(),  # linear layers are frozen: they get no gradient
        close=close,
    )
