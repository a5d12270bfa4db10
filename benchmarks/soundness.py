"""Attacks against certificates on random small networks: a bound exceeded once is a lie.

    python benchmarks/soundness.py --cases 1000

Per case: a random network (fully connected, convolutional; residual, branching, batch norm; ReLU
or softplus; max, average or log-sum-exp pooling), point, radius and norm; every method's bound of
every quantity; and the strongest change found by random search, vertices, and gradient ascent on
the change itself. The result goes to ``benchmarks/results/soundness.json``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from machine import save

import trompe
from trompe.certificates.ball import ball
from trompe.certificates.bounds import QUANTITIES
from trompe.certificates.methods import proved
from trompe.certificates.prepared import Prepared
from trompe.certificates.worst_case import strongest_change

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "certificates"))
from random_nets import random_case


def one(seed: int, steps: int, samples: int) -> dict[str, Any]:
    """Bounds, the strongest attacks, and what exceeded what, for one random case."""
    net, x, radius, norm, what = random_case(seed)
    with torch.no_grad():
        found = proved(Prepared(net, x), ball(radius, norm), "best")
        if seed % 5 == 0:  # the loosest bound: less often
            paper = proved(Prepared(net, x, found.target), ball(radius, norm), "frobenius")
            found.sets |= paper.sets
            found.bounds |= paper.bounds
    sets, bounds = found.sets, found.bounds
    target = torch.tensor([found.target])
    gradient = trompe.explainer("gradient")
    before = gradient(net, x, target)
    row: dict[str, Any] = {"seed": seed, "what": what, "ratio": {}, "exceeded": [], "checked": 0}
    for quantity in QUANTITIES:
        attack = strongest_change(
            net,
            x,
            radius=radius,
            norm=norm,
            quantity=quantity,
            steps=steps,
            samples=samples,
            restarts=4,
            generator=torch.Generator().manual_seed(seed),
        )
        lower = float(attack.change)
        for name, upper in bounds.items():
            row["checked"] += 1
            if not lower <= upper[quantity]:
                row["exceeded"].append([name, quantity, lower, upper[quantity]])
        best = min(upper[quantity] for upper in bounds.values())
        if lower > 1e-9:
            row["ratio"][quantity] = best / lower
        after = gradient(net, attack.x_adv, target)
        if not (before.any() and after.any()):
            continue
        one, other = trompe.heatmap(before), trompe.heatmap(after)
        for k in {1, max(1, one[0].numel() // 4)}:
            kept = round(k * float(trompe.metrics.topk_intersection(one, other, k=k)))
            for name, some in sets.items():
                row["checked"] += 1
                sure = max(gradients.kept(k) for gradients in some)
                if kept < sure:
                    row["exceeded"].append([name, f"top {k}", kept, sure])
    return row


def main() -> None:
    """Run all cases and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=1000, help="seed of the first case")
    parser.add_argument("--steps", type=int, default=8, help="of each ascent")
    parser.add_argument("--samples", type=int, default=64, help="random points per quantity")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    rows = []
    for seed in range(options.first, options.first + options.cases):
        rows.append(one(seed, options.steps, options.samples))
        if rows[-1]["exceeded"]:
            print("EXCEEDED", rows[-1], flush=True)
        if len(rows) % 50 == 0:
            print(len(rows), f"{time.perf_counter() - start:.0f} s", flush=True)
    ratios = {
        quantity: sorted(row["ratio"][quantity] for row in rows if quantity in row["ratio"])
        for quantity in QUANTITIES
    }
    save(
        "soundness",
        {
            "cases": len(rows),
            "seeds": [options.first, options.first + options.cases - 1],
            "attack": {"steps": options.steps, "samples": options.samples, "restarts": 4},
            "comparisons": sum(row["checked"] for row in rows),
            "violations": [row for row in rows if row["exceeded"]],
            "kinds": dict(Counter(row["what"].split(", radius")[0] for row in rows)),
            "upper_over_lower": {
                quantity: {
                    "cases": len(values),
                    "smallest": values[0],
                    "quartiles": statistics.quantiles(values, n=4),
                }
                for quantity, values in ratios.items()
            },
            "seconds": round(time.perf_counter() - start),
        },
    )


if __name__ == "__main__":
    main()
