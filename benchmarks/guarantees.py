"""What is guaranteed of smoothed maps, beside what attacks reach: ``noise_sandwich``.

    --model efficientnet-lite0 --data imagenet_samples
    --model efficientnet-lite0 --data imagenet_samples --sigma 0.25 --denoiser --shares 0.5 1 2
    --model tiny-vgg-noise --data tiny_imagenet50_val.npz --sigma 0.25 --pool 1 --samples 4000

Per photo, method, sigma, at R = sigma / 4, sigma / 2, sigma (l2, pixel units): the certified
correlation, l1 change, largest squares, votes and label; how the smoothed map agrees with the plain
one; and for the first ``--attacked`` photos what the strongest attack leaves of the smoothed map
(on noise that it has not seen) and one in the same ball of the PLAIN map. Each cell is written to
``benchmarks/results/guarantees.json`` when it is done; what is there is not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, save
from torch import Tensor

import trompe
from trompe.certificates import noise_sandwich
from trompe.explain import Method, fitted
from trompe.explain.integrated_grad import IntegratedGrad
from trompe.types import LoadedModel
from trompe.zoo.images import load_image
from trompe.zoo.npz_images import NpzImages

SHARES = (0.25, 0.5, 1.0)
"""Radii, in sigma."""


def photos(data: str, loaded: LoadedModel, count: int) -> list[tuple[str, Tensor]]:
    """Evenly spaced photos of an archive or a folder: name and normalised image [1, 3, H, W]."""
    if data.endswith(".npz"):
        archive = NpzImages(data)
        chosen = [len(archive) * i // count for i in range(count)]
        pixels = [archive[i][0] for i in chosen]
        names = [str(i) for i in chosen]
    else:
        paths = sorted(Path(data).glob("*.jpg"))
        files = [paths[len(paths) * i // count] for i in range(count)]
        pixels = [load_image(path, how=loaded.preprocessing) for path in files]
        names = [path.stem for path in files]
    return [
        (name, loaded.input_space.from_pixels(image[None]))
        for name, image in zip(names, pixels, strict=True)
    ]


def method(name: str, loaded: LoadedModel, options: argparse.Namespace) -> Method:
    """A method by name; integrated gradients with the number of steps asked for."""
    found = fitted(name, loaded)
    if isinstance(found, IntegratedGrad):
        found = dataclasses.replace(found, steps=options.steps, chunk=8)
    return found


def cell(
    loaded: LoadedModel, name: str, x: Tensor, options: argparse.Namespace, sigma: float
) -> dict[str, Any]:
    """What is certified of one photo, method and sigma."""
    radii = [share * sigma for share in options.shares]
    start = time.process_time()
    found = trompe.certify(
        loaded,
        x,
        method="noise",
        explainer=method(name, loaded, options),
        sigma=sigma,
        samples=options.samples,
        pool=options.pool,
        radius=radii,
        batch_size=options.batch,
        denoiser=options.denoiser,
    )
    return {
        "radius": radii,
        "pcc": [round(value, 5) for value in found.pcc[0].tolist()],
        "heatmap_l1": [round(value, 5) for value in found.heatmap_l1[0].tolist()],
        "topk_overlap": [round(value, 4) for value in found.overlap[0].tolist()],
        "votes_certified": [round(value, 4) for value in found.votes_certified[0].tolist()],
        "label_kept": found.label_kept[0].tolist(),
        "label_share": round(float(found.label_share[0]), 4),
        "target_share": round(float(found.target_share[0]), 4),
        "pcc_to_plain": round(float(found.pcc_to_plain[0]), 4),
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def attacks(
    loaded: LoadedModel, name: str, x: Tensor, options: argparse.Namespace, sigma: float
) -> dict[str, Any]:
    """What attacks leave of the correlation, of the smoothed and of the plain map."""
    start = time.process_time()
    found = noise_sandwich(
        loaded,
        x,
        explainer=method(name, loaded, options),
        radii=[share * sigma for share in options.shares],
        sigma=sigma,
        samples=100,  # the certificate is the one of ``cell``
        pool=options.pool,
        iterations=options.iterations,
        denoiser=options.denoiser,
    )
    return {
        "attacked_smoothed": [round(one.attacked_pcc, 5) for one in found.layers],
        "attacked_plain": [round(one.plain_pcc, 4) for one in found.layers],
        "attack_cpu_seconds": round(time.process_time() - start, 1),
    }


def ratios(row: dict[str, Any]) -> list[float]:
    """(1 - certified) / (1 - attacked) per radius."""
    pairs = zip(row["pcc"], row["attacked_smoothed"], strict=True)
    return [(1 - bound) / max(1 - found, 1e-5) for bound, found in pairs]


def summary(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Medians over the photos of each network, method and sigma."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for key, row in cells.items():
        groups.setdefault(key.rsplit("/", 1)[0], []).append(row)
    out: dict[str, Any] = {}
    for key, rows in groups.items():
        out[key] = {"photos": len(rows)}
        for name in ("pcc", "heatmap_l1", "topk_overlap", "attacked_plain", "attacked_smoothed"):
            values = [row[name] for row in rows if name in row]
            if values:
                out[key][name] = [
                    round(statistics.median(column), 4) for column in zip(*values, strict=True)
                ]
        for name in ("label_share", "target_share", "pcc_to_plain", "cpu_seconds"):
            out[key][name] = round(statistics.median(row[name] for row in rows), 4)
        out[key]["radius"] = rows[0]["radius"]
        out[key]["label_certified"] = [
            sum(column) for column in zip(*(row["label_kept"] for row in rows), strict=True)
        ]
        both = [row for row in rows if "attacked_smoothed" in row]
        out[key]["attacked"] = len(both)
        if both:
            out[key]["ratio"] = [
                round(statistics.median(column), 1)
                for column in zip(*(ratios(row) for row in both), strict=True)
            ]
    return out


def known() -> dict[str, dict[str, Any]]:
    """The cells that are done."""
    path = RESULTS / "guarantees.json"
    cells: dict[str, dict[str, Any]] = {}
    return json.loads(path.read_text())["cells"] if path.exists() else cells


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-vgg")
    parser.add_argument("--data", required=True, help="an archive .npz or a folder of .jpg")
    parser.add_argument("--explainer", action="append", help="repeat for several")
    parser.add_argument("--sigma", type=float, action="append", help="repeat for several")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--attacked", type=int, default=0, help="how many of them, from the first")
    parser.add_argument("--pool", type=int, default=8)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="radii, in sigma")
    parser.add_argument("--iterations", type=int, default=20, help="of the attacks")
    parser.add_argument("--batch", type=int, default=16, help="noisy copies per pass")
    parser.add_argument("--steps", type=int, default=30, help="of integrated gradients")
    parser.add_argument("--denoiser", action="store_true")
    parser.add_argument("--print", action="store_true", help="cells, and write nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = trompe.load_model(options.model)
    loaded.model.to(memory_format=torch.channels_last)  # faster here; the map is the same
    who = f"{options.model}{'+denoiser' if options.denoiser else ''}"
    for number, (photo, x) in enumerate(photos(options.data, loaded, options.images)):
        for name in options.explainer or ["gradient", "lrp", "grad_cam"]:
            for sigma in options.sigma or [0.1]:
                label = f"{name}, {options.steps} steps" if name == "integrated_grad" else name
                key = f"{who}/{label}/{sigma:g}/{options.pool}/{options.samples}/{photo}"
                done = {} if options.print else known()
                row = done.get(key) or cell(loaded, name, x, options, sigma)
                if number < options.attacked and "attacked_smoothed" not in row:
                    row = row | attacks(loaded, name, x, options, sigma)
                if done.get(key) == row:
                    continue
                print(json.dumps({key: row}), flush=True)
                if options.print:
                    continue
                cells = {**known(), key: row}
                save("guarantees", {"confidence": 0.99, "summary": summary(cells), "cells": cells})


if __name__ == "__main__":
    main()
