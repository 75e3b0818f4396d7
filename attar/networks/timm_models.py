"""The networks of timm, with fresh weights."""

from __future__ import annotations

import timm
from torch import nn

from attar.core.errors import AttarError


def names() -> list[str]:
    """The names of the networks, without the prefix."""
    every: list[str] = timm.list_models()
    return every


def build(name: str, classes: int, size: int) -> nn.Module:
    """The network of a name such as timm/resnet18; the prefix may be left out.

    Raises:
        AttarError: it cannot take images of this size.
    """
    inner = name.removeprefix("timm/")
    known = timm.get_pretrained_cfg(inner, allow_unregistered=True)
    sized = {"img_size": size} if known is not None and known.fixed_input_size else {}
    try:
        network: nn.Module = timm.create_model(inner, pretrained=False, num_classes=classes, **sized)
    except (AssertionError, ValueError) as error:
        raise AttarError(f"timm/{inner} cannot take {size}-pixel images: {error}") from error
    return network
