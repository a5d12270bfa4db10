"""What an attack reaches, at which perturbation, in which time: presets side by side.

    python benchmarks/quality.py --model tiny-vgg --data tiny_imagenet50_val.npz --pairs 8
    python benchmarks/quality.py --model resnet20-cifar10 --weights F --data cifar10_test.npz
        --preset fast --iterations 25 --iterations 50 --iterations 100 --iterations 200
    python benchmarks/quality.py --draw

Pairs of validation images that the model gets right, drawn with a seed; every preset attacks the
same pairs in one batch, on one thread. Time is the process's own (``time.process_time``), so that
other work on the machine counts as little as it can. Attacks of fewer steps are attacks of their
own, with their own schedule, not the beginnings of longer ones. Writes
``benchmarks/results/quality.json``; what was measured before, of other models and methods, stays.
SqueezeNet on photos is measured by ``photos.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, save

import trompe
from trompe.metrics import l2, linf, pcc, psnr, softmax_l2, ssim
from trompe.types import LoadedModel, heatmap
from trompe.zoo.images import NpzImages


def correct_images(loaded: LoadedModel, path: Path, count: int, seed: int) -> torch.Tensor:
    """``count`` normalised images that the model gets right, of as many classes as there are."""
    data = NpzImages(path)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).tolist()
    images: list[torch.Tensor] = []
    classes: set[int] = set()
    for index in order:
        pixels, label = data[index]
        x = loaded.input_space.from_pixels(pixels.unsqueeze(0))
        if label in classes or int(loaded.model(x).argmax()) != label:
            continue
        classes.add(label)
        images.append(x)
        if len(images) == count:
            return torch.cat(images)
        if len(classes) == len(loaded.classes):
            classes.clear()
    raise SystemExit(f"{path} has fewer than {count} images that the model gets right")


def measure(
    loaded: LoadedModel, method: str, preset: str, x: torch.Tensor, iterations: int | None
) -> dict[str, Any]:
    """Attack the first half of ``x`` towards the maps of the second."""
    explainer = trompe.explainer(method)
    origin, other = x.chunk(2)
    aim = heatmap(explainer(loaded.model, other, loaded.model(other).argmax(1)))
    start = time.process_time()
    result = trompe.manipulate(
        *(loaded.model, origin, aim),
        explainer=explainer,
        preset=preset,
        iterations=iterations,
        input_space=loaded.input_space,
    )
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


def draw(models: dict[str, Any]) -> Path:
    """Similarity to the target against seconds, a panel per network and method."""
    import matplotlib.pyplot as plt

    panels = [(name, method) for name, entry in models.items() for method in entry["methods"]]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.4 * len(panels), 3.2), sharey=True, squeeze=False
    )
    for ax, (name, method) in zip(axes[0], panels, strict=True):
        entries = models[name]["methods"][method].values()
        for preset, colour in (("fast", "tab:blue"), ("paper", "tab:orange")):
            found = sorted(
                (e["cpu_seconds_per_image"], e["median"]["map_pcc"], e["median"]["psnr_db"])
                for e in entries
                if e["preset"] == preset
            )
            if found:
                seconds, similarity, psnrs = zip(*found, strict=True)
                ax.plot(seconds, similarity, "o-", color=colour, label=preset)
                ax.annotate(
                    f"{psnrs[-1]:.0f} dB",
                    (seconds[-1], similarity[-1]),
                    textcoords="offset points",
                    xytext=(0, -14),
                    ha="center",
                    fontsize=8,
                )
        ax.set(xscale="log", xlabel="CPU seconds per image", title=f"{name}, {method}", ylim=(0, 1))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.grid(alpha=0.3)
    axes[0][0].set_ylabel("PCC to the target map, median")
    axes[0][0].legend(frameon=False)
    path = RESULTS / "quality.png"
    figure.savefig(path, dpi=130, bbox_inches="tight")
    return path


def main() -> None:
    """Measure every preset and method; print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-vgg")
    parser.add_argument("--weights", type=Path, help="of a model that is not embedded")
    parser.add_argument("--data", type=Path, help="npz of validation images")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--method", action="append", help="gradient and lrp if not given")
    parser.add_argument("--preset", action="append", help="fast and paper if not given")
    parser.add_argument("--iterations", type=int, action="append", help="the preset's if not given")
    parser.add_argument("--draw", action="store_true", help="only draw what was measured")
    arguments = parser.parse_args()
    known = RESULTS / "quality.json"
    models: dict[str, Any] = json.loads(known.read_text())["models"] if known.exists() else {}
    if arguments.draw:
        print(draw(models))
        return
    if arguments.data is None:
        parser.error("--data is needed: an npz of validation images")
    torch.set_num_threads(1)
    loaded = trompe.load_model(arguments.model, arguments.weights)
    x = correct_images(loaded, arguments.data, 2 * arguments.pairs, arguments.seed)
    entry = models.setdefault(arguments.model, {"seed": arguments.seed, "methods": {}})
    for method in arguments.method or ["gradient", "lrp"]:
        results = entry["methods"].setdefault(method, {})
        for preset in arguments.preset or ["fast", "paper"]:
            for iterations in arguments.iterations or [None]:
                found = measure(loaded, method, preset, x, iterations)
                results[f"{preset} {found['iterations']}"] = {"preset": preset, **found}
                print(method, preset, found, flush=True)
                save("quality", {"models": models})


if __name__ == "__main__":
    main()
