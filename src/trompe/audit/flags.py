"""Reasons not to trust a result, found from the result itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from torch import Tensor

from trompe.errors import StoreError
from trompe.robustness import doubts

CLASS_CHANGED = "class changed"
ZERO_GRADIENT = "zero gradient"
VANISHING_GRADIENT = "vanishing gradient"
NOTHING_FOUND = "nothing found"
SURROGATE_DISAGREES = "surrogate disagrees"
STILL_FALLING = "loss still falling"
NOISE_DOES_IT_TOO = "noise does it too"
NOT_FINITE = "not finite"
KINKS_REMAIN = doubts.KINKS_REMAIN

#: What each flag means, and what to do about it.
MEANING: dict[str, str] = {
    CLASS_CHANGED: "the manipulated image is classified differently: it does not count as a "
    "manipulated explanation; raise the weight of the output's error",
    ZERO_GRADIENT: "the map's gradient was exactly zero in the first step: a ReLU network's "
    "gradient is piecewise constant; let the attack smooth the network (beta growth)",
    VANISHING_GRADIENT: "the loss hardly moved: the result says nothing about how robust the "
    "explanation is",
    NOTHING_FOUND: "no step kept the class and came nearer to the aim: the original image was "
    "returned; the explanation may still be manipulable",
    SURROGATE_DISAGREES: "the smoothed network's map reached the aim, the original network's did "
    "not; let beta grow further or slower",
    STILL_FALLING: "the loss was still falling at the end: more steps would manipulate it further",
    NOISE_DOES_IT_TOO: "random noise of the same size moves the map as far: the explanation is "
    "fragile anyway, this is no evidence for a targeted manipulation",
    KINKS_REMAIN: f"{doubts.MEANING[KINKS_REMAIN]}; an explanation that did not move there does "
    "not count as robust",
    NOT_FINITE: "the attack ended early because its loss was no longer finite",
}


def _drop(loss: Tensor) -> float:
    """How much of the loss went in the last fifth of the steps, as a share; NaN if unknown."""
    part = loss.shape[0] // 5
    if part < 1:
        return math.nan
    last, before = float(loss[-part:].mean()), float(loss[-2 * part : -part].mean())
    return (before - last) / abs(before) if before else 0.0


def _disagreement(values: Mapping[str, float], history: Mapping[str, Tensor]) -> float:
    """By how much the surrogate's last map is farther on its way than the original network's.

    Measured by the correlation with the map aimed at, or where there is none with the original
    map; NaN if neither was noted.
    """
    if "map_pcc" in history:
        return float(history["map_pcc"][-1]) - values["map_target_pcc"]
    if "original_pcc" in history:
        return values["map_original_pcc"] - float(history["original_pcc"][-1])
    return math.nan


def _noise_suffices(values: Mapping[str, float]) -> bool:
    """Whether noise of the same size brings about more than half of what the attack gained."""
    if "objective_after" in values:  # in the objective's own terms, lower is further
        before = values["objective_before"]
        gain = before - values["objective_after"]
        return gain > 0 and before - values["objective_noise"] > 0.5 * gain
    gain = values["map_target_pcc"] - values["map_start_pcc"]
    noise = values.get("noise_target_pcc", math.nan) - values["map_start_pcc"]
    return noise > max(0.05, 0.5 * gain)


def flags(
    values: Mapping[str, float],
    history: Mapping[str, Tensor],
    *,
    zero: bool,
    stopped: str,
    kinks: bool = False,
) -> list[str]:
    """The flags of one cell.

    Args:
        values: its metrics, with ``noise_target_pcc`` if there was a control, and
            ``objective_before``, ``_after`` and ``_noise`` if the objective was not the usual one.
        history: of its attack, each [T].
        zero: whether the gradient was zero in the first step.
        stopped: why the attack ended.
        kinks: whether the network has kinks that no smoothing covers.

    Returns:
        Names of flags, keys of ``MEANING``.
    """
    found = []
    if not values["class_kept"]:
        found.append(CLASS_CHANGED)
    if stopped == "not finite":
        found.append(NOT_FINITE)
    if kinks:
        found.append(KINKS_REMAIN)
    if zero:
        found.append(ZERO_GRADIENT)
    elif values["image_linf"] == 0:
        found.append(NOTHING_FOUND)
    loss = history.get("loss")
    if loss is not None and loss.shape[0] >= 10:
        first, last = float(loss[0]), float(loss[-max(1, loss.shape[0] // 10) :].mean())
        if not zero and abs(first - last) < 1e-3 * abs(first):
            found.append(VANISHING_GRADIENT)
        if _drop(loss) > 0.05:
            found.append(STILL_FALLING)
    smoothed = "beta" in history and not bool(history["beta"].isnan().all())
    if smoothed and _disagreement(values, history) > 0.15:
        found.append(SURROGATE_DISAGREES)
    if values["image_linf"] > 0 and _noise_suffices(values):
        found.append(NOISE_DOES_IT_TOO)
    return found


def listed(text: str | None) -> tuple[str, ...]:
    """The flags of a cell as its row holds them; none of a cell that is not done.

    Raises:
        StoreError: if it holds something else.
    """
    try:
        found = [] if text is None else json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(flag, str) for flag in found):
        raise StoreError("the flags of a cell in the run's store are damaged: restore the store")
    return tuple(found)
