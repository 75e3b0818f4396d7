"""The networks of this package, each built from its name, the number of classes and the size of the images."""

from __future__ import annotations

import re

from torch import nn
from torchvision.models.vgg import make_layers

from attar.core.errors import AttarError
from attar.networks.airbench import Airbench
from attar.networks.densenet import DenseNet
from attar.networks.published import ConvNet, PoolingBlock, StridingBlock, resnet, resnet_of_modified_stem


def convnet(name: str, classes: int, size: int) -> nn.Module:
    """A name such as convnet4-bn-w64: the depth, batch norm in place of instance norm, and the width."""
    depth, width = int(name.removeprefix("convnet")[0]), _width(name, 128)
    if size < 2**depth:
        other = f"; convnet{size.bit_length() - 1} would fit" if size >= 8 else ""
        raise AttarError(
            f"{name} halves the image {depth} times: {size} pixels are too few, {2**depth} are needed{other}"
        )
    return ConvNet(classes, size, depth=depth, width=width, norm="batch" if "-bn" in name else "instance")


def resnet_of_width(name: str, classes: int, size: int) -> nn.Module:
    """A name such as resnet10-bn-w16: the depth, batch norm in place of instance norm, and the width."""
    blocks = 1 if name.startswith("resnet10") else 2
    return resnet(classes, size, blocks, StridingBlock, "batch" if "-bn" in name else "instance", _width(name, 64))


def vgg_of_width(name: str, classes: int, size: int) -> nn.Module:
    """A name such as vgg11-bn-w16: the width of its first layer; the deepest have 8 times as much."""
    width = _width(name, 64)
    wide, wider, widest = 2 * width, 4 * width, 8 * width
    layers = [width, "M", wide, "M", wider, wider, "M", widest, widest, "M", widest, widest, "M"]
    features = make_layers(layers, batch_norm=True)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widest, classes))


def resnetap10(name: str, classes: int, size: int) -> nn.Module:
    return resnet(classes, size, blocks=1, block=PoolingBlock, norm="instance")


def resnet18_in(name: str, classes: int, size: int) -> nn.Module:
    return resnet(classes, size, blocks=2, block=StridingBlock, norm="instance")


def resnet18_idc(name: str, classes: int, size: int) -> nn.Module:
    """The stem is that of 32 pixels, whatever the size."""
    return resnet(classes, 32, blocks=2, block=StridingBlock, norm="instance", width=32)


def resnet_modified(name: str, classes: int, size: int) -> nn.Module:
    """A name such as resnet50-modified: the depth."""
    return resnet_of_modified_stem(int(name.removeprefix("resnet").removesuffix("-modified")), classes)


def densenet(name: str, classes: int, size: int) -> nn.Module:
    return DenseNet(classes)


def airbench(name: str, classes: int, size: int) -> nn.Module:
    """A name such as airbench-w32: the width."""
    return Airbench(classes, _width(name, 64))


def _width(name: str, usual: int) -> int:
    """The number after -w in a name."""
    match = re.search(r"-w([0-9]+)$", name)
    return int(match[1]) if match else usual
