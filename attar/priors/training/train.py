"""Training a class-conditional DiT: its settings, its loss, and the network that comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from attar.core.ahead import Ahead
from attar.core.compiler import check_compiler
from attar.core.copies import sent
from attar.core.errors import AttarError
from attar.core.progress import Progress, silent
from attar.core.rng import generator
from attar.diffusion.loss import Forward, forward_of
from attar.priors.folder import new_scheduler, write_pipeline
from attar.priors.shared_embedders import SharedDiT, untrained
from attar.priors.training.latent_set import LatentSet, held_in_memory
from attar.priors.training.optimise import Session, TrainingState, optimise
from attar.priors.training.settings import Denoising, Training
from attar.training.processes import accelerator, own_part

if TYPE_CHECKING:
    from accelerate import Accelerator

    from attar.priors.training.align import Alignment

TRAINING = "training a prior"
"""What progress and errors call it."""


def train_prior(
    latents: Tensor,
    labels: np.ndarray[Any, np.dtype[np.int64]],
    classes: Sequence[str],
    training: Training,
    folder: Path,
    progress: Progress = silent,
) -> None:
    """Trains on latents (N, C, S, S), float32, with labels (N,), and writes a DiTPipeline folder without a VAE.

    Every step draws from its own key and a checkpoint is kept in `folder` (under a name that begins with a dot), so an
    interrupted training ends with the same weights. `progress(text, fraction)` is called about once a second.
    """
    data = held_in_memory(latents, torch.tensor(labels))
    check_patch(training.patch, latents.shape[-1])
    network = untrained(tuple(latents.shape[1:]), len(classes), training, training.seed, "train-prior", "weights")
    scheduler = new_scheduler(training.prediction)
    session = Session(folder, accelerator("cpu", "float32"), TRAINING, progress)
    train_network(network, data, scheduler, training, session)
    write_pipeline(folder, network.with_own_embedders(), scheduler, classes, None)


def check_patch(patch: int, side: int) -> None:
    """Raises AttarError where latents of this side cannot be cut into tokens."""
    if side % patch:
        raise AttarError(f"patch {patch} does not divide the latents' side, {side}")


def train_network(
    network: SharedDiT,
    data: LatentSet,
    scheduler: Any,
    training: Denoising,
    session: Session,
    parameters: Sequence[nn.Parameter] | None = None,
    after: Callable[[TrainingState], None] | None = None,
    align: Alignment | None = None,
) -> float:
    """Trains the network's parameters (all of them, if none are named) and leaves their average in it.

    Returns the loss, the mean of its last points (see `optimise`).
    """
    helper = session.helper
    network.to(helper.device)
    forward = forward_of(scheduler, helper.device)
    if training.compile:
        check_compiler(helper.device)
        for block in network.transformer.transformer_blocks:
            block.compile()
    null = len(network.table.weight) - 1
    drawn: Callable[[int], _Batch] = partial(_drawn, data, forward, null, training, helper, align)
    if helper.device.type == "cuda":
        drawn = Ahead(drawn, training.steps)
    loss = partial(_loss, network, forward, drawn, training, helper, align)
    chosen = list(network.parameters()) if parameters is None else list(parameters)
    return optimise(chosen, loss, training, session, after)


def step_seconds(
    network: SharedDiT,
    data: LatentSet,
    scheduler: Any,
    training: Denoising,
    helper: Accelerator,
    parameters: Sequence[nn.Parameter] | None = None,
    align: Alignment | None = None,
) -> float:
    """How long a step takes here: the faster of two, their gradients thrown away, nothing compiled."""
    network.to(helper.device)
    forward = forward_of(scheduler, helper.device)
    drawn = partial(_drawn, data, forward, 0, training, helper, align)
    taken = []
    for step in range(2):
        begun = time.monotonic()
        loss = _loss(network, forward, drawn, training, helper, align, step)
        helper.backward(loss)
        float(loss.detach())
        taken.append(time.monotonic() - begun)
    for parameter in network.parameters() if parameters is None else parameters:
        parameter.grad = None
    return min(taken)


FEW_TOKENS = 64
"""Up to so many in an image, attention made of plain products has faster gradients on a CPU than a fused one."""


def attention_of(network: SharedDiT, helper: Accelerator) -> AbstractContextManager[None]:
    """Within it, mixed precision on a CPU computes attention as plain products where an image has few tokens."""
    config = network.transformer.config
    few = (config.sample_size // config.patch_size) ** 2 <= FEW_TOKENS
    plain = few and helper.device.type == "cpu" and helper.mixed_precision == "bf16"
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()


@dataclass(frozen=True)
class _Batch:
    """The part of a step's batch that a process trains on, on its device."""

    z: Tensor
    """Latents (n, C, H, W)."""
    times: Tensor
    """(n,)."""
    noise: Tensor
    """(n, C, H, W)."""
    labels: Tensor
    """(n,); the null label where it was dropped."""
    maps: Tensor | None
    """A teacher's (n, D, h, w), if there is one."""


def _drawn(
    data: LatentSet,
    forward: Forward,
    null: int,
    training: Denoising,
    helper: Accelerator,
    align: Alignment | None,
    step: int,
) -> _Batch:
    draw = generator(training.seed, "train-prior", step)
    picked = torch.randint(len(data.labels), (training.batch,), generator=draw)
    z, rows = data.views(picked, draw)
    times = forward.times(training.batch, draw)
    noise = torch.randn(z.shape, generator=draw)
    dropped = torch.rand(training.batch, generator=draw) < training.label_dropout
    y = torch.where(dropped, null, data.labels[picked])
    mine = own_part(helper)
    z, times, noise, y = (_there(part[mine], helper.device) for part in (z, times, noise, y))
    maps = None if align is None else _there(align.maps[rows[mine]], helper.device)
    return _Batch(z, times, noise, y, maps)


def _there(part: Tensor, device: torch.device) -> Tensor:
    """The same on a device, from pinned memory to a GPU, so that the CPU does not wait."""
    if device.type != "cuda":
        return sent(part, device)
    with torch.cuda.device(device):
        return sent(part.pin_memory(), device)


def _loss(
    network: SharedDiT,
    forward: Forward,
    drawn: Callable[[int], _Batch],
    training: Denoising,
    helper: Accelerator,
    align: Alignment | None,
    step: int,
) -> Tensor:
    batch = drawn(step)
    noisy = forward.noised(batch.z, batch.times, batch.noise)
    watching: AbstractContextManager[list[Tensor]] = nullcontext([]) if align is None else align.watching()
    with helper.autocast(), watching as tokens, attention_of(network, helper):
        output = network(noisy, batch.times, batch.labels).float()
    loss = forward.terms(output, batch.z, noisy, batch.noise, batch.times, training.min_snr).loss.mean()
    return loss if align is None or batch.maps is None else loss + align.loss(tokens[0], batch.maps, helper)
