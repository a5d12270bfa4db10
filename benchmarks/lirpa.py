"""Proved bounds of a gradient's change beside those of auto_LiRPA 0.3, on the same small networks.

    python benchmarks/lirpa.py --peer VENV/bin/python

``--peer`` is an interpreter that has auto_LiRPA (``pip install auto-LiRPA==0.3 tqdm 'numpy<1.24'``
asks for torch 1.12, so for Python 3.10 and an environment of its own); without it, or where it has
none, nothing is measured and the exit code is 0. Fully connected softplus networks with trained
weights (``sandwich.digits``): per l2 radius, at most the l2 change of the gradient of the predicted
logit, over the strongest change found by search; the mean bound of single entries, which is what
auto_LiRPA bounds; and seconds, all in one run on one thread. Written to
``benchmarks/results/lirpa.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import save
from sandwich import digits
from torch import Tensor, nn

import trompe
from trompe.certificates.ball import ball
from trompe.certificates.methods import proved
from trompe.certificates.prepared import Prepared
from trompe.certificates.worst_case import strongest_change

RADII = (0.01, 0.1, 0.3, 1.0)
BETAS = (0.8, 10.0)


def own(net: nn.Module, x: Tensor, target: int, radius: float) -> dict[str, float]:
    """Trompe's smallest bound of one point: l2, the mean of single entries, seconds."""
    start = time.perf_counter()
    found = proved(Prepared(net, x, target), ball(radius, "l2"), "best")
    seconds = time.perf_counter() - start
    entries = [
        torch.maximum(-one.change.low, one.change.high).clamp(max=one.ball)
        for sets in found.sets.values()
        for one in sets[:1]  # the second holds directions only
    ]
    return {
        "l2": found.best("gradient_l2"),
        "entry": float(torch.stack([e.flatten() for e in entries]).amin(0).mean()),
        "seconds": seconds,
    }


def peers(python: str, net: nn.Sequential, x: Tensor, target: Tensor, beta: float) -> Any:
    """What auto_LiRPA gives, row by row; ``None`` where that interpreter has none."""
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    arrays: dict[str, Any] = {"x": x, "target": target, "beta": beta, "radii": RADII}
    for index, layer in enumerate(layers):
        arrays |= {f"weight{index}": layer.weight.detach(), f"bias{index}": layer.bias.detach()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.npz"
        np.savez(path, **{name: np.asarray(value) for name, value in arrays.items()})
        if subprocess.run([python, "-c", "import auto_LiRPA"], capture_output=True).returncode:
            return None
        script = Path(__file__).with_name("lirpa_bounds.py")
        done = subprocess.run(
            [python, str(script), str(path)], stdout=subprocess.PIPE, text=True, check=True,
            env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def compared(python: str, net: nn.Sequential, x: Tensor, beta: float) -> list[dict[str, Any]]:
    """Bound, ratio to the attack and seconds of all methods, medians over the points."""
    smooth = trompe.smooth(net, beta=beta)
    target = net(x).argmax(1)
    theirs = peers(python, net, x, target, beta)
    if theirs is None:
        return []
    rows = []
    for radius in RADII:
        attack = strongest_change(smooth, x, radius=radius, target=target, quantity="gradient_l2")
        found: dict[str, list[dict[str, float]]] = {"trompe": []}
        for index in range(len(x)):
            found["trompe"].append(own(smooth, x[index : index + 1], int(target[index]), radius))
        for row in theirs:
            if row["radius"] == radius:
                here = slice(row["point"], row["point"] + 1)
                gradient = trompe.explainer("gradient")(smooth, x[here], target[here])
                away = gradient[0].detach() - torch.tensor(row["centre"], dtype=gradient.dtype)
                assert float(away.abs().max()) < 1e-9
                found.setdefault(f"auto_LiRPA, {row['method']}", []).append(row)
        for name, all_of in found.items():
            ratios = [
                one["l2"] / float(change) for one, change in zip(all_of, attack.change, strict=True)
            ]
            assert min(ratios) >= 1 - 1e-9, (name, radius, ratios)
            rows.append(
                {
                    "beta": beta,
                    "radius": radius,
                    "method": name,
                    "ratio": statistics.median(ratios),
                    "entry": statistics.median(one["entry"] for one in all_of),
                    "seconds": statistics.median(one["seconds"] for one in all_of),
                }
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="a Python interpreter that has auto_LiRPA")
    options = parser.parse_args()
    if options.peer is None:
        print("left out: give --peer, an interpreter that has auto_LiRPA")
        return
    torch.set_num_threads(1)
    net, x, accuracy = digits()
    assert isinstance(net, nn.Sequential)
    rows = [row for beta in BETAS for row in compared(options.peer, net, x, beta)]
    if not rows:
        print(f"left out: {options.peer} has no auto_LiRPA")
        return
    save("lirpa", {"network": "64-32-32-10", "points": len(x), "accuracy": accuracy, "rows": rows})


if __name__ == "__main__":
    main()
