"""What keeping the output exactly costs, and what a price on the softmax alone lets happen.

    python benchmarks/exact_output.py --weights resnet20.safetensors --data cifar10_test.npz

Images that the network gets right, drawn with a seed, each attacked towards the map of another one
by the preset ``fast`` with its price on the softmax, and with ``Keep("logits", tolerance=1e-4)``:
the same ball, the same price on the change of the image, in turn. Writes
``benchmarks/results/exact_output.json``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from machine import save
from quality import correct_images

import trompe
from trompe.attacks import Keep
from trompe.metrics import pcc, psnr
from trompe.types import heatmap


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20-cifar10")
    parser.add_argument("--weights")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="of timing, in turn")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    loaded = trompe.load_model(arguments.model, arguments.weights)
    origin, other = correct_images(loaded, arguments.data, 2 * arguments.pairs, seed=0).chunk(2)
    method = trompe.explainer("gradient")
    with torch.no_grad():
        classes = loaded.model(other).argmax(1)
    aim = heatmap(method(loaded.model, other, classes)).detach()
    ways = {"price on the softmax": Keep("softmax"), "logits within 1e-4": Keep("logits", 1e-4)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Any] = {}
    for _ in range(arguments.rounds):
        for name, keep in ways.items():
            start = time.process_time()
            result = trompe.manipulate(
                loaded.model,
                origin,
                aim,
                explainer=method,
                input_space=loaded.input_space,
                preset="fast",
                keep_output=keep,
            )
            seconds[name].append(time.process_time() - start)
            change = result.logits_adv - result.logits_original
            softmax = result.logits_adv.softmax(1) - result.logits_original.softmax(1)
            before, after = (loaded.input_space.to_pixels(t) for t in (result.x, result.x_adv))
            found[name] = {
                "success": int(result.success.sum()),
                "map_pcc": statistics.median(pcc(result.map_adv, result.aim).tolist()),
                "logit_l2": statistics.median(change.norm(dim=1).tolist()),
                "logit_l2_largest": float(change.norm(dim=1).max()),
                "softmax_l2": statistics.median(softmax.norm(dim=1).tolist()),
                "psnr": statistics.median(psnr(after, before).tolist()),
            }
    for name, numbers in found.items():
        numbers["cpu_seconds"] = statistics.median(seconds[name])
    dear, cheap = (seconds[name] for name in ("logits within 1e-4", "price on the softmax"))
    ratio = statistics.median(a / b for a, b in zip(dear, cheap, strict=True))
    results = {"pairs": len(origin), "model": arguments.model, "ways": found, "cost_ratio": ratio}
    for name, numbers in found.items():
        print(name, {key: float(f"{value:.3g}") for key, value in numbers.items()})
    print(f"cost: {ratio:.2f} x; {save('exact_output', results)}")


if __name__ == "__main__":
    main()
