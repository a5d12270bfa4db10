"""What is left of a manipulation after a JPEG codec, of an attack that reckons with it and one not.

    python benchmarks/survival.py --model squeezenet1_1 --weights F --photos imagenet_samples

Pairs of photos, each attacked towards the map of the other's explanation by ``fast`` with and
without ``through=[Jpeg(75), Jpeg(90)]``; every figure after Pillow's codec. Writes
``benchmarks/results/survival.json``, one entry per model and method.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, save

import trompe
from trompe.attacks import LInfBall, preset_for
from trompe.attacks.channels import Jpeg
from trompe.attacks.steps import ScaledAdam
from trompe.metrics import pcc, psnr
from trompe.types import heatmap
from trompe.zoo.images import load_image

CODECS = (Jpeg(75), Jpeg(90))


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="squeezenet1_1")
    parser.add_argument("--weights")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--method", default="gradient")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--first", type=int, default=40, help="of the photos, in order of names")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--radius", type=float, help="of the ball, pixel units; the preset's")
    parser.add_argument("--step", type=float, help="first step, as a share of --radius")
    parser.add_argument("--closeness", type=float, help="price on the change; the preset's")
    arguments = parser.parse_args()
    if arguments.step is not None and arguments.radius is None:
        parser.error("--step is a share of --radius: give both")
    torch.set_num_threads(1)
    loaded = trompe.load_model(arguments.model, arguments.weights)
    model, space = loaded.model, loaded.input_space
    files = sorted(arguments.photos.glob("*.jpg"))[arguments.first :]
    files = files[: 2 * arguments.pairs]
    pixels = torch.stack([load_image(path, how=loaded.preprocessing) for path in files])
    x, other = space.from_pixels(pixels).chunk(2)
    method = trompe.explainer(arguments.method)
    with torch.no_grad():
        aim = heatmap(method(model, other, model(other).argmax(1))).detach()
    settings = preset_for("fast", method, x.shape[-2])
    if arguments.radius is not None:
        settings = dataclasses.replace(settings, constraint=LInfBall(arguments.radius))
        if arguments.step is not None:
            step = ScaledAdam(arguments.step * arguments.radius)
            settings = dataclasses.replace(settings, step=step)
    if arguments.closeness is not None:
        settings = dataclasses.replace(settings, closeness=arguments.closeness)
    found: dict[str, Any] = {}

    def median(a: torch.Tensor, b: torch.Tensor) -> float:
        return statistics.median(pcc(a, b).tolist())

    for name, through in (("blind", ()), ("knowing", CODECS)):
        result = trompe.manipulate(
            model,
            x,
            aim,
            explainer=method,
            input_space=space,
            preset=settings,
            iterations=arguments.iterations,
            through=through,
            batch_size=1,
        )
        entry: dict[str, Any] = {
            "success": int(result.success.sum()),
            "target_pcc": median(result.map_adv, result.aim),
            "target_pcc_before": median(result.map_original, result.aim),
            "psnr": statistics.median(
                psnr(space.to_pixels(result.x_adv), space.to_pixels(x)).tolist()
            ),
        }
        for codec in CODECS:
            maps = [
                heatmap(method(model, codec.real(one, space), result.target_class)).detach()
                for one in (result.x_adv, x)
            ]
            entry[f"jpeg {codec.quality}"] = {
                "target_pcc": median(maps[0], result.aim),
                "original_pcc": median(maps[0], result.map_original),
                "clean_pcc": median(maps[1], result.map_original),
                "class_kept": int(
                    (model(codec.real(result.x_adv, space)).argmax(1) == result.target_class).sum()
                ),
            }
        found[name] = entry
        print(name, json.dumps(entry))
    path = RESULTS / "survival.json"
    entries = json.loads(path.read_text())["entries"] if path.exists() else {}
    entries[f"{arguments.model} {arguments.method}, {settings.constraint!r}"] = {
        "pairs": len(x),
        "iterations": arguments.iterations,
        "settings": {
            "constraint": repr(settings.constraint),
            "closeness": settings.closeness,
            "step": repr(settings.step),
        },
        "attacks": found,
    }
    print(save("survival", {"entries": entries}))


if __name__ == "__main__":
    main()
