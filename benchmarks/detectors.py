"""How well a manipulated image is told from an honest one, and what an attacker who knows leaves.

    python benchmarks/detectors.py --weights resnet20.safetensors --data cifar10_test.npz

Images that the network gets right, drawn with a seed, each attacked towards the map of another one:
by ``fast``, and by ``fast`` through the channels that the detectors use. Honest images are the same
ones with noise of the same Euclidean size. Per detector the area under the receiver operating
characteristic (0.5: none told apart). Writes ``benchmarks/results/detectors.json``.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from machine import save
from quality import correct_images

import trompe
from trompe.attacks.channels import Jpeg, Noise
from trompe.metrics import pcc, psnr
from trompe.types import heatmap

KNOWING = (Jpeg(75), Jpeg(90), Noise(2 / 255))


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20-cifar10")
    parser.add_argument("--weights")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--method", default="gradient")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    loaded = trompe.load_model(arguments.model, arguments.weights)
    model, space = loaded.model, loaded.input_space
    x, other = correct_images(loaded, arguments.data, 2 * arguments.pairs, seed=0).chunk(2)
    method = trompe.explainer(arguments.method)
    with torch.no_grad():
        classes = model(other).argmax(1)
    aim = heatmap(method(model, other, classes)).detach()
    found: dict[str, Any] = {}
    for name, through in (("fast", ()), ("fast, through the detectors' channels", KNOWING)):
        result = trompe.manipulate(
            model,
            x,
            aim,
            explainer=method,
            input_space=space,
            through=through,
            generator=torch.Generator().manual_seed(0),
        )
        size = (result.x_adv - x).flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        unit = noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        honest = space.clamp(x + size * unit)
        suspect, innocent = (
            trompe.detect(model, images, method, target=result.target_class, input_space=space)
            for images in (result.x_adv, honest)
        )
        found[name] = {
            "success": int(result.success.sum()),
            "map_pcc": statistics.median(pcc(result.map_adv, result.aim).tolist()),
            "map_pcc_before": statistics.median(pcc(result.map_original, result.aim).tolist()),
            "psnr": statistics.median(
                psnr(space.to_pixels(result.x_adv), space.to_pixels(x)).tolist()
            ),
            "after": {
                way: {
                    "target_pcc": statistics.median(pcc(left.map_adv, result.aim).tolist()),
                    "original_pcc": statistics.median(
                        pcc(left.map_adv, result.map_original).tolist()
                    ),
                    "clean_pcc": statistics.median(
                        pcc(left.map_clean, result.map_original).tolist()
                    ),
                }
                for way, left in result.after.items()
            },
            "auroc": suspect.auroc(innocent),
        }
        print(name, found[name])
    results = {
        "model": arguments.model,
        "method": arguments.method,
        "pairs": len(x),
        "attacks": found,
    }
    print(save("detectors", results))


if __name__ == "__main__":
    main()
