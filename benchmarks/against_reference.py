"""Compare trompe with the reference implementation of the paper, number by number.

    python benchmarks/against_reference.py --reference DIR

DIR is a clone of the GitHub repository pankessel/adv_explanation_ref, made by you; its code is
imported, never copied. On the same small VGG with 1000 outputs, in float64 and on the same photos:

1. the learned patterns and the heat maps of all six methods, ReLU and softplus;
2. twenty steps of the attack under the same settings, for all six methods: the same image.

The reference takes its target and its original output from a softplus network of beta 1000 when
beta grows. That is listed among its bugs; here it takes them from the ReLU network, as trompe does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from machine import save
from reference_code import Reference
from torch import Tensor, nn

import trompe
from trompe.rules.patterns import learn_patterns
from trompe.types import InputSpace, heatmap

METHODS = (
    "gradient",
    "grad_times_input",
    "integrated_grad",
    "guided_backprop",
    "lrp",
    "pattern_attribution",
)


class SmallVGG(nn.Module):
    """The layout the reference understands, small enough for a CPU."""

    def __init__(self, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 3
        for width in (16, 24, 32):
            layers += [nn.Conv2d(previous, width, 3, padding=1), nn.ReLU(True)]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2)]
            previous = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(32 * (size // 8) ** 2, 64),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(64, 1000),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, 1000]."""
        return self.classifier(self.features(x).flatten(1))


def small_vgg(size: int) -> nn.Module:
    """The network, with weights from seed 0, in evaluation mode and float64."""
    torch.manual_seed(0)
    net = SmallVGG(size)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.05)
    return net.eval().requires_grad_(False).double()


def photos(size: int) -> Tensor:
    """scikit-image's cat, coffee and rocket, normalised, [3, 3, size, size], float64."""
    from trompe.zoo.images import default_images

    pixels = torch.stack(list(default_images(size).values())).double()
    return InputSpace().from_pixels(pixels)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest value expected."""
    return float((found - expected).abs().max() / expected.abs().max())


def compare(folder: Path, size: int, steps: int) -> dict[str, Any]:
    """All comparisons; see the module's docstring."""
    net = small_vgg(size)
    reference = Reference(folder, net)
    x = photos(size)
    patterns = learn_patterns(net, [x])
    reference.net.float().learn_pattern(x.float())  # its statistics exist in float32 only
    reference.net.compute_pattern()
    reference.net.double()
    theirs = reference.patterns()
    result: dict[str, Any] = {
        "patterns": {
            "relative_error": max(
                relative_error(ours.double(), other)
                for ours, other in zip(patterns.values(), theirs, strict=True)
            )
        },
        "maps": {},
        "attack": {},
    }
    exact = {name: p for name, p in zip(patterns, theirs, strict=True)}
    options: dict[str, dict[str, Any]] = {"pattern_attribution": {"patterns": exact}}
    for method in METHODS:
        explainer = trompe.explainer(method, **options.get(method, {}))
        result["maps"][method] = {}
        for beta in (None, 10.0, 1.0):
            reference.net.change_beta(beta)
            model = net if beta is None else trompe.smooth(net, beta=beta)
            target = net(x).argmax(1)
            expected = torch.cat(
                [
                    reference.explain(x[i : i + 1].clone(), method, target[i : i + 1])[0].detach()
                    for i in range(len(x))
                ]
            )
            found = heatmap(explainer(model, x, target))
            name = "relu" if beta is None else f"softplus {beta:g}"
            result["maps"][method][name] = relative_error(found, expected)
        reference.net.change_beta(None)
        grow = method != "lrp"
        lr = {"lrp": 2e-4, "integrated_grad": 5e-3, "pattern_attribution": 2e-3}.get(method, 1e-3)
        aim = reference.explain(x[1:2].clone(), method)[0].detach()
        expected = reference.attack(x[:1].clone(), aim, method, steps, lr, grow)
        attacked = trompe.manipulate(
            net,
            x[:1],
            aim,
            explainer=explainer,
            preset="paper",
            iterations=steps,
            keep="last",
        )
        result["attack"][method] = {
            "steps": steps,
            "largest_difference": float((attacked.x_adv - expected).abs().max()),
            "largest_change": float((expected - x[:1]).abs().max()),
        }
    return result


def main() -> None:
    """Compare, print, and write ``benchmarks/results/against_reference.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True, help="clone of the reference")
    parser.add_argument("--size", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--steps", type=int, default=20, help="of the attack")
    arguments = parser.parse_args()
    if not (arguments.reference / "src" / "nn" / "networks.py").exists():
        parser.error(f"{arguments.reference} is no clone of pankessel/adv_explanation_ref")
    result = compare(arguments.reference, arguments.size, arguments.steps)
    print("patterns", f"{result['patterns']['relative_error']:.1e}")
    for method in METHODS:
        maps = "  ".join(f"{k} {v:.1e}" for k, v in result["maps"][method].items())
        attack = result["attack"][method]
        print(
            f"{method:20s} maps: {maps}   image after {attack['steps']} steps: "
            f"{attack['largest_difference']:.1e} (moved {attack['largest_change']:.1e})"
        )
    print(save("against_reference", result))


if __name__ == "__main__":
    main()
