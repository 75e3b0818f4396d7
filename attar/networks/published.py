"""The networks that the published evaluations train, held to their published parameter counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision import models

Norm = Literal["instance", "batch"]


def normalisation(channels: int, norm: Norm) -> nn.Module:
    return InstanceNorm(channels, channels) if norm == "instance" else nn.BatchNorm2d(channels)


class InstanceNorm(nn.GroupNorm):
    """Instance norm as a group norm of one channel a group, which also takes a single pixel.

    torch's group norm is slow in the channels-last layout on CPUs, in which convolutions are fastest: it has its own
    code there, but where it is compiled. The arithmetic is that of float32 for bfloat16 images, too.
    """

    def forward(self, x: Tensor) -> Tensor:
        plain = x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16)
        if plain or torch.compiler.is_compiling() or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        y: Tensor = _ChannelsLast.apply(x.float(), self.weight, self.bias, self.eps)
        return y.to(x.dtype)


class _ChannelsLast(torch.autograd.Function):
    """Instance norm by operations that are fast where an image's channels lie side by side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        centred = x - x.mean((2, 3), keepdim=True)
        inverse = (centred.square().mean((2, 3), keepdim=True) + eps).rsqrt()
        scale = inverse * weight[:, None, None]
        ctx.save_for_backward(centred, inverse, scale)
        return torch.addcmul(bias[:, None, None], centred, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        centred, inverse, scale = ctx.saved_tensors
        product = gradient * centred
        mean, along = gradient.mean((2, 3), keepdim=True), product.mean((2, 3), keepdim=True)
        torch.addcmul(-mean * scale, gradient, scale, out=product)
        product.addcmul_(centred, -along * scale * inverse.square())
        pixels = gradient.shape[2] * gradient.shape[3]
        return product, pixels * (along * inverse).sum((0, 2, 3)), pixels * mean.sum((0, 2, 3)), None


class ConvNet(nn.Sequential):
    """Blocks of 3x3 convolution, norm, ReLU and 2x2 average pooling, then a linear head (Zhao and Bilen, DC, 2021).

    The first convolution pads 28-pixel images to 32; an odd size loses its last row and column in the pooling.
    """

    def __init__(self, classes: int, size: int, depth: int, width: int, norm: Norm) -> None:
        layers: list[nn.Module] = []
        channels = 3
        for block in range(depth):
            padding = 3 if block == 0 and size == 28 else 1
            layers += [
                nn.Conv2d(channels, width, 3, padding=padding),
                normalisation(width, norm),
                nn.ReLU(inplace=True),
                nn.AvgPool2d(2),
            ]
            channels = width
        side = (32 if size == 28 else size) >> depth
        super().__init__(*layers, nn.Flatten(), nn.Linear(width * side * side, classes))


class StridingBlock(nn.Module):
    """The basic residual block of ResNet: it shrinks by strides (He et al., CVPR 2016)."""

    def __init__(self, channels: int, width: int, norm: Norm, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1, bias=False),
            normalisation(width, norm),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            normalisation(width, norm),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), normalisation(width, norm))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class PoolingBlock(nn.Module):
    """The same block where average pooling takes the place of the strides: ResNetAP (Kim et al., IDC, ICML 2022)."""

    def __init__(self, channels: int, width: int, norm: Norm, stride: int) -> None:
        super().__init__()
        pool: nn.Module = nn.AvgPool2d(stride) if stride != 1 else nn.Identity()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False),
            normalisation(width, norm),
            nn.ReLU(inplace=True),
            pool,
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            normalisation(width, norm),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), pool, normalisation(width, norm))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


Block = Callable[[int, int, Norm, int], nn.Module]


def resnet(classes: int, size: int, blocks: int, block: Block, norm: Norm, width: int = 64) -> nn.Module:
    """IDC's ResNets: four stages of `blocks` blocks, a stem that depends on the image size, and a mean over pixels."""
    layers: list[nn.Module] = [*_stem(size, width, norm, strides=block is StridingBlock)]
    channels = width
    for stage in range(4):
        for index in range(blocks):
            layers.append(block(channels, width << stage, norm, 2 if stage > 0 and index == 0 else 1))
            channels = width << stage
    network = nn.Sequential(*layers, _Mean(), nn.Linear(channels, classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _stem(size: int, width: int, norm: Norm, strides: bool) -> list[nn.Module]:
    """To 64 pixels a 3x3 convolution; to 128 a pooling by 2 after it; above, 7x7 and a fourth of the size."""
    large = size > 128
    kernel, stride = (7, 2 if strides else 1) if large else (3, 1)
    stem: list[nn.Module] = [
        nn.Conv2d(3, width, kernel, stride, kernel // 2, bias=False),
        normalisation(width, norm),
        nn.ReLU(inplace=True),
    ]
    if size > 64:
        stem.append(nn.MaxPool2d(3, 2, 1) if strides else nn.AvgPool2d(4 if large else 2))
    return stem


class _Mean(nn.Module):
    """The mean over the pixels, whatever their number: (N, C, H, W) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def resnet_of_modified_stem(depth: int, classes: int) -> nn.Module:
    """torchvision's ResNet with a 3x3 convolution of stride 1 as its stem and no max pooling (RDED, SRe2L, D3HR)."""
    network: nn.Module = models.get_model(f"resnet{depth}", weights=None, num_classes=classes)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    return network
