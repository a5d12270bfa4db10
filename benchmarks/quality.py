"""What an attack reaches, at which perturbation, in which time: presets side by side.

    python benchmarks/quality.py --data tiny_imagenet50_val.npz --pairs 8

Pairs of validation images that ``tiny-vgg`` gets right, drawn with a seed; every preset attacks the
same pairs in one batch, on one thread. Time is the process's own (``time.process_time``), so that
other work on the machine counts as little as it can. Writes ``benchmarks/results/quality.json``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from machine import save

import trompe
from trompe.metrics import l2, linf, pcc, psnr, softmax_l2, ssim
from trompe.types import LoadedModel, heatmap
from trompe.zoo.images import NpzImages


def correct_images(loaded: LoadedModel, path: Path, count: int, seed: int) -> torch.Tensor:
    """``count`` normalised images of different classes that the model gets right."""
    data = NpzImages(path)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).tolist()
    images: list[torch.Tensor] = []
    classes: set[int] = set()
    for index in order:
        pixels, label = data[index]
        x = loaded.input_space.from_pixels(pixels.unsqueeze(0))
        if label not in classes and int(loaded.model(x).argmax()) == label:
            classes.add(label)
            images.append(x)
        if len(images) == count:
            return torch.cat(images)
    raise SystemExit(f"{path} has fewer than {count} classes that the model gets right")


def measure(loaded: LoadedModel, method: str, preset: str, x: torch.Tensor) -> dict[str, Any]:
    """Attack the first half of ``x`` towards the maps of the second."""
    explainer = trompe.explainer(method)
    origin, other = x.chunk(2)
    aim = heatmap(explainer(loaded.model, other, loaded.model(other).argmax(1)))
    start = time.process_time()
    result = trompe.manipulate(loaded.model, origin, aim, explainer=explainer, preset=preset)
    seconds = time.process_time() - start
    before, after = (loaded.input_space.to_pixels(t) for t in (result.x, result.x_adv))

    def median(values: torch.Tensor) -> float:
        return statistics.median(values.tolist())

    return {
        "pairs": len(origin),
        "iterations": result.iterations,
        "cpu_seconds_per_image": seconds / len(origin),
        "class_kept": int(result.class_kept.sum()),
        "median": {
            "map_pcc": median(pcc(result.map_adv, result.map_target)),
            "map_ssim": median(ssim(result.map_adv, result.map_target)),
            "map_pcc_before": median(pcc(result.map_original, result.map_target)),
            "l2": median(l2(after, before)),
            "linf_255": 255 * median(linf(after, before)),
            "psnr_db": median(psnr(after, before)),
            "softmax_l2": median(softmax_l2(result.logits_adv, result.logits_original)),
        },
    }


def main() -> None:
    """Measure every preset and method; print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="npz of validation images")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--method", action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    loaded = trompe.load_model("tiny-vgg")
    x = correct_images(loaded, arguments.data, 2 * arguments.pairs, arguments.seed)
    results: dict[str, Any] = {"model": "tiny-vgg", "seed": arguments.seed, "methods": {}}
    for method in arguments.method or ["gradient", "lrp"]:
        results["methods"][method] = {}
        for preset in ("fast", "paper"):
            found = measure(loaded, method, preset, x)
            results["methods"][method][preset] = found
            print(method, preset, found, flush=True)
    print(save("quality", results))


if __name__ == "__main__":
    main()
