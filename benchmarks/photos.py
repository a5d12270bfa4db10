"""A preset on pairs of ImageNet photos with SqueezeNet 1.1 (figures 3, 10 and 11).

    python benchmarks/photos.py --weights squeezenet.safetensors --photos FOLDER
        --method gradient --method lrp --pairs 20 --work FOLDER [--preset fast --iterations 50]

Every batch is kept in the work folder as soon as it is finished, and the same command goes on where
it was; with ``--summarise`` it adds the medians over the finished pairs to
``benchmarks/results/photos.json``, where runs of other presets stay. Time is the process's own
(``time.process_time``), so that other work on the machine counts as little as it can.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, describe, save
from safetensors.torch import load_file, save_file

import trompe
from trompe.attacks.observation import observe
from trompe.report import image_metrics
from trompe.types import AttackResult, LoadedModel, heatmap
from trompe.zoo.images import list_images, load_image


def pairs(folder: Path, count: int) -> list[tuple[Path, Path]]:
    """``count`` pairs of photo and target photo, all different, drawn with seed 0."""
    photos = list_images(folder)
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = [photos[i] for i in order[: 2 * count]]
    return list(zip(chosen[:count], chosen[count:], strict=True))


def attack_batch(
    loaded: LoadedModel,
    method: str,
    preset: str,
    iterations: int | None,
    batch: list[tuple[Path, Path]],
    path: Path,
) -> None:
    """Attack one batch of pairs and keep what follows from it nowhere else."""
    model, explainer = loaded.model, trompe.explainer(method)

    def images(which: int) -> torch.Tensor:
        pixels = torch.stack([load_image(pair[which], how=loaded.preprocessing) for pair in batch])
        return loaded.input_space.from_pixels(pixels)

    x, aims = images(0), images(1)
    target_map = heatmap(explainer(model, aims, model(aims).argmax(1)))
    start = time.process_time()  # of this process: other work on the machine counts little
    result = trompe.manipulate(
        model, x, target_map, explainer=explainer, preset=preset, iterations=iterations
    )
    seconds = time.process_time() - start
    save_file(
        {
            "x": result.x.contiguous(),
            "x_adv": result.x_adv.contiguous(),
            "map_target": result.aim.contiguous(),
            "seconds": torch.tensor(seconds),
            "iterations": torch.tensor(result.iterations),
        },
        path,
    )


def read_batch(loaded: LoadedModel, method: str, path: Path) -> tuple[AttackResult, float, int]:
    """The result of a kept batch, judged again on the original model."""
    kept = load_file(path)
    explainer = trompe.explainer(method)
    target = loaded.model(kept["x"]).argmax(1)
    before = observe(loaded.model, explainer, kept["x"], target)
    after = observe(loaded.model, explainer, kept["x_adv"], target)
    result = AttackResult(
        x=kept["x"],
        x_adv=kept["x_adv"],
        target_class=target,
        map_original=before.map,
        map_target=kept["map_target"],
        map_adv=after.map,
        logits_original=before.logits,
        logits_adv=after.logits,
        history={},
        iterations=int(kept["iterations"]),
        stopped="finished",
        provenance={},
    )
    return result, float(kept["seconds"]), int(kept["iterations"])


def summary(rows: list[dict[str, Any]], seconds: float, iterations: int) -> dict[str, Any]:
    """Medians over pairs."""

    def median(*keys: str) -> float:
        values = []
        for row in rows:
            value: Any = row
            for key in keys:
                value = value[key]
            values.append(value)
        return statistics.median(values)

    return {
        "pairs": len(rows),
        "iterations": iterations,
        "class_kept": sum(row["class_before"] == row["class_after"] for row in rows),
        "seconds_per_image_step": seconds / (iterations * len(rows)),
        "median": {
            "map_to_target_ssim": median("map_to_target", "ssim"),
            "map_to_target_pcc": median("map_to_target", "pcc"),
            "map_to_original_pcc": median("map_to_original", "pcc"),
            "image_ssim": median("image_change", "ssim"),
            "image_psnr_db": median("image_change", "psnr"),
            "image_linf_255": 255 * median("image_change", "linf"),
            "softmax_l2": median("softmax_l2"),
        },
        "images": rows,
    }


def main() -> None:
    """Attack what is missing, then summarise what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--method", action="append", required=True)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--iterations", type=int, help="the preset's if not given")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--first", type=int, default=0, help="begin at this pair")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work"))
    parser.add_argument("--summarise", action="store_true", help="attack nothing more")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    loaded = trompe.load_model("squeezenet1_1", arguments.weights)
    arguments.work.mkdir(parents=True, exist_ok=True)
    chosen = pairs(arguments.photos, arguments.pairs)
    run = arguments.preset + (f"-{arguments.iterations}" if arguments.iterations else "")
    results = {}
    for method in arguments.method:
        rows: list[dict[str, Any]] = []
        total, iterations = 0.0, 0
        for first in range(arguments.first, len(chosen), arguments.batch):
            batch = chosen[first : first + arguments.batch]
            path = arguments.work / f"{run}-{method}-{first}.safetensors"
            if not path.exists():
                if arguments.summarise:
                    continue
                attack_batch(*(loaded, method, arguments.preset, arguments.iterations), batch, path)
                print(method, path.name, flush=True)
            result, seconds, iterations = read_batch(loaded, method, path)
            total += seconds
            rows += image_metrics(
                result,
                loaded.input_space,
                image_names=[image.name for image, _ in batch],
                target_names=[target.name for _, target in batch],
            )
        results[method] = summary(rows, total, iterations)
    if arguments.summarise:
        known = RESULTS / "photos.json"
        runs = json.loads(known.read_text())["runs"] if known.exists() else {}
        runs[run] = {**runs.get(run, {}), "machine": describe(), **results}
        print(save("photos", {"runs": runs}))


if __name__ == "__main__":
    main()
