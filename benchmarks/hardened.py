"""The embedded hardened networks beside their plain twins: accuracy, worst case, faithfulness.

    python benchmarks/hardened.py --data tiny_imagenet50_val.npz --radius 1.5 --budget 0.15

Gradient maps; accuracy on all images, the attack (``trompe.auto_attack``, linf) on ``--attacked``
of them, evenly spaced. Each row is written to ``benchmarks/results/hardened.json`` when it is done;
what is there is not done again.
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


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", action="append", choices=NETWORKS)
    parser.add_argument("--radius", type=float, default=1.5, help="of 255")
    parser.add_argument("--budget", type=float, default=0.15)
    parser.add_argument("--attacked", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "hardened.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else {}
    for name in options.model or NETWORKS:
        key = f"{name}/{options.radius:g}/{options.budget:g}/{options.attacked}"
        if key in rows:
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
