"""Training a prior: steps of AdamW with an average of the weights."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from attar.priors.folder import linear_scheduler
from attar.priors.shared_embedders import SharedDiT
from attar.priors.training.latent_set import held_in_memory
from attar.priors.training.optimise import Session
from attar.priors.training.settings import Denoising
from attar.priors.training.train import train_network
from attar.training.processes import accelerator
from benchmarks.models import CLASSES, SHAPES, autoencoder, named, of_blocks, plain, prior, transformer
from benchmarks.timing import Case, Where

SIZES = {"tiny": ("tiny", 4, 2), "small": ("small", 32, 2), "full": ("quarter", 4, 1)}
"""Network, batch and steps."""


def case(size: str, where: Where) -> Case:
    shape, batch, steps = SIZES[size]
    side = SHAPES[shape]["sample_size"]
    z = torch.randn(4 * batch, 4, side, side, generator=torch.Generator().manual_seed(0))
    y = torch.arange(len(z)) % CLASSES[shape]
    network = SharedDiT(_trainable(shape, torch.device("cpu")))
    plan = Denoising(steps=steps, batch=batch)
    helper = accelerator(str(where.device), named(where.dtype))

    def attar() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            session = Session(Path(scratch), helper, "benchmark")
            train_network(network, held_in_memory(z, y), linear_scheduler(), plan, session)

    networks = {dtype: _trainable(shape, where.device) for dtype in where.formats}
    return Case(
        ours=attar,
        best={named(dtype): partial(loop, networks[dtype], z, y, batch, steps, dtype) for dtype in where.formats},
        straight=partial(straight, _trainable(shape, where.device), z, y, batch, steps, shape),
        work=f"{steps} steps of {batch} latents{of_blocks(shape)}",
        flops=3.0 * batch * steps * prior(shape, where).row_flops(),
    )


def _trainable(size: str, device: torch.device) -> Any:
    made = type(transformer(size)).from_config(transformer(size).config)
    made.load_state_dict(transformer(size).state_dict())
    return made.to(device).requires_grad_(True)


def loop(network: Any, z: torch.Tensor, y: torch.Tensor, batch: int, steps: int, dtype: torch.dtype) -> None:
    """diffusers' network, mixed precision, the fused optimiser, an average kept by torch."""
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    average = [p.detach().clone() for p in network.parameters()]
    abar, device = linear_scheduler().alphas_cumprod.to(network.device), network.device
    for _ in range(steps):
        picked, t = torch.randint(len(z), (batch,)), torch.randint(1000, (batch,), device=device)
        clean, noise = z[picked].to(device), torch.randn(batch, *z.shape[1:], device=device)
        at = abar[t].view(-1, 1, 1, 1)
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = network(at.sqrt() * clean + (1 - at).sqrt() * noise, t, y[picked].to(device)).sample
        F.mse_loss(output[:, :4].float(), noise).backward()
        optimiser.step()
        optimiser.zero_grad()
        torch._foreach_lerp_(average, [p.detach() for p in network.parameters()], 1e-4)


def straight(network: Any, z: torch.Tensor, y: torch.Tensor, batch: int, steps: int, size: str) -> None:
    """In float32; a batch's images are encoded at every step, weights are averaged one by one."""
    vae = plain("autoencoder", size, network.device, torch.float32)
    images = torch.zeros(batch, 3, autoencoder(size).config.sample_size, autoencoder(size).config.sample_size)
    average = [p.detach().clone() for p in network.parameters()]
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4, foreach=False)
    for _ in range(steps):
        with torch.no_grad():
            clean = vae.encode(images.to(network.device)).latent_dist.sample()
        t, noise = torch.randint(1000, (batch,), device=network.device), torch.randn_like(clean)
        at = linear_scheduler().alphas_cumprod.to(network.device)[t].view(-1, 1, 1, 1)
        labels = y[torch.randint(len(y), (batch,))].to(network.device)
        output = network(at.sqrt() * clean + (1 - at).sqrt() * noise, t, labels).sample
        F.mse_loss(output[:, :4], noise).backward()
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            for kept, parameter in zip(average, network.parameters(), strict=True):
                kept.mul_(0.9999).add_(parameter, alpha=0.0001)
