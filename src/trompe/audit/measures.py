"""What is measured of every cell, from its arrays alone: one number per name."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trompe.metrics import l2, linf, logit_l2, mse, pcc, psnr, softmax_l2, ssim
from trompe.types import InputSpace

_MAPS = {"mse": mse, "ssim": ssim, "pcc": pcc}
_IMAGES = {**_MAPS, "linf": linf, "l2": l2, "psnr": psnr}


def measured(x: Tensor, arrays: Mapping[str, Tensor], space: InputSpace) -> dict[str, float]:
    """The metrics of one cell.

    Images are compared in pixel units 0..1, maps normalised to sum 1 (PAPER.md, section 5).

    Args:
        x: the original image, normalised, [1, C, H, W].
        arrays: of the cell: ``x_adv`` [1, C, H, W], ``map_original``, ``map_target`` and
            ``map_adv`` [1, H, W], ``logits_original`` and ``logits_adv`` [1, K].
        space: of the model.

    Returns:
        By name: ``map_target_*`` and ``map_original_*`` compare the manipulated image's map with
        the target and with the original map, ``map_start_pcc`` the original map with the target;
        ``image_*`` compare the images, the rest the outputs. A number that is undefined is NaN.
    """
    original, target, final = (arrays[f"map_{kind}"] for kind in ("original", "target", "adv"))
    before, after = arrays["logits_original"], arrays["logits_adv"]
    pixels, changed = space.to_pixels(x), space.to_pixels(arrays["x_adv"])
    winner = before.argmax(dim=1, keepdim=True)
    numbers: dict[str, Tensor] = {
        **{f"map_target_{name}": metric(final, target) for name, metric in _MAPS.items()},
        **{f"map_original_{name}": metric(final, original) for name, metric in _MAPS.items()},
        "map_start_pcc": pcc(original, target),
        **{f"image_{name}": metric(changed, pixels) for name, metric in _IMAGES.items()},
        "softmax_l2": softmax_l2(before, after),
        "logit_l2": logit_l2(before, after),
        "logit_change": (after - before).gather(1, winner)[:, 0],
        "probability_before": before.softmax(1).gather(1, winner)[:, 0],
        "probability_after": after.softmax(1).gather(1, winner)[:, 0],
        "class_before": winner[:, 0],
        "class_after": after.argmax(dim=1),
    }
    values = {name: float(value[0]) for name, value in numbers.items()}
    values["probability_change"] = values["probability_after"] - values["probability_before"]
    values["class_kept"] = float(values["class_before"] == values["class_after"])
    return values


def curve(history: Tensor, points: int = 100) -> Tensor:
    """At most ``points`` entries of a history [T], the first and the last among them."""
    count = history.shape[0]
    if count <= points:
        return history
    chosen = torch.linspace(0, count - 1, points).round().long()
    return history[chosen]


def storable(value: float) -> float | None:
    """``value`` for SQLite, which has no NaN and no infinity that JSON could read."""
    return value if math.isfinite(value) else None
