"""Small versions of the families people use, with random weights, in double precision.

Each builder returns a network and the size of its input. Where torchvision's class takes its
widths as arguments, they are small; the others are used whole, on small images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision.models as tv
from torch import Tensor, nn

from trompe.zoo.resnet20 import ResNet20
from trompe.zoo.tiny import TinyResNet, TinyVGG

Builder = Callable[[], tuple[nn.Module, int]]


def _vgg(layout: list[int | str], batch_norm: bool) -> nn.Module:
    features = tv.vgg.make_layers(layout, batch_norm)  # type: ignore[arg-type]
    head = (nn.Linear(8 * 4, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 5))
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), *head)


def _alexnet() -> nn.Module:
    net = tv.alexnet(num_classes=5)
    net.classifier[1] = nn.Linear(256 * 36, 64)
    net.classifier[4] = nn.Linear(64, 64)
    net.classifier[6] = nn.Linear(64, 5)
    return net


def _mobilenet_v2() -> nn.Module:
    setting = [[1, 8, 1, 1], [6, 12, 2, 2]]
    return tv.MobileNetV2(5, width_mult=0.25, inverted_residual_setting=setting)


def _mobilenet_v3() -> nn.Module:
    from torchvision.models.mobilenetv3 import InvertedResidualConfig

    rows = [
        InvertedResidualConfig(16, 3, 16, 16, True, "RE", 2, 1, 0.5),
        InvertedResidualConfig(16, 5, 32, 16, True, "HS", 1, 1, 0.5),
    ]
    return tv.MobileNetV3(rows, 32, num_classes=5)


def _efficientnet() -> nn.Module:
    from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig

    rows = [MBConvConfig(1, 3, 1, 16, 8, 1, 1, 1), FusedMBConvConfig(2, 3, 1, 8, 8, 1)]
    return tv.EfficientNet([rows[0], rows[1]], 0.1, num_classes=5, last_channel=16)


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig

    return tv.ConvNeXt([CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 1)], num_classes=5)


def _regnet() -> nn.Module:
    from torchvision.models.regnet import BlockParams

    parameters = BlockParams.from_init_params(
        depth=3, w_0=8, w_a=8.0, w_m=2.0, group_width=4, se_ratio=0.25
    )
    return tv.RegNet(parameters, num_classes=5, stem_width=8)


def _vit() -> nn.Module:
    net = tv.VisionTransformer(16, 8, 2, 2, 16, 24, num_classes=5)
    nn.init.normal_(net.heads[0].weight)  # type: ignore[arg-type]
    return net


def _swin() -> nn.Module:
    return tv.SwinTransformer([4, 4], 8, [2, 1], [2, 2], [2, 2], num_classes=5)


def _resnet(block: type[nn.Module]) -> nn.Module:
    net = tv.ResNet(block, [1, 1, 1, 1], num_classes=5, width_per_group=64)  # type: ignore[arg-type]
    return net


SMALL: dict[str, Builder] = {
    "tiny_vgg": lambda: (TinyVGG(5), 64),
    "tiny_resnet": lambda: (TinyResNet(5, (4, 8, 8, 8)), 32),
    "resnet20": lambda: (ResNet20(5), 16),
    "vgg": lambda: (_vgg([4, "M", 8, 8, "M"], False), 16),
    "vgg_bn": lambda: (_vgg([4, "M", 8, 8, "M"], True), 16),
    "densenet": lambda: (tv.DenseNet(4, (2, 2), 8, 2, num_classes=5), 32),
    "mobilenet_v2": lambda: (_mobilenet_v2(), 32),
    "mobilenet_v3": lambda: (_mobilenet_v3(), 32),
    "efficientnet": lambda: (_efficientnet(), 32),
    "shufflenet": lambda: (tv.ShuffleNetV2([2, 2, 2], [8, 16, 16, 16, 16], num_classes=5), 64),
    "regnet": lambda: (_regnet(), 32),
    "convnext": lambda: (_convnext(), 32),
    "vit": lambda: (_vit(), 16),
    "swin": lambda: (_swin(), 32),
}
"""Small enough for every test."""

WHOLE: dict[str, Builder] = {
    "alexnet": lambda: (_alexnet(), 224),
    "vgg11": lambda: (tv.vgg11(num_classes=10), 32),
    "vgg16": lambda: (tv.vgg16(num_classes=10), 32),
    "vgg16_bn": lambda: (tv.vgg16_bn(num_classes=10), 32),
    "squeezenet1_1": lambda: (tv.squeezenet1_1(num_classes=10), 48),
    "resnet18": lambda: (tv.resnet18(num_classes=10), 32),
    "resnet50": lambda: (tv.resnet50(num_classes=10), 32),
    "densenet121": lambda: (tv.densenet121(num_classes=10), 32),
    "mobilenet_v2": lambda: (tv.mobilenet_v2(num_classes=10), 32),
    "mobilenet_v3_small": lambda: (tv.mobilenet_v3_small(num_classes=10), 32),
    "efficientnet_b0": lambda: (tv.efficientnet_b0(num_classes=10), 32),
    "convnext_tiny": lambda: (tv.convnext_tiny(num_classes=10), 32),
    "googlenet": lambda: (
        tv.googlenet(num_classes=10, aux_logits=False, init_weights=False),
        32,
    ),
    "shufflenet_v2_x0_5": lambda: (tv.shufflenet_v2_x0_5(num_classes=10), 32),
    "regnet_y_400mf": lambda: (tv.regnet_y_400mf(num_classes=10), 32),
    "vit_b_16": lambda: (tv.vit_b_16(num_classes=10, image_size=32), 32),
    "swin_t": lambda: (tv.swin_t(num_classes=10), 32),
}
"""torchvision's own, for the slow tests."""


def settle(net: nn.Module, size: int) -> nn.Module:
    """Random but sane: evaluation mode, double precision, batch norms with statistics."""
    net = net.double()
    generator = torch.Generator().manual_seed(3)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
            if module.affine:
                shape = module.weight.shape
                draw = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
                module.weight.data = 0.5 + draw[0]
                module.bias.data = 0.4 * draw[1] - 0.2
        elif isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.1)
        if hasattr(module, "layer_scale"):
            nn.init.constant_(module.layer_scale, 0.5)
    net.train()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    with torch.no_grad():
        net(images(size, 4, seed=5))
    return net.eval().requires_grad_(False)


def build(builder: Builder) -> tuple[nn.Module, int]:
    """The network of a builder, settled, and the size of its input."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, size = builder()
        return settle(net, size), size


def images(size: int, count: int = 2, seed: int = 0) -> Tensor:
    """Random images [count, 3, size, size], in double precision."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)
