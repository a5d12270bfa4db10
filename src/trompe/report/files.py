"""The files that an attack leaves behind.

Every file is written whole or not at all, and ``metrics.json`` last: where it lies, the folder
is complete.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import trompe
from trompe.atomic import atomic_path
from trompe.engine import frozen
from trompe.errors import ExplanationError, OutputError, UsageError
from trompe.metrics import output_change
from trompe.metrics.attack import (
    IMAGE_METRICS,
    MAP_METRICS,
    Outcome,
    attack_metrics,
    channel_metrics,
    compared,
)
from trompe.report.overview import save_overview
from trompe.report.tables import neutral
from trompe.types import AttackResult, Explainer, InputSpace, heatmap
from trompe.zoo.images import SUFFIXES, read_pixels, save_png

__all__ = ["image_metrics", "prepare_output", "safe_names", "write_attack"]


def prepare_output(path: str | os.PathLike[str]) -> Path:
    """Create the output folder, and try it out before any long work.

    Raises:
        OutputError: if it cannot be created or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"output '{folder}' is a file: name a folder") from error
    except OSError as error:
        raise OutputError(
            f"output folder '{folder}' cannot be created: {error.strerror}: choose another"
        ) from error
    trial = folder / f".trial-{os.getpid()}"
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise OutputError(
            f"output folder '{folder}' cannot be written: {error.strerror}: choose another"
        ) from error
    return folder


def safe_names(names: Sequence[str]) -> list[str]:
    """File names without suffix, one per image: readable, harmless, and all different.

    Args:
        names: what the images are called, such as their paths.

    Returns:
        The last part of each name without an image's suffix, other than letters, digits, dots,
        dashes and underscores replaced by an underscore, numbered where they would coincide.
    """
    safe: list[str] = []
    taken: set[str] = set()
    for name in names:
        path = Path(name)
        stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
        stem = re.sub(r"[^\w.-]+", "_", stem).strip("._-")[:40] or "image"
        unique, number = stem, 1
        while unique.lower() in taken:  # some file systems ignore case
            number += 1
            unique = f"{stem}-{number}"
        taken.add(unique.lower())
        safe.append(unique)
    return safe


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save

    ready = {name: tensor.detach().cpu().float().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        # Not save_file: it makes files that none but their owner can read.
        temporary.write_bytes(save(ready))


def _write_history(path: Path, result: AttackResult, names: Sequence[str]) -> None:
    """One row per iteration and image: iteration, image, and the recorded quantities."""
    history = {key: values for key, values in result.history.items() if key != "iteration"}
    columns = {key: values.tolist() for key, values in history.items()}
    iterations = list(range(result.iterations))
    if "iteration" in result.history:
        iterations = result.history["iteration"].tolist()
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["iteration", "image", *columns])
        for row, iteration in enumerate(iterations):
            for index, name in enumerate(names):
                numbers = [values[row][index] for values in columns.values()]
                writer.writerow([iteration, neutral(name), *numbers])


