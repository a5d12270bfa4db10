"""What an attack reaches, at which perturbation, in which time: presets side by side.

    python benchmarks/quality.py --model tiny-vgg --data tiny_imagenet50_val.npz --pairs 8
    python benchmarks/quality.py --model resnet20-cifar10 --weights F --data cifar10_test.npz
        --preset fast --iterations 25 --iterations 50 --iterations 100 --iterations 200
    python benchmarks/quality.py --preset reference --reference DIR --method gradient --pairs 4
    python benchmarks/quality.py --draw

Pairs of validation images that the model gets right, drawn with a seed; every preset attacks the
same pairs in one batch, on one thread. ``reference`` is the paper's own code, in a clone DIR made
by you, with its settings; it knows networks laid out as VGG, one image at a time. Time is the
process's own (``time.process_time``), so that other work on the machine counts as little as it can.
Attacks of fewer steps are attacks of their
own, with their own schedule, not the beginnings of longer ones. Writes
``benchmarks/results/quality.json``; what was measured before, of other models and methods, stays.
SqueezeNet on photos is measured by ``photos.py``, and drawn here.
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
from reference_code import Reference

import trompe
from trompe.attacks import Adam, preset_for
from trompe.attacks.observation import observe
from trompe.metrics import l2, linf, pcc, psnr, softmax_l2, ssim
from trompe.types import Explainer, LoadedModel, heatmap
from trompe.zoo.npz_images import NpzImages


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
    loaded: LoadedModel,
    method: str,
    preset: str,
    x: torch.Tensor,
    iterations: int | None,
    folder: Path | None,
) -> dict[str, Any]:
    """Attack the first half of ``x`` towards the maps of the second."""
    explainer = trompe.explainer(method)
    origin, other = x.chunk(2)
    aim = heatmap(explainer(loaded.model, other, loaded.model(other).argmax(1)))
    start = time.process_time()
    if preset == "reference":
        if folder is None:
            raise SystemExit("the reference needs --reference, a clone of it")
        iterations = iterations or preset_for("paper", explainer, x.shape[-2]).iterations
        found = by_reference(folder, loaded, method, origin, aim, iterations)
    else:
        result = trompe.manipulate(
            loaded.model,
            origin,
            aim,
            explainer=explainer,
            preset=preset,
            iterations=iterations,
            input_space=loaded.input_space,
        )
        found, iterations = result.x_adv, result.iterations
    seconds = time.process_time() - start
    return {
        "iterations": iterations,
        "cpu_seconds_per_image": seconds / len(origin),
        **judged(loaded, explainer, origin, found, aim),
    }


def by_reference(
    folder: Path,
    loaded: LoadedModel,
    method: str,
    x: torch.Tensor,
    aim: torch.Tensor,
    iterations: int,
) -> torch.Tensor:
    """The last iterates of the reference implementation, as its program writes them."""
    settings = preset_for("paper", trompe.explainer(method), x.shape[-2])
    grow = settings.beta_start is not None
    found = []
    for image, target in zip(x.split(1), aim.split(1), strict=True):
        reference = Reference(folder, loaded.model)
        assert isinstance(settings.step, Adam)
        rate = settings.step.learning_rate
        found.append(reference.attack(image.clone(), target, method, iterations, rate, grow))
    return torch.cat(found)


def judged(
    loaded: LoadedModel,
    explainer: Explainer,
    x: torch.Tensor,
    x_adv: torch.Tensor,
    aim: torch.Tensor,
) -> dict[str, Any]:
    """What was reached, seen by the original model for the original class; medians."""
    with torch.no_grad():
        target = loaded.model(x).argmax(1)
        was = observe(loaded.model, explainer, x, target)
        now = observe(loaded.model, explainer, x_adv, target)
    before, after = (loaded.input_space.to_pixels(t) for t in (x, x_adv))

    def median(values: torch.Tensor) -> float:
        return statistics.median(values.tolist())

    return {
        "pairs": len(x),
        "class_kept": int((now.logits.argmax(1) == target).sum()),
        "median": {
            "map_pcc": median(pcc(now.map, aim)),
            "map_ssim": median(ssim(now.map, aim)),
            "map_pcc_before": median(pcc(was.map, aim)),
            "l2": median(l2(after, before)),
            "linf_255": 255 * median(linf(after, before)),
            "psnr_db": median(psnr(after, before)),
            "softmax_l2": median(softmax_l2(now.logits, was.logits)),
        },
    }


Point = tuple[float, float, float]
"""Seconds per image, PCC to the target map, PSNR of the image in dB; medians."""


def curves(models: dict[str, Any]) -> dict[tuple[str, str], dict[str, list[Point]]]:
    """Per network and method, per preset: what it reaches with more and more steps."""
    found: dict[tuple[str, str], dict[str, list[Point]]] = {}

    def add(network: str, method: str, preset: str, point: Point) -> None:
        found.setdefault((network, method), {}).setdefault(preset, []).append(point)

    photos = RESULTS / "photos.json"
    for run, entry in json.loads(photos.read_text())["runs"].items() if photos.exists() else ():
        for method, of_run in entry.items():
            if method == "machine":
                continue
            seconds = of_run["seconds_per_image_step"] * of_run["iterations"]
            median = of_run["median"]
            point = (seconds, median["map_to_target_pcc"], median["image_psnr_db"])
            add("squeezenet1_1", method, run.split("-")[0], point)
    for name, entry in models.items():
        for method, runs in entry["methods"].items():
            for of_run in runs.values():
                median = of_run["median"]
                point = (of_run["cpu_seconds_per_image"], median["map_pcc"], median["psnr_db"])
                add(name, method, of_run["preset"], point)
    return {key: {preset: sorted(p) for preset, p in runs.items()} for key, runs in found.items()}


CURVES = {
    "fast": ("trompe, fast", "tab:blue"),
    "thorough": ("trompe, thorough", "tab:green"),
    "paper": ("trompe, paper", "tab:orange"),
    "reference": ("the paper's code", "tab:red"),
}
"""Name in the legend and colour of each preset, and of the paper's code."""


