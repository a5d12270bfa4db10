"""The numbers that an attack is judged by, per image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from trompe.metrics import l2, linf, logit_l2, mse, pcc, psnr, softmax_l2, ssim
from trompe.types import AttackResult, InputSpace

MAP_METRICS = {"mse": mse, "ssim": ssim, "pcc": pcc}
IMAGE_METRICS = {**MAP_METRICS, "linf": linf, "l2": l2, "psnr": psnr}


def compared(metrics: Mapping[str, Any], a: Tensor, b: Tensor) -> list[dict[str, float]]:
    """Every metric of ``a`` [B, ...] and ``b``, as one dictionary per image."""
    values = {name: metric(a, b).tolist() for name, metric in metrics.items()}
    return [{name: values[name][index] for name in values} for index in range(a.shape[0])]


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

    Images are compared in pixel units 0..1, maps normalised to sum 1 (PAPER.md, section 5).

    Args:
        result: of an attack on B images.
        input_space: of the attacked model.
        image_names: of the B images.
        target_names: of the B targets.

    Returns:
        Per image a dictionary: image, target, class_explained, class_before and class_after
        (numbers), probability_before and probability_after (0..1, of the class predicted before),
        softmax_l2, logit_l2, success, and the dictionaries map_to_target (None for each number
        where no map was aimed at), map_to_original, image_change.

    Raises:
        UsageError: if the result's images are smaller than 3 x 3 pixels.
    """
    before, after = input_space.to_pixels(result.x), input_space.to_pixels(result.x_adv)
    predicted = result.logits_original.argmax(dim=1)
    original = predicted.unsqueeze(1)
    aimed: Sequence[Any] = [dict.fromkeys(MAP_METRICS)] * len(predicted)
    if result.map_target is not None:
        aimed = compared(MAP_METRICS, result.map_adv, result.map_target)
    columns: dict[str, Sequence[Any]] = {
        "image": image_names,
        "target": target_names,
        "class_explained": result.target_class.tolist(),
        "class_before": predicted.tolist(),
        "class_after": result.logits_adv.argmax(dim=1).tolist(),
        "probability_before": result.logits_original.softmax(1).gather(1, original)[:, 0].tolist(),
        "probability_after": result.logits_adv.softmax(1).gather(1, original)[:, 0].tolist(),
        "softmax_l2": softmax_l2(result.logits_original, result.logits_adv).tolist(),
        "logit_l2": logit_l2(result.logits_original, result.logits_adv).tolist(),
        "map_to_target": aimed,
        "map_to_original": compared(MAP_METRICS, result.map_adv, result.map_original),
        "success": result.success.tolist(),
        "image_change": compared(IMAGE_METRICS, after, before),
    }
    count = result.x.shape[0]
    return [{name: column[index] for name, column in columns.items()} for index in range(count)]
