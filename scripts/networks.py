"""The networks of the table of architectures, with random weights and ten classes.

torchvision's and trompe's own; timm's and Hugging Face's need those packages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision.models as tv
from torch import Tensor, nn

from trompe.zoo.probe import Logits
from trompe.zoo.resnet20 import ResNet20
from trompe.zoo.tiny import TinyResNet, TinyVGG


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=10, **options)

    return build


def _vit_b_16() -> nn.Module:
    net = tv.vit_b_16(num_classes=10, image_size=32)
    nn.init.normal_(net.heads[0].weight, std=0.05)  # torchvision starts it at zero: no explanation
    return net


class Shared(nn.Module):
    """Group norms, then a convolution seen row by row by an LSTM where ``recurrent``."""

    def __init__(self, recurrent: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.GroupNorm(4, 16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GroupNorm(8, 32),
            nn.SiLU(),
            nn.Conv2d(32, 32, 1),
            nn.GroupNorm(8, 32),
        )
        self.lstm = nn.LSTM(32, 24, batch_first=True) if recurrent else None
        self.fc = nn.Linear(24 if recurrent else 32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """The logits [B, 10]."""
        h = self.body(x)
        if self.lstm is None:
            return self.fc(h.mean((2, 3)))
        return self.fc(self.lstm(h.flatten(2).transpose(1, 2))[0][:, -1])


class ClipTower(nn.Module):
    """The image tower of CLIP, from Hugging Face, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModel

        config = CLIPVisionConfig(
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=3,
            image_size=32,
            patch_size=8,
        )
        self.tower, self.fc = CLIPVisionModel(config), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """The logits [B, 10]."""
        return self.fc(self.tower(pixel_values=x).pooler_output)


def _settled(build: Callable[[], nn.Module], size: int = 32) -> Callable[[], nn.Module]:
    """With batch norms that have seen images: without, the signal of deep networks vanishes."""

    def settled() -> nn.Module:
        net = build().eval()
        norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        with torch.no_grad():
            net(torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(2)))
        return net.eval()

    return settled


def _mixer() -> nn.Module:
    net = _timm("mixer_s32_224", img_size=64)()
    nn.init.normal_(net.head.weight, std=0.05)  # timm starts it at zero: no explanation
    return net


def _maxvit() -> nn.Module:
    return tv.MaxVit((64, 64), 16, 4, [16, 32], [1, 1], 8, 0.0, num_classes=10)


def _hugging_face() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=32,
        patch_size=8,
        num_labels=10,
    )
    return Logits(ViTForImageClassification(config))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "tiny-vgg": (TinyVGG, 64),
    "tiny-resnet": (TinyResNet, 64),
    "resnet20": (ResNet20, 32),
    "alexnet": (lambda: tv.alexnet(num_classes=10), 64),
    "vgg11": (lambda: tv.vgg11(num_classes=10), 32),
    "vgg16": (lambda: tv.vgg16(num_classes=10), 32),
    "vgg16_bn": (lambda: tv.vgg16_bn(num_classes=10), 32),
    "squeezenet1_1": (lambda: tv.squeezenet1_1(num_classes=10), 48),
    "resnet18": (lambda: tv.resnet18(num_classes=10), 32),
    "resnet50": (lambda: tv.resnet50(num_classes=10), 32),
    "densenet121": (lambda: tv.densenet121(num_classes=10), 32),
    "googlenet": (lambda: tv.googlenet(num_classes=10, aux_logits=False, init_weights=False), 32),
    "mobilenet_v2": (lambda: tv.mobilenet_v2(num_classes=10), 32),
    "mobilenet_v3_small": (lambda: tv.mobilenet_v3_small(num_classes=10), 32),
    "efficientnet_b0": (lambda: tv.efficientnet_b0(num_classes=10), 32),
    "shufflenet_v2_x0_5": (lambda: tv.shufflenet_v2_x0_5(num_classes=10), 32),
    "regnet_y_400mf": (lambda: tv.regnet_y_400mf(num_classes=10), 32),
    "convnext_tiny": (lambda: tv.convnext_tiny(num_classes=10), 32),
    "vit_b_16": (_vit_b_16, 32),
    "swin_t": (lambda: tv.swin_t(num_classes=10), 32),
    "timm resnet18": (_timm("resnet18"), 32),
    "timm densenet121": (_timm("densenet121"), 32),
    "timm mobilenetv3_small_050": (_timm("mobilenetv3_small_050"), 32),
    "timm efficientnet_b0": (_timm("efficientnet_b0"), 32),
    "timm regnety_002": (_timm("regnety_002"), 32),
    "timm convnext_atto": (_timm("convnext_atto"), 32),
    "timm vit_tiny_patch16_224": (_timm("vit_tiny_patch16_224", img_size=32), 32),
    "timm swin_tiny": (_timm("swin_tiny_patch4_window7_224", img_size=64, window_size=4), 64),
    "transformers ViT": (_hugging_face, 32),
    "mnasnet0_5": (_settled(lambda: tv.mnasnet0_5(num_classes=10)), 32),
    "maxvit": (_maxvit, 64),
    "group norm": (lambda: Shared(False), 32),
    "LSTM head": (lambda: Shared(True), 32),
    "timm mnasnet_100": (_settled(_timm("mnasnet_100")), 32),
    "timm ghostnet_100": (_settled(_timm("ghostnet_100")), 32),
    "timm repvgg_a0": (_settled(_timm("repvgg_a0")), 32),
    "timm mambaout_femto": (_timm("mambaout_femto"), 32),
    "timm convnextv2_atto": (_timm("convnextv2_atto"), 32),
    "timm edgenext_xx_small": (_timm("edgenext_xx_small"), 32),
    "timm mixer_s32_224": (_mixer, 64),
    "timm vit_small_patch14_reg4_dinov2": (
        _timm("vit_small_patch14_reg4_dinov2", img_size=42, depth=3),
        42,
    ),
    "transformers CLIP": (ClipTower, 32),
}
"""By name: what makes the network, and the side of its images in pixels."""
