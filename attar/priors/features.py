"""What a prior's middle layer makes of clean latents: features that no network needs to be trained for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attar.priors.dit import DiT
from attar.priors.prior import Prior
from attar.priors.stable_diffusion import PromptedUNet

TIME = 50
"""The small time that is given to the network. No noise is added: it sees the mean of latents at that time."""


@torch.inference_mode()
def prior_features(prior: Prior, z: Tensor) -> Tensor:
    """The middle block's output (N, D) for clean latents (N, C, H, W), its mean over places; float32, on the CPU.

    It is given the null label. Of a DiT it is the block after half of them, of a U-Net the one at the bottom.
    """
    block, pooled = _middle_block(prior.network)
    noiseless = prior.schedule.noised(z.to(prior.device), TIME, torch.zeros_like(z, device=prior.device))
    null = torch.full((len(z),), prior.null, device=prior.device)
    features: list[Tensor] = []
    handle = block.register_forward_hook(lambda _block, _inputs, output: features.append(pooled(output.float()).cpu()))
    try:
        for rows, y in zip(noiseless.split(prior.batch_size), null.split(prior.batch_size), strict=True):
            prior(rows, TIME, y)
            features[-1] = features[-1][: len(rows)]
    finally:
        handle.remove()
    return torch.cat(features)


def features_at(prior: Prior, z: Tensor, t: int, y: Tensor, depth: float) -> Tensor:
    """The output (N, D) of a block for latents (N, C, H, W) at time t and labels (N,), its mean over places; float32.

    Of a DiT it is the block at this share of all, of a U-Net the one at the bottom. The network is asked in one call,
    and no further than that block; gradients go back to z.
    """
    block, pooled = _middle_block(prior.network, depth)

    def stop(_block: nn.Module, _inputs: object, output: Tensor) -> None:
        raise _Found(output)

    handle = block.register_forward_hook(stop)
    try:
        prior.network(z.to(prior.dtype), torch.full((len(z),), t, device=z.device), y)
    except _Found as found:
        return pooled(found.output).float()
    finally:
        handle.remove()
    raise AssertionError("the network has this block")


class _Found(Exception):
    """Carries a block's output out of the network."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def _middle_block(network: nn.Module, depth: float = 0.5) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The block in the middle, or at another share of a DiT's, and how its output becomes one vector for each image."""
    if isinstance(network, PromptedUNet):
        return network.unet.mid_block, lambda output: output.mean((2, 3))
    assert isinstance(network, DiT), "a prior is a DiT or a U-Net"
    blocks = network.transformer.transformer_blocks
    return blocks[int(len(blocks) * depth)], lambda output: output.mean(1)