def draw(models: dict[str, Any]) -> Path:
    """Similarity to the target against seconds: a row per network, a panel per method."""
    import matplotlib.pyplot as plt

    found = curves(models)
    rows = list(dict.fromkeys(name for name, _ in found))
    columns = list(dict.fromkeys(method for _, method in found))
    figure, axes = plt.subplots(
        len(rows),
        len(columns),
        figsize=(3.6 * len(columns), 2.9 * len(rows)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for i, name in enumerate(rows):
        for j, method in enumerate(columns):
            ax = axes[i][j]
            if (name, method) not in found:
                ax.axis("off")
                continue
            for preset, points in found[name, method].items():
                seconds, similarity, psnrs = zip(*points, strict=True)
                colour = CURVES[preset][1]
                ax.plot(seconds, similarity, "o-", color=colour, ms=4)
                ax.annotate(
                    f"{psnrs[-1]:.0f} dB",
                    (seconds[-1], similarity[-1]),
                    textcoords="offset points",
                    xytext=(0, 7 if preset in ("fast", "thorough") else -14),
                    ha="center",
                    fontsize=8,
                    color=colour,
                )
            ax.set(xscale="log", title=f"{name}, {method}", ylim=(0, 1.12))
            ax.margins(x=0.15)
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter("")
            ax.grid(alpha=0.3)
            ax.set_xlabel("CPU seconds per image")
        axes[i][0].set_ylabel("PCC to the target, median")
    names, colours = zip(*CURVES.values(), strict=True)
    lines = [plt.Line2D([], [], color=colour, marker="o", ms=4) for colour in colours]
    figure.legend(lines, names, loc="outside upper center", ncols=4, frameon=False)
    path = RESULTS / "quality.png"
    figure.savefig(path, dpi=110)
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
    parser.add_argument("--reference", type=Path, help="clone of the reference")
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
                found = measure(loaded, method, preset, x, iterations, arguments.reference)
                results[f"{preset} {found['iterations']}"] = {"preset": preset, **found}
                print(method, preset, found, flush=True)
                save("quality", {"models": models})


if __name__ == "__main__":
    main()
