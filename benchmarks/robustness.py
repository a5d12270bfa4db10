"""The worst case of explanations: ``trompe.auto_attack`` beside Ghorbani's attack as it is coded.

    python benchmarks/robustness.py --weights F --data cifar10_test.npz --images 32

Images are drawn with a seed from all of the file, right or wrong, and explained for the class that
the network predicts. What is reported is computed anew from the images that were found, by the
metrics of trompe on the original network. Ghorbani's attack (2019) is done as its code and those
built on it do it: softplus of beta 1 in place of ReLU, the mass of the top k, sign steps of 0.5/255
from the original image; judged at every step on the original network, which theirs is not. A third
attack, written here from nothing but the model, says whether the ensemble leaves something to be
found: 300 steps of gathered signs on a softplus network, from another random start. Writes
``benchmarks/results/robustness.json`` after every batch; started again it goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, save
from torch import Tensor

import trompe
from trompe.attacks.observation import observe
from trompe.engine import frozen, smooth
from trompe.metrics import pcc, spearman, topk_intersection
from trompe.robustness import MEASURES, ball_of, chance, share
from trompe.types import LoadedModel
from trompe.zoo.npz_images import NpzImages

TOP = 100
TAUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def drawn(loaded: LoadedModel, path: Path, count: int, seed: int) -> tuple[Tensor, list[int]]:
    """Normalised images [N, 3, H, W], and their numbers in the file."""
    data = NpzImages(path)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).tolist()
    pixels = torch.stack([data[index][0] for index in order[:count]])
    return loaded.input_space.from_pixels(pixels), order[:count]


def ghorbani(
    loaded: LoadedModel, x: Tensor, method: str, radius: float, steps: int, beta: float
) -> Tensor:
    """The images of the least top-100 intersection that the attack as coded comes by."""
    net, space, explainer = frozen(loaded.model), loaded.input_space, trompe.explainer(method)
    surrogate, ball = smooth(net, beta=beta), ball_of("linf", radius)
    target = net(x).argmax(1)
    with torch.no_grad():
        origin = observe(net, explainer, x, target)
    top = origin.map.flatten(1).topk(TOP, dim=1).indices
    best, least, now = x.clone(), torch.ones(len(x)), x.clone()
    for _ in range(steps):
        start = now.clone().requires_grad_(True)
        heat = observe(surrogate, explainer, start, target).map
        (grad,) = torch.autograd.grad(heat.flatten(1).gather(1, top).sum(), start)
        moved = now - space.scale(0.5 / 255, x) * grad.sign()
        now = ball.project(moved, x, space)
        with torch.no_grad():
            seen = observe(net, explainer, now, target)
        common = topk_intersection(seen.map, origin.map, k=TOP)
        better = (common < least) & (seen.logits.argmax(1) == target)
        least = torch.where(better, common, least)
        best = torch.where(better.view(-1, 1, 1, 1), now, best)
    return best


def independent(
    loaded: LoadedModel, x: Tensor, method: str, radius: float, seed: int, steps: int = 300
) -> Tensor:
    """The images of the least correlation that a plain descent comes by."""
    net, space, explainer = frozen(loaded.model), loaded.input_space, trompe.explainer(method)
    surrogate = smooth(net, beta=5.0)
    pixels, target = space.to_pixels(x), net(x).argmax(1)
    with torch.no_grad():
        origin = observe(net, explainer, x, target)
    draws = torch.rand(x.shape, generator=torch.Generator().manual_seed(7_919 + seed))
    now = (pixels + radius * (2 * draws - 1)).clamp(0, 1)
    best, least, gathered = x.clone(), torch.ones(len(x)), torch.zeros_like(x)
    for step in range(steps):
        surrogate.beta = 5 * 60 ** (step / steps)
        start = now.clone().requires_grad_(True)
        seen = observe(surrogate, explainer, space.from_pixels(start), target)
        own = seen.logits.gather(1, target.view(-1, 1))[:, 0]
        lead = own - seen.logits.scatter(1, target.view(-1, 1), -torch.inf).amax(1)
        loss = pcc(seen.map, origin.map) + (0.5 - lead).clamp_min(0)
        (grad,) = torch.autograd.grad(loss.sum(), start)
        gathered = 0.9 * gathered + grad / grad.abs().flatten(1).mean(1).view(-1, 1, 1, 1)
        share = 0.005 + 0.495 * 0.5 * (1 + math.cos(math.pi * step / steps))
        moved = now - share * radius * gathered.sign()
        now = moved.clamp(pixels - radius, pixels + radius).clamp(0, 1)
        image = space.from_pixels(now)
        with torch.no_grad():
            seen = observe(net, explainer, image, target)
        found = pcc(seen.map, origin.map)
        better = (found < least) & (seen.logits.argmax(1) == target)
        least = torch.where(better, found, least)
        best = torch.where(better.view(-1, 1, 1, 1), image, best)
    return best


def judged(loaded: LoadedModel, x: Tensor, images: Tensor, method: str) -> dict[str, list[float]]:
    """What images show, beside the original ones."""
    net, explainer = frozen(loaded.model), trompe.explainer(method)
    target = net(x).argmax(1)
    heats = [trompe.heatmap(explainer(net, some, target)) for some in (images, x)]
    space = loaded.input_space
    change = (space.to_pixels(images) - space.to_pixels(x)).abs().flatten(1).amax(dim=1)
    return {
        "topk": topk_intersection(*heats, k=TOP).tolist(),
        "pcc": pcc(*heats).tolist(),
        "spearman": spearman(*heats).tolist(),
        "kept": (net(images).argmax(1) == target).tolist(),
        "linf": change.tolist(),
    }


def batch(loaded: LoadedModel, x: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    """All that is measured of some images, per image."""
    radius = options.radius / 255
    start = time.process_time()
    found = trompe.auto_attack(
        loaded,
        x,
        explainer=options.method,
        radius=radius,
        budget=options.budget,
        generator=torch.Generator().manual_seed(options.seed),
    )
    seconds = time.process_time() - start
    other = independent(loaded, x, options.method, radius, options.seed)
    coded = ghorbani(loaded, x, options.method, radius, 100, beta=1.0)
    return {
        "worst": {name: value.tolist() for name, value in found.worst.items()},
        "found_by": dict(found.found_by),
        "by_member": {
            who: {name: value.tolist() for name, value in values.items()}
            for who, values in found.by_member.items()
        },
        "by_topk": judged(loaded, x, found.images["topk"], options.method),
        "by_pcc": judged(loaded, x, found.images["pcc"], options.method),
        "ghorbani_beta_1": judged(loaded, x, coded, options.method),
        "independent": judged(loaded, x, other, options.method),
        "flags": list(found.flags),
        "judged": found.judged.tolist(),
        "flipped": found.flipped.tolist(),
        "failures": dict(found.failures),
        "cost": dict(found.cost),
        "seconds": seconds,
    }


def mean(values: list[float]) -> float:
    """The mean of numbers."""
    return sum(values) / len(values)


def column(batches: list[dict[str, Any]], *keys: str) -> list[Any]:
    """One list of a value per image, of all batches."""
    rows: list[Any] = []
    for one in batches:
        for key in keys:
            one = one[key]
        rows += one
    return rows


def summary(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers that are quoted."""
    worst = {name: column(batches, "worst", name) for name in MEASURES}
    members = batches[0]["by_member"]
    count = len(worst["pcc"])
    curve = []
    for tau in TAUS:
        robust = share(sum(value >= tau for value in worst["pcc"]), count)
        curve.append([tau, robust.value, robust.low, robust.high])
    return {
        "images": count,
        "top_100": mean(column(batches, "by_topk", "topk")),
        "top_100_by_chance": TOP / 1024,
        "topk_by_chance": chance("topk", 32, 32),
        "pcc": mean(column(batches, "by_pcc", "pcc")),
        "spearman": mean(worst["spearman"]),
        "labels_kept": mean(column(batches, "by_topk", "kept") + column(batches, "by_pcc", "kept")),
        "largest_linf": max(column(batches, "by_topk", "linf") + column(batches, "by_pcc", "linf")),
        "ghorbani_beta_1": {
            name: mean(column(batches, "ghorbani_beta_1", name))
            for name in ("topk", "pcc", "spearman", "kept")
        },
        "independent": {
            name: mean(column(batches, "independent", name))
            for name in ("topk", "pcc", "spearman", "kept")
        },
        "independent_finds_worse": sum(
            other < own
            for other, own in zip(column(batches, "independent", "pcc"), worst["pcc"], strict=True)
        ),
        "members": {
            who: {name: mean(column(batches, "by_member", who, name)) for name in MEASURES}
            for who in members
        },
        "worst": {name: mean(values) for name, values in worst.items()},
        "robust_accuracy_curve_pcc": curve,
        "flags": {
            flag: sum(flag in flags for one in batches for flags in one["flags"])
            for flag in sorted({f for one in batches for flags in one["flags"] for f in flags})
        },
        "forward_passes_per_image": mean([one["cost"]["forward_passes"] for one in batches]),
        "seconds_per_image": sum(one["seconds"] for one in batches) / count,
    }


def main() -> None:
    """Measure, and write after every batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20-cifar10")
    parser.add_argument("--weights")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--method", default="gradient")
    parser.add_argument("--radius", type=float, default=2.0, help="of 255")
    parser.add_argument("--budget", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = trompe.load_model(options.model, options.weights)
    x, numbers = drawn(loaded, options.data, options.images, options.seed)
    kept = ("model", "method", "radius", "budget", "seed", "batch")
    settings = {name: getattr(options, name) for name in kept}
    path, before = RESULTS / "robustness.json", {}
    if path.exists():
        before = json.loads(path.read_text())
    same = before.get("settings") == settings
    batches: list[dict[str, Any]] = before["batches"] if same else []
    for first in range(len(batches) * options.batch, options.images, options.batch):
        batches.append(batch(loaded, x[first : first + options.batch], options))
        found = {
            "settings": settings,
            "data": options.data.name,
            "numbers": numbers[: sum(len(one["judged"]) for one in batches)],
            "summary": summary(batches),
            "batches": batches,
        }
        save("robustness", found)
        print(json.dumps(found["summary"], indent=1), flush=True)


if __name__ == "__main__":
    main()
