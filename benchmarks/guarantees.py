"""What is guaranteed of smoothed maps, beside what attacks reach: ``certify(method="noise")``.

    python benchmarks/guarantees.py --data tiny_imagenet50_val.npz --sigma 0.1 --attack-smoothed
    python benchmarks/guarantees.py --model efficientnet-lite0 --data imagenet_samples --images 2

Per photo, method, sigma, at R = sigma / 4, sigma / 2, sigma (l2, pixel units): the certified
correlation, l1 change, largest squares, votes and label; how the smoothed map agrees with the plain
one; the correlation that an attack of the PLAIN map in the same ball leaves (objective ``unlike``,
label kept), and with ``--attack-smoothed`` one of the smoothed map (through 8 fixed noisy copies,
judged on 300 others). Each cell is written to ``benchmarks/results/guarantees.json``
when it is done; what is there is not done again.
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
from torch import Tensor, nn

import trompe
from trompe.attacks.constraints import L2Ball
from trompe.certificates.noisy_maps import Noise
from trompe.explain import fitted
from trompe.types import LoadedModel, relative
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


def squares(loaded: LoadedModel, explain: Any, x: Tensor, target: Tensor, pool: int) -> Tensor:
    """The plain map over squares, standardised, [P]."""
    noise = Noise(
        model=loaded.model,
        explain=explain,
        x=x,
        target=target,
        sigma=1.0,
        input_space=loaded.input_space,
        pool=pool,
        batch_size=1,
        generator=torch.Generator(),
    )
    return noise.plain()[0].standardised[0]


def smoothed(
    loaded: LoadedModel, explain: Any, x: Tensor, target: Tensor, sigma: float, pool: int
) -> Tensor:
    """The mean standardised map over 300 noisy copies, the same noise for every image, [P]."""
    noise = Noise(
        model=loaded.model,
        explain=explain,
        x=x,
        target=target,
        sigma=sigma,
        input_space=loaded.input_space,
        pool=pool,
        batch_size=16,
        generator=torch.Generator().manual_seed(12345),
    )
    total = sum(batch.standardised.sum(dim=0) for batch in noise.batches(300))
    assert isinstance(total, Tensor)
    return torch.nn.functional.normalize(total, dim=0)


class MeanMap:
    """The mean heat map over a few noisy copies, always the same: what an attack can climb.

    Args:
        base: The method whose maps are averaged.
        loaded: The model.
        sigma: Of the noise, in pixel units.
        copies: How many.
    """

    def __init__(self, base: Any, loaded: LoadedModel, sigma: float, copies: int = 8) -> None:
        self.base, self.space, self.sigma, self.copies = base, loaded.input_space, sigma, copies

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        """The mean heat map, [B, 1, H, W], with a graph where x has one."""
        generator = torch.Generator().manual_seed(7)
        noise = torch.randn((self.copies, 1, *x.shape[1:]), generator=generator).to(x)
        points = (x + self.space.scale(self.sigma, x) * noise).flatten(0, 1)
        share = relative(self.base(model, points, target.repeat(self.copies)))
        return share.unflatten(0, (self.copies, len(x))).mean(dim=0)[:, None]


def attacked(
    loaded: LoadedModel, explain: Any, x: Tensor, target: Tensor, radius: float, iterations: int
) -> Tensor:
    """The image whose map correlates least with that of x, within the radius, label kept."""
    found = trompe.manipulate(
        loaded.model,
        x,
        explainer=explain,
        objective="unlike",
        constraint=L2Ball(radius),
        keep_output="class",
        target=target,
        input_space=loaded.input_space,
        iterations=iterations,
    )
    return found.x_adv.to(x)


def cell(
    loaded: LoadedModel, name: str, x: Tensor, options: argparse.Namespace, sigma: float
) -> dict[str, Any]:
    """All numbers of one photo, method and sigma."""
    explain = fitted(name, loaded)
    radii = [share * sigma for share in SHARES]
    with torch.no_grad():
        target = loaded.model(x).argmax(dim=1)
    start = time.perf_counter()
    found = trompe.certify(
        loaded.model,
        x,
        method="noise",
        explainer=explain,
        sigma=sigma,
        samples=options.samples,
        pool=options.pool,
        radius=radii,
        target=target,
        input_space=loaded.input_space,
        batch_size=16,
    )
    row: dict[str, Any] = {
        "radius": radii,
        "pcc": [round(value, 5) for value in found.pcc[0].tolist()],
        "heatmap_l1": [round(value, 5) for value in found.heatmap_l1[0].tolist()],
        "topk_overlap": [round(value, 4) for value in found.overlap[0].tolist()],
        "votes_certified": [round(value, 4) for value in found.votes_certified[0].tolist()],
        "label_kept": found.label_kept[0].tolist(),
        "label_share": round(float(found.label_share[0]), 4),
        "target_share": round(float(found.target_share[0]), 4),
        "pcc_to_plain": round(float(found.pcc_to_plain[0]), 4),
        "seconds": round(time.perf_counter() - start, 1),
    }
    if options.iterations:
        before = squares(loaded, explain, x, target, options.pool)
        row["attacked_plain"] = []
        for radius in radii:
            x_adv = attacked(loaded, explain, x, target, radius, options.iterations)
            after = squares(loaded, explain, x_adv, target, options.pool)
            row["attacked_plain"].append(round(float(before @ after), 4))
    if options.attack_smoothed:
        mean = MeanMap(explain, loaded, sigma)
        before = smoothed(loaded, explain, x, target, sigma, options.pool)
        row["attacked_smoothed"] = []
        for radius in radii:
            x_adv = attacked(loaded, mean, x, target, radius, options.iterations)
            after = smoothed(loaded, explain, x_adv, target, sigma, options.pool)
            row["attacked_smoothed"].append(round(float(before @ after), 5))
    return row


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
        for name in ("label_share", "target_share", "pcc_to_plain", "seconds"):
            out[key][name] = round(statistics.median(row[name] for row in rows), 4)
    return out


def known() -> dict[str, dict[str, Any]]:
    """The cells that are done."""
    path = RESULTS / "guarantees.json"
    cells: dict[str, dict[str, Any]] = {}
    return json.loads(path.read_text())["cells"] if path.exists() else cells


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-vgg")
    parser.add_argument("--data", required=True, help="an archive .npz or a folder of .jpg")
    parser.add_argument("--explainer", action="append", help="repeat for several")
    parser.add_argument("--sigma", type=float, action="append", help="repeat for several")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--pool", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=20, help="of the attacks; 0 for none")
    parser.add_argument("--attack-smoothed", action="store_true")
    parser.add_argument("--print", action="store_true", help="and write nothing")
    options = parser.parse_args()
    loaded = trompe.load_model(options.model)
    for photo, x in photos(options.data, loaded, options.images):
        for name in options.explainer or ["gradient", "lrp"]:
            for sigma in options.sigma or [0.1]:
                key = f"{options.model}/{name}/{sigma:g}/{options.pool}/{options.samples}/{photo}"
                if key in known() and not options.print:
                    continue
                row = cell(loaded, name, x, options, sigma)
                print(json.dumps({key: row}), flush=True)
                if options.print:
                    continue
                cells = {**known(), key: row}
                save("guarantees", {"confidence": 0.99, "summary": summary(cells), "cells": cells})


if __name__ == "__main__":
    main()
