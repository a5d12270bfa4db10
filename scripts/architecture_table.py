"""Write the table of methods and architectures, from ``trompe.cli.coverage.check``.

Random weights, images of 32 or 64 pixels (those a network needs), double precision:

    python scripts/architecture_table.py docs/architectures.md
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torchvision.models as tv

from trompe.cli.coverage import candidates, check
from trompe.zoo.resnet20 import ResNet20
from trompe.zoo.tiny import TinyResNet, TinyVGG

NETWORKS = {
    "tiny-vgg": (TinyVGG, 64),
    "tiny-resnet": (TinyResNet, 64),
    "resnet20": (ResNet20, 32),
    "alexnet": (lambda: tv.alexnet(num_classes=10), 64),
    "vgg11": (lambda: tv.vgg11(num_classes=10), 32),
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
    "vit_b_16": (lambda: tv.vit_b_16(num_classes=10, image_size=32), 32),
    "swin_t": (lambda: tv.swin_t(num_classes=10), 32),
}
SIGNS = {"works": "yes", "not defined": "-", "refused": "refused", "wrong": "WRONG"}


def table(names: list[str]) -> str:
    """The table in Markdown: a row per network, a column per method."""
    methods = list(candidates())
    lines = ["| network | " + " | ".join(methods) + " |", "| --- |" + " --- |" * len(methods)]
    for name in names:
        make, size = NETWORKS[name]
        torch.manual_seed(0)
        x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
        rows = check(make(), x)
        lines.append(f"| {name} | " + " | ".join(SIGNS[row.status] for row in rows) + " |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    chosen = sys.argv[2:] or list(NETWORKS)
    text = (
        "# Which method explains which network\n\n"
        "Made by `python scripts/architecture_table.py`; `trompe models --check NAME` tries one\n"
        "network. *yes*: the map is finite and its derivative agrees with finite differences on\n"
        "the smoothed network; *-*: not defined for it (or only with patterns learned from data);\n"
        "*refused*: an operation has no rule, and the error says so.\n\n" + table(chosen)
    )
    Path(sys.argv[1]).write_text(text, encoding="utf-8")
