"""The embedded hardened networks beside their plain twins: accuracy, worst case, faithfulness.

    python benchmarks/hardened.py --data tiny_imagenet50_val.npz --radius 1.5 --budget 0.15

Gradient maps; accuracy on all images, the attack (``trompe.auto_attack``, linf) on ``--attacked``
of them, evenly spaced. Each row is written to ``benchmarks/results/hardened.json`` when it is done;
what is there is not done again (rows without each image's worst correlation are).

    python benchmarks/hardened.py --data tiny_imagenet50_val.npz --model tiny-vgg-robust --again 1.5

attacks the same images as before, and those whose map withstood once more with another budget:
``benchmarks/results/hardened_again.json`` has the worst correlation of each image.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from machine import RESULTS, save

import trompe
from trompe.defences import measure
from trompe.training import read_labelled

NETWORKS = ("tiny-vgg", "tiny-vgg-noise", "tiny-vgg-robust", "tiny-resnet", "tiny-resnet-robust")
TAU = 0.5
AT_ONCE = 7  # images attacked together again


def attack_again(name: str, options: argparse.Namespace) -> None:
    """Attack what withstood the reported budget with another one, a few images at a time."""
    reported = json.loads((RESULTS / "hardened.json").read_text())["rows"]
    key = f"{name}/{options.radius:g}/{options.budget:g}/{options.attacked}"
    before = reported[key]["worst"]
    path = RESULTS / "hardened_again.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    rows = kept.get("rows", {})
    row = rows.setdefault(f"{key}/{options.again:g}", {})
    loaded = trompe.load_model(name)
    images = read_labelled(options.data, loaded, batch_size=125, seed=None)
    x, _ = images.spread(options.attacked)
    todo = [i for i, pcc in enumerate(before) if pcc >= TAU and str(i) not in row]
    # The nearest to the threshold first: what is left out is what is least likely to fall.
    todo.sort(key=lambda i: before[i])
    for first in range(0, len(todo), AT_ONCE):
        part = todo[first : first + AT_ONCE]
        found = trompe.auto_attack(
            loaded,
            x[part],
            radius=options.radius / 255,
            budget=options.again,
            generator=torch.Generator().manual_seed(0),
        )
        for i, pcc, who in zip(
            part, found.worst["pcc"].tolist(), found.found_by["pcc"], strict=True
        ):
            row[str(i)] = {"pcc": pcc, "by": who}
            print(name, i, before[i], pcc, who, flush=True)
        save("hardened_again", {**kept, "rows": rows})


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", action="append", choices=NETWORKS)
    parser.add_argument("--radius", type=float, default=1.5, help="of 255")
    parser.add_argument("--budget", type=float, default=0.15)
    parser.add_argument("--attacked", type=int, default=25)
    parser.add_argument("--again", type=float, help="budget for the maps that withstood")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.again is not None:
        for name in options.model or NETWORKS:
            attack_again(name, options)
        return
    path = RESULTS / "hardened.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else {}
    for name in options.model or NETWORKS:
        key = f"{name}/{options.radius:g}/{options.budget:g}/{options.attacked}"
        if "worst" in rows.get(key, {}):
            continue
        loaded = trompe.load_model(name)
        images = read_labelled(options.data, loaded, batch_size=125, seed=None)
        x, _ = images.spread(options.attacked)
        measured = measure(
            loaded.model,
            loaded.input_space,
            images,
            x,
            radius=options.radius / 255,
            budget=options.budget,
            batch_size=len(x),
        )
        rows[key] = measured.as_dict()
        print(key, json.dumps(rows[key]), flush=True)
        save("hardened", {"rows": rows})


if __name__ == "__main__":
    main()
