"""Attack below, certificates above: an MLP, tiny-vgg, and SqueezeNet's SmoothGrad.

    python benchmarks/sandwich.py mlp tiny-vgg
    python benchmarks/sandwich.py squeezenet --weights squeezenet.safetensors

Each network's part of ``benchmarks/results/sandwich.json`` is replaced, and the figure
``benchmarks/results/sandwich_NAME.png`` drawn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
from machine import RESULTS, save
from torch import nn

import trompe
from trompe.certificates import sandwich
from trompe.certificates.randomised import certify_smoothgrad, sparse_maps
from trompe.certificates.worst_case import change
from trompe.report.geometry import save_sandwich
from trompe.types import heatmap
from trompe.zoo.images import default_images


def digits() -> tuple[nn.Module, torch.Tensor, float]:
    """A fully connected network 64-32-32-10 trained on scikit-learn-like 8x8 blobs.

    The data are drawn: ten smoothed random prototypes plus noise. Returns the network, four test
    points and the accuracy.
    """
    torch.manual_seed(0)
    prototypes = torch.nn.functional.avg_pool2d(torch.randn(10, 1, 16, 16), 2).flatten(1)
    prototypes = prototypes / prototypes.std()

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        classes = torch.randint(0, 10, (count,))
        return prototypes[classes] + 1.2 * torch.randn(count, 64), classes

    net = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    optimiser = torch.optim.Adam(net.parameters(), 3e-3, weight_decay=1e-4)
    for _ in range(400):
        x, classes = draw(128)
        loss = nn.functional.cross_entropy(net(x), classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x, classes = draw(1000)
    accuracy = float((net(x).argmax(1) == classes).double().mean())
    return net.double().eval(), x[:4].double(), accuracy


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The median ratio per beta, quantity and radius."""
    keys = sorted(
        {(row["beta"] or 1e9, row["quantity"], row["radius"]) for row in rows}, reverse=True
    )
    out = []
    for beta, quantity, radius in keys:
        ratios = [
            row["ratio"]
            for row in rows
            if ((row["beta"] or 1e9), row["quantity"], row["radius"]) == (beta, quantity, radius)
            and row["ratio"] is not None
        ]
        if ratios:
            out.append(
                {
                    "beta": None if beta == 1e9 else beta,
                    "quantity": quantity,
                    "radius": radius,
                    "median_ratio": statistics.median(ratios),
                }
            )
    return out


def enclosed(name: str, net: nn.Module, x: torch.Tensor, **options: Any) -> dict[str, Any]:
    """Run ``sandwich`` and draw it."""
    start = time.perf_counter()

    def progress(done: int, total: int, _: Any) -> None:
        print(name, done, total, f"{time.perf_counter() - start:.0f} s", flush=True)

    found = sandwich(net, x, progress=progress, **options)
    save_sandwich(RESULTS / f"sandwich_{name}.png", found, name)
    rows = found.rows()
    return {
        "images": len(x),
        "options": {k: v for k, v in options.items()},
        "ratios": summary(rows),
        "rows": rows,
        "refused": found.refused,
        "seconds": round(time.perf_counter() - start),
    }


def squeezenet(weights: str, samples: int, sigma: float) -> dict[str, Any]:
    """SmoothGrad of SqueezeNet 1.1: certificates, and what a search finds.

    The search compares means over the same noise: an estimate of the change of the expectation.
    """
    loaded = trompe.load_model("squeezenet1_1", weights)
    x = loaded.input_space.from_pixels(default_images(224)["cat"].unsqueeze(0))
    target = loaded.model(x).argmax(1)
    start = time.perf_counter()
    maps = sparse_maps(loaded.model, x, target, sigma=sigma, samples=samples, block=16)
    here = sparse_maps(loaded.model, x, target, sigma=sigma, samples=64, block=16)
    noise = sigma * torch.randn(8, *x.shape[1:], generator=torch.Generator().manual_seed(1))

    def gradient(point: torch.Tensor, keep: bool = False) -> torch.Tensor:
        point = point if point.requires_grad else point.detach().requires_grad_(True)
        net = trompe.smooth(loaded.model, beta=30.0, pooling=True) if keep else loaded.model
        score = net(point + noise).softmax(1)[:, target].mean()
        return torch.autograd.grad(score, point, create_graph=keep)[0]

    before, surrogate = gradient(x).detach(), gradient(x, True).detach()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    rows = []
    for radius in (0.01, 0.05, 0.15, 0.5):
        offset = radius * direction / direction.norm()
        for _ in range(3):
            point = (x + offset).requires_grad_(True)
            moved = change("gradient_l2", gradient(point, True), surrogate).sum()
            (slope,) = torch.autograd.grad(moved, point)
            offset = offset + radius * slope / slope.norm().clamp(min=1e-30)
            offset = offset * (radius / offset.norm()).clamp(max=1)
        direction = offset
        after = gradient(x + offset).detach()
        there = sparse_maps(loaded.model, x + offset, target, sigma=sigma, samples=64, block=16)
        certificate = certify_smoothgrad(
            loaded.model, x, radius=radius, target=target, maps=maps, confidence=0.99
        )
        found = {
            "gradient_l2": float(change("gradient_l2", after, before)),
            "heatmap_l1": float((heatmap(there.mean) - heatmap(here.mean)).abs().sum()),
        }
        k = 10
        order = here.mean.flatten().argsort(descending=True, stable=True)[:k]
        other = there.mean.flatten().argsort(descending=True, stable=True)[:k]
        rows.append(
            {
                "radius": radius,
                "found_estimate": found,
                "upper": {name: float(getattr(certificate, name)) for name in found},
                "ratio": {
                    name: float(getattr(certificate, name)) / max(value, 1e-30)
                    for name, value in found.items()
                },
                "top10_overlap": {
                    "certified": float(certificate.topk_overlap(k)),
                    "found_estimate": len(set(order.tolist()) & set(other.tolist())) / k,
                },
            }
        )
        print(rows[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
    return {
        "sigma": sigma,
        "samples": samples,
        "block": 16,
        "confidence": 0.99,
        "rows": rows,
        "seconds": round(time.perf_counter() - start),
    }


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", choices=["mlp", "tiny-vgg", "squeezenet"])
    parser.add_argument("--weights", help="of SqueezeNet")
    parser.add_argument("--samples", type=int, default=200, help="of SqueezeNet's SmoothGrad")
    parser.add_argument("--sigma", type=float, default=0.5, help="of its noise")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "sandwich.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results.pop("machine", None)
    for name in options.networks:
        if name == "mlp":
            net, x, accuracy = digits()
            radii = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
            part = enclosed("mlp", net, x[:2], radii=radii, steps=15, restarts=6, samples=48)
            results[name] = {"accuracy": accuracy, **part}
        elif name == "tiny-vgg":
            loaded = trompe.load_model("tiny-vgg")
            x = loaded.input_space.from_pixels(default_images(64)["cat"].unsqueeze(0)).double()
            results[name] = enclosed(
                "tiny-vgg",
                loaded.model.double(),
                x,
                betas=(0.8,),
                patient=True,  # a quarter of an hour for each beta
                radii=[1e-6, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 1.0],
                steps=10,
                restarts=3,
                samples=4,
            )
        else:
            results[name] = squeezenet(options.weights, options.samples, options.sigma)
        save("sandwich", results)


if __name__ == "__main__":
    main()
