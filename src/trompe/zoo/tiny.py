"""The two embedded classifiers: small networks for 64x64 pixel images.

Both take RGB images scaled to 0..1 and normalised with the usual ImageNet mean and standard
deviation. Their weights are made by ``scripts/train_tiny.py`` and lie in ``trompe/zoo/weights``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["TinyBlock", "TinyResNet", "TinyVGG", "tiny_resnet", "tiny_vgg"]

#: Convolutions by stage; a 2x2 max-pool ends each of the five stages (64 -> 2 pixels).
VGG_CHANNELS: tuple[tuple[int, ...], ...] = ((16,), (32,), (64, 64), (128, 128), (192, 192))
#: Width of the hidden linear layer of the VGG's classifier.
VGG_HIDDEN = 256
#: Channels of the residual network's four stages.
RESNET_CHANNELS: tuple[int, ...] = (16, 64, 128, 192)
#: Residual blocks in each of those stages.
RESNET_BLOCKS: tuple[int, ...] = (1, 1, 1, 1)


class TinyVGG(nn.Module):
    """A VGG-style network of plain convolutions, ReLU, max-pool and linear layers.

    Args:
        classes: Number of output classes.
        batch_norm: Put a batch norm after each convolution. That is the form the network is
            trained in; the shipped weights have the batch norms folded into the convolutions.
    """

    def __init__(self, classes: int = 50, *, batch_norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for stage in VGG_CHANNELS:
            for channels in stage:
                layers.append(nn.Conv2d(width, channels, 3, padding=1, bias=not batch_norm))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(channels))
                layers.append(nn.ReLU(inplace=False))
                width = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(width * 2 * 2, VGG_HIDDEN),
            nn.ReLU(inplace=False),
            nn.Dropout(0.3),
            nn.Linear(VGG_HIDDEN, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns the class scores (logits) of a batch of shape (N, 3, 64, 64)."""
        scores: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return scores


class TinyBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut around them.

    Args:
        width: Number of input channels.
        channels: Number of output channels.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, width: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or width != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(width, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``relu(residual(x) + shortcut(x))``."""
        identity = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        out = self.relu(out)
        return out


class TinyResNet(nn.Module):
    """A small residual network with batch norm, named like torchvision's.

    Args:
        classes: Number of output classes.
        channels: Channels of the stages; all but the first halve the resolution.
        blocks: Residual blocks in each stage.
    """

    def __init__(
        self,
        classes: int = 50,
        channels: Sequence[int] = RESNET_CHANNELS,
        blocks: Sequence[int] = RESNET_BLOCKS,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels[0], 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.relu = nn.ReLU(inplace=True)
        stages: list[nn.Sequential] = []
        width = channels[0]
        for index, (wide, count) in enumerate(zip(channels, blocks, strict=True)):
            stage = [TinyBlock(width, wide, stride=1 if index == 0 else 2)]
            stage += [TinyBlock(wide, wide) for _ in range(count - 1)]
            stages.append(nn.Sequential(*stage))
            width = wide
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the class scores (logits) of a batch of shape (N, 3, 64, 64)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        scores: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return scores


def tiny_vgg(classes: int = 50) -> nn.Module:
    """Returns an untrained ``tiny-vgg``: conv, ReLU, max-pool and linear layers only."""
    return TinyVGG(classes)


def tiny_resnet(classes: int = 50) -> nn.Module:
    """Returns an untrained ``tiny-resnet``: residual basic blocks with batch norm."""
    return TinyResNet(classes)
