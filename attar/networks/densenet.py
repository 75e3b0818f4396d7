"""DenseNet for 32-pixel images (Huang et al., CVPR 2017), in the size that IDC and Minimax train beside others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LAYERS = (6, 12, 24, 16)
"""Layers of the four dense blocks, as in DenseNet-121."""


class Dense(nn.Module):
    """Norm, ReLU and a 1x1 convolution, then the same with 3x3; its `growth` new channels stand before the old ones."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(inplace=True),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.body(x), x], 1)


class DenseNet(nn.Sequential):
    """Four dense blocks, between which a 1x1 convolution halves the channels and pooling the image; batch norm."""

    def __init__(self, classes: int, growth: int = 12) -> None:
        channels = 2 * growth
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
        for block, count in enumerate(LAYERS):
            for _ in range(count):
                layers.append(Dense(channels, growth))
                channels += growth
            layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            if block < len(LAYERS) - 1:
                layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
                channels //= 2
        super().__init__(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(channels, classes))
