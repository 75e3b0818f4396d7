"""The classifiers of torchvision, with fresh weights."""

from __future__ import annotations

from torch import nn
from torchvision import models

from attar.core.errors import AttarError

WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
"""They give more than one set of logits in training, and are left out."""


def names() -> list[str]:
    """The names of the classifiers, without the prefix."""
    return [name for name in models.list_models(module=models) if name not in WITH_AUXILIARY_HEADS]


def build(name: str, classes: int, size: int) -> nn.Module:
    """The network of a name such as torchvision/resnet18.

    Raises:
        AttarError: it cannot take images of this size.
    """
    inner = name.removeprefix("torchvision/")
    sized = {"image_size": size} if inner.startswith("vit_") else {}
    try:
        network: nn.Module = models.get_model(inner, weights=None, num_classes=classes, **sized)
    except ValueError as error:
        raise AttarError(f"torchvision/{inner} cannot take {size}-pixel images: {error}") from error
    return network
