"""Training a class-conditional DiT from nothing, on latents held in memory; the result is a diffusers folder."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attar.keys import generator
from attar.progress import Progress, silent
from attar.store import note_seconds, replacing

CHECKPOINT_SECONDS = 30.0
REPORT_SECONDS = 1.0


@dataclass(frozen=True)
class Training:
    """A DiT's size and how it is trained: epsilon prediction, linear betas, 1000 steps."""

    hidden: int
    layers: int
    heads: int
    patch: int
    steps: int
    batch: int
    learning_rate: float
    label_dropout: float = 0.1
    """Share of labels replaced by the null label, once per sample, outside the network."""
    ema_decay: float = 0.999
    """Warmed up: min(decay, (1 + n) / (10 + n)) after n steps."""
    min_snr: float = 5.0
    """Weights of the loss (Hang et al., ICCV 2023, equation 6)."""
    seed: int = 0


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
    from diffusers import DDIMScheduler
    from diffusers.training_utils import EMAModel

    network = _untrained(latents, len(classes), training)
    schedule = DDIMScheduler(beta_schedule="linear", clip_sample=False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=training.learning_rate, weight_decay=0.0)
    ema = EMAModel(network.parameters(), decay=training.ema_decay)
    checkpoint = folder / ".checkpoint"
    begun = _resume(checkpoint, network, optimiser, ema)
    saved = reported = time.monotonic()
    targets = torch.tensor(labels)
    for step in range(begun, training.steps):
        for group in optimiser.param_groups:
            group["lr"] = _learning_rate(training, step)
        loss = _loss(network, schedule, latents, targets, len(classes), training, step)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        ema.step(network.parameters())
        now = time.monotonic()
        if now - reported > REPORT_SECONDS:
            progress(
                f"training a prior, step {step + 1}/{training.steps}, loss {loss:.3f}", (step + 1) / training.steps
            )
            reported = now
        if now - saved > CHECKPOINT_SECONDS:
            _save(checkpoint, network, optimiser, ema, step + 1)
            note_seconds(folder, now - saved)
            saved = now
    ema.copy_to(network.parameters())
    _write(network, schedule, classes, folder)


def _untrained(latents: Tensor, classes: int, training: Training) -> Any:
    from diffusers import DiTTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = DiTTransformer2DModel(
            sample_size=latents.shape[-1],
            in_channels=latents.shape[1],
            out_channels=latents.shape[1],
            patch_size=training.patch,
            num_layers=training.layers,
            num_attention_heads=training.heads,
            attention_head_dim=training.hidden // training.heads,
            num_embeds_ada_norm=classes,
        )
    shared = network.transformer_blocks[0].norm1.emb
    for block in network.transformer_blocks:
        block.norm1.emb = shared
        nn.init.zeros_(block.norm1.linear.weight)
        nn.init.zeros_(block.norm1.linear.bias)
    draw = generator(training.seed, "train-prior", "label table")
    nn.init.normal_(shared.class_embedder.embedding_table.weight, std=0.02, generator=draw)
    for layer in (network.proj_out_1, network.proj_out_2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return network.eval()


def _learning_rate(training: Training, step: int) -> float:
    warm = min(1.0, (step + 1) / 100)
    fall = 0.5 * (1 + np.cos(np.pi * step / training.steps))
    return float(training.learning_rate * warm * (0.05 + 0.95 * fall))


def _loss(
    network: nn.Module, schedule: Any, latents: Tensor, labels: Tensor, null: int, training: Training, step: int
) -> Tensor:
    draw = generator(training.seed, "train-prior", step)
    picked = torch.randint(len(latents), (training.batch,), generator=draw)
    times = torch.randint(len(schedule.alphas_cumprod), (training.batch,), generator=draw)
    noise = torch.randn(training.batch, *latents.shape[1:], generator=draw)
    dropped = torch.rand(training.batch, generator=draw) < training.label_dropout
    noisy = schedule.add_noise(latents[picked], noise, times)
    y = torch.where(dropped, null, labels[picked])
    abar = schedule.alphas_cumprod[times]
    weight = (training.min_snr * (1 - abar) / abar).clamp(max=1.0)
    error = (network(noisy, timestep=times, class_labels=y).sample - noise).pow(2).mean((1, 2, 3))
    return (weight * error).mean()


def _save(checkpoint: Path, network: nn.Module, optimiser: Any, ema: Any, step: int) -> None:
    state = {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "ema": ema.shadow_params,
        "ema_steps": ema.optimization_step,
        "step": step,
    }
    with replacing(checkpoint) as temporary:
        torch.save(state, temporary)


def _resume(checkpoint: Path, network: nn.Module, optimiser: Any, ema: Any) -> int:
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    ema.shadow_params, ema.optimization_step = state["ema"], state["ema_steps"]
    return int(state["step"])


def _write(network: Any, schedule: Any, classes: Sequence[str], folder: Path) -> None:
    import diffusers

    for block in network.transformer_blocks[1:]:
        block.norm1.emb = copy.deepcopy(block.norm1.emb)
    network.save_pretrained(folder / "transformer")
    schedule.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DiTPipeline",
        "_diffusers_version": diffusers.__version__,
        "id2label": {str(label): name for label, name in enumerate(classes)},
        "scheduler": ["diffusers", type(schedule).__name__],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
