"""What a prior's middle layer makes of clean latents: features that no network needs to be trained for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attar.priors.dit import DiT
from attar.priors.prior import Prior
from attar.priors.stable_diffusion import PromptedUNet

TIME = 50
"""The small time that the network is told. No noise is added: it sees the mean of what latents are at that time."""


@torch.inference_mode()
def middle_features(prior: Prior, z: Tensor) -> Tensor:
    """The middle block's output (N, D) for clean latents (N, C, H, W), its mean over places; float32, on the CPU.

    The network is told of no class. Of a DiT it is the block after half of them, of a U-Net the one at the bottom.
    """
    block, pooled = _middle(prior.network)
    noiseless = prior.schedule.noised(z.to(prior.device), TIME, torch.zeros_like(z, device=prior.device))
    null = torch.full((len(z),), prior.null, device=prior.device)
    seen: list[Tensor] = []
    handle = block.register_forward_hook(lambda _block, _inputs, output: seen.append(pooled(output).float().cpu()))
    try:
        for rows, y in zip(noiseless.split(prior.tile), null.split(prior.tile), strict=True):
            prior(rows, TIME, y)
            seen[-1] = seen[-1][: len(rows)]
    finally:
        handle.remove()
    return torch.cat(seen)


def _middle(network: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The block in the middle, and how its output becomes one vector for each image."""
    if isinstance(network, PromptedUNet):
        return network.unet.mid_block, lambda output: output.mean((2, 3))
    assert isinstance(network, DiT), "a prior is a DiT or a U-Net"
    blocks = network.transformer.transformer_blocks
    return blocks[len(blocks) // 2], lambda output: output.mean(1)
