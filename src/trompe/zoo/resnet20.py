"""ResNet-20 for CIFAR-10 (He et al. 2016, section 4.2), with shortcuts without parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ResNet20", "resnet20"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut that pads channels with zeros.

    Args:
        width: number of input channels.
        channels: number of output channels.
        stride: of the first convolution; the shortcut takes every ``stride``-th row and column.
    """

    def __init__(self, width: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.extra = (channels - width) // 2

    def forward(self, x: Tensor) -> Tensor:
        """``relu(residual(x) + shortcut(x))``."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x
        if self.extra:
            shortcut = x[:, :, :: self.stride, :: self.stride]
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.extra, self.extra))
        return F.relu(out + shortcut)


class ResNet20(nn.Module):
    """Three stages of three basic blocks with 16, 32 and 64 channels; parameters as published.

    Args:
        classes: number of output classes.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, stride=1)
        self.layer2 = self._stage(16, 32, stride=2)
        self.layer3 = self._stage(32, 64, stride=2)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(width: int, channels: int, stride: int) -> nn.Sequential:
        first = BasicBlock(width, channels, stride)
        return nn.Sequential(first, BasicBlock(channels, channels), BasicBlock(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """The logits [B, classes] of images [B, 3, 32, 32]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def resnet20(classes: int = 10) -> nn.Module:
    """An untrained ResNet-20."""
    return ResNet20(classes)