def json_ready(value: Any) -> Any:
    """``value`` with numbers that JSON lacks (NaN, infinity) as None, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): json_ready(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(entry) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def image_metrics(
    result: AttackResult,
    input_space: InputSpace,
    *,
    image_names: Sequence[str],
    target_names: Sequence[str],
) -> list[dict[str, Any]]:
    """The entries of ``metrics.json`` that follow from the result alone.

    Args:
        result: of an attack on B images.
        input_space: of the attacked model.
        image_names: of the B images.
        target_names: of the B targets.

    Returns:
        Per image a dictionary: image, target, outputs (what they mean), class_explained,
        class_before and class_after (numbers), kept (whether the answer is the same),
        probability_before and probability_after (0..1, of the class predicted before; values as
        they are), softmax_l2, logit_l2, success, target_pcc_before (of the original map), and the
        dictionaries map_to_target (None where no map was aimed at), map_to_original, image_change;
        see ``trompe.metrics.attack.attack_metrics``.

    Raises:
        UsageError: if the result's images are smaller than 3 x 3 pixels.
    """
    entries = []
    found = attack_metrics(Outcome.of(result), input_space)
    aimed = result.map_target is not None
    for index, values in enumerate(found):
        entries.append(
            {
                "image": image_names[index],
                "target": target_names[index],
                "outputs": result.outputs.meaning,
                **({} if result.x.dim() == 4 else {"sides": result.x.dim() - 2}),
                "class_explained": int(values["class_explained"]),
                "class_before": int(values["class_before"]),
                "class_after": int(values["class_after"]),
                "kept": bool(values["class_kept"]),
                "probability_before": values["probability_before"],
                "probability_after": values["probability_after"],
                "softmax_l2": values["softmax_l2"],
                "logit_l2": values["logit_l2"],
                "map_to_target": {
                    name: values[f"map_target_{name}"] if aimed else None for name in MAP_METRICS
                },
                "target_pcc_before": values["map_start_pcc"] if aimed else None,
                "map_to_original": {name: values[f"map_original_{name}"] for name in MAP_METRICS},
                "success": bool(result.success[index]),
                "image_change": {name: values[f"image_{name}"] for name in IMAGE_METRICS},
            }
        )
    return entries


def _after_rounding(
    png: Path,
    result: AttackResult,
    index: int,
    model: nn.Module,
    explainer: Explainer,
    input_space: InputSpace,
) -> dict[str, Any]:
    """Judge the written PNG: read it back, and run the original model and explainer on it."""
    model = frozen(model)  # as in the attack: no dropout, no gradients of weights
    channels = result.x.shape[1]
    pixels = read_pixels(png)[None, :channels].to(result.x.dtype)
    weight = next(model.parameters(), result.x)
    x = input_space.from_pixels(pixels).to(weight.device)
    target = result.target_class[index : index + 1]
    with torch.no_grad():
        logits = model(x).cpu()
    relevance = explainer(model, x, target.to(x.device)).detach().cpu()
    one = slice(index, index + 1)
    measures: dict[str, Any] = {
        "class_after": int(result.outputs.answer(logits)),
        "kept": bool(result.outputs.kept(logits, result.logits_original[one])),
        "softmax_l2": float(output_change(result.logits_original[one], logits, result.outputs)),
    }
    # An all-zero or infinite map after rounding is a finding, no reason to lose the results.
    nothing = dict.fromkeys(MAP_METRICS)
    try:
        heat = heatmap(relevance)
        measures["map_to_target"] = nothing
        if result.map_target is not None:
            measures["map_to_target"] = compared(MAP_METRICS, heat, result.map_target[one])[0]
        measures["map_to_original"] = compared(MAP_METRICS, heat, result.map_original[one])[0]
    except ExplanationError:
        measures |= {"map_to_target": nothing, "map_to_original": nothing}
    original = input_space.to_pixels(result.x[one])
    measures["image_change"] = compared(IMAGE_METRICS, pixels, original)[0]
    return measures


def write_attack(
    output: str | os.PathLike[str],
    result: AttackResult,
    *,
    model: nn.Module,
    explainer: Explainer,
    input_space: InputSpace,
    image_names: Sequence[str],
    target_names: Sequence[str],
    labels: Sequence[str],
    run: Mapping[str, Any],
    target_pixels: Tensor | None = None,
) -> dict[str, Any]:
    """Write all files of an attack on B images, and return the content of ``metrics.json``.

    ``x_adv.safetensors`` (key ``x_adv``, normalised, float32), ``NAME_adv.png`` per image,
    ``maps.safetensors`` (keys ``original``, ``manipulated``, and ``target`` if there is one),
    ``overview.png``, ``history.csv`` and ``metrics.json``. The section ``after_rounding`` judges
    the PNG as written: read back, and explained anew on the original model. Numbers that are
    infinite or undefined become null.

    Args:
        output: an existing folder; see ``prepare_output``.
        result: of the attack.
        model: the ORIGINAL classifier, [B, C, H, W] -> [B, K].
        explainer: the attacked method.
        input_space: of the model.
        image_names: of the B images; the PNGs are named after them.
        target_names: of the B targets.
        labels: readable names of the classes, may be empty.
        run: method, model, preset, iterations, seconds, seconds_per_iteration, device, seed and
            version, as far as known; written as it is.
        target_pixels: the target images, 0..1, [B, 3, H, W], if the targets come from images.

    Returns:
        ``{"run": {...}, "images": [...]}``, ready for JSON.

    Raises:
        OutputError: if a file cannot be written.
        UsageError: if there is not a name per image and target.
    """
    folder = Path(output)
    count = result.x.shape[0]
    if not count == len(image_names) == len(target_names):
        raise UsageError(
            f"{count} images have {len(image_names)} names and {len(target_names)} target names: "
            "give one each"
        )
    _write_tensors(folder / "x_adv.safetensors", {"x_adv": result.x_adv})
    maps = {"original": result.map_original, "manipulated": result.map_adv}
    if result.map_target is not None:
        maps["target"] = result.map_target
    _write_tensors(folder / "maps.safetensors", maps)
    images = image_metrics(result, input_space, image_names=image_names, target_names=target_names)
    pixels = input_space.to_pixels(result.x_adv)
    for index, name in enumerate(safe_names(image_names)):
        png = folder / f"{name}_adv.png"
        save_png(png, pixels[index])
        images[index]["after_rounding"] = _after_rounding(
            png, result, index, model, explainer, input_space
        )
    if result.after:
        for entry, channels in zip(images, channel_metrics(result), strict=True):
            entry["after"] = channels
    _write_history(folder / "history.csv", result, image_names)
    save_overview(
        folder / "overview.png", result, input_space, labels=labels, target_pixels=target_pixels
    )
    known = {"iterations": result.iterations, "version": trompe.__version__}
    metrics: dict[str, Any] = json_ready({"run": {**known, **run}, "images": images})
    with atomic_path(folder / "metrics.json") as temporary:
        text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")
    return metrics
