"""A vision transformer (Dosovitskiy et al., ICLR 2021) that is small enough for distilled sets and CPUs: timm's."""

from __future__ import annotations

import re

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from attar.core.errors import AttarError

PATCHES = 8
"""Patches in each row and column, where they divide the side of the images; some more where not."""
HEAD = 32
"""Width of a head of attention."""


def build(name: str, classes: int, size: int) -> nn.Module:
    """A name such as vit6-w96: the depth and the width. What classifies is the mean over all patches.

    Raises:
        AttarError: the width is no multiple of 32, or the images have fewer than 8 pixels.
    """
    depth, width = (int(number) for number in re.findall("[0-9]+", name))
    if width % HEAD:
        raise AttarError(
            f"{name}: its width is to be a multiple of {HEAD}: choose vit{depth}-w{-(-width // HEAD) * HEAD}"
        )
    if size < PATCHES:
        raise AttarError(f"{name} sees {PATCHES} x {PATCHES} patches: {size} pixels are too few")
    return VisionTransformer(
        img_size=size,
        patch_size=size // PATCHES,
        embed_dim=width,
        depth=depth,
        num_heads=width // HEAD,
        num_classes=classes,
        class_token=False,
        global_pool="avg",
    )
