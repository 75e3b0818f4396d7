"""Minimax Diffusion: what is tuned of a DiT, put into its network and taken out again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from attar.core.errors import AttarError
from attar.methods.base import Tensors
from attar.methods.minimax.settings import TuneSettings
from attar.priors.prior import Prior
from attar.priors.shared_embedders import SharedDiT, share_embedders, sharing_embedders
from attar.priors.training.adaptors import DiffFit, add_lora, merge_lora


def attach(fit: TuneSettings, network: SharedDiT, stack: ExitStack) -> dict[str, nn.Parameter]:
    """What is tuned, by name, put into the network for as long as the stack lasts."""
    if fit.adapt == "lora":
        add_lora(network, fit.rank, fit.seed, "lora")
        return {name: value for name, value in network.named_parameters() if value.requires_grad}
    adaptor = DiffFit.of(network, scaled=fit.adapt == "difffit", table=fit.adapt == "difffit")
    stack.enter_context(adaptor.attached(network))
    return adaptor.values


@contextmanager
def adapted(fit: TuneSettings, prior: Prior, fitted: Tensors) -> Iterator[Prior]:
    """The prior with tuned weights attached; with LoRA, a copy of it that they are merged into."""
    transformer = transformer_of(prior)
    if fit.adapt != "lora":
        adaptor = DiffFit({name: nn.Parameter(value.to(prior.device, prior.dtype)) for name, value in fitted.items()})
        with sharing_embedders(transformer) as network, adaptor.attached(network):
            yield replace(prior, network=network)
        return
    network = share_embedders(transformer, "LoRA").float()
    add_lora(network, fit.rank, fit.seed, "lora")
    assert not network.load_state_dict(fitted, strict=False).unexpected_keys
    merge_lora(network)
    yield replace(prior, network=network.to(prior.dtype))


def transformer_of(prior: Prior) -> Any:
    """The prior's DiTTransformer2DModel.

    Raises:
        AttarError: the prior is no DiT.
    """
    transformer = getattr(prior.network, "transformer", None)
    if transformer is None:
        raise AttarError(f"fit tunes DiTs only, and this prior is a {type(prior.network).__name__}")
    return transformer
