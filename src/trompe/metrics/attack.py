"""What is measured of an attack: the one place that turns images, maps and outputs into numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trompe.in_brief import InBrief
from trompe.metrics.distance import l2, linf, mse, psnr
from trompe.metrics.outputs import logit_l2, output_change
from trompe.metrics.similarity import pcc, ssim, ssim_or_nan
from trompe.outputs import Outputs, outputs_of
from trompe.types import AttackResult, InputSpace

Measure = Callable[[Tensor, Tensor], Tensor]

#: What is measured of two heat maps [B, H, W], by name.
MAP_METRICS: dict[str, Measure] = {"mse": mse, "ssim": ssim, "pcc": pcc}
#: What is measured of two images [B, C, H, W] in pixel units 0..1, by name.
IMAGE_METRICS: dict[str, Measure] = {**MAP_METRICS, "linf": linf, "l2": l2, "psnr": psnr}


def compared(metrics: Mapping[str, Measure], a: Tensor, b: Tensor) -> list[dict[str, float]]:
    """Every metric of ``a`` [B, ...] and ``b``, as one dictionary per image."""
    values = {name: metric(a, b).tolist() for name, metric in metrics.items()}
    return [{name: values[name][index] for name in values} for index in range(a.shape[0])]


@dataclass(frozen=True, repr=False)
class Similarity(InBrief):
    """How alike two series of images or maps are, one number per pair, tensors of one shape.

    Args:
        mse: mean squared error, 0 or more; maps sum to 1, images are in pixel units 0..1.
        ssim: structural similarity, at most 1; NaN where an image has fewer than 3 rows or columns.
        pcc: Pearson correlation, within -1..1; NaN where an image is constant.
    """

    mse: Tensor
    ssim: Tensor
    pcc: Tensor


def similarity(a: Tensor, b: Tensor, *, leading: int = 1) -> Similarity:
    """How alike ``a`` and ``b`` are, pair by pair.

    Args:
        a: images or maps; the first ``leading`` dimensions count them.
        b: the same shape.
        leading: how many dimensions count images.

    Returns:
        Tensors of the shape of the leading dimensions.

    Raises:
        UsageError: if the shapes do not go together.
    """
    shape = a.shape[:leading]
    first, second = a.flatten(0, leading - 1), b.flatten(0, leading - 1)
    return Similarity(
        mse=mse(first, second).reshape(shape),
        ssim=ssim_or_nan(first, second).reshape(shape),
        pcc=pcc(first, second).reshape(shape),
    )


@dataclass(frozen=True)
class Outcome:
    """Everything that the numbers of an attack on B images follow from.

    Args:
        x: the original images, normalised, [B, C, H, W].
        x_adv: the manipulated images, [B, C, H, W].
        target_class: the class that the maps explain, [B].
        map_original: heat map of the original image, [B, H, W], summing to 1.
        map_target: the heat map that was aimed at, [B, H, W]; None if none was.
        map_adv: heat map of the manipulated image, [B, H, W].
        logits_original: [B, K].
        logits_adv: [B, K].
        outputs: what they mean; by their number if not known.
    """

    x: Tensor
    x_adv: Tensor
    target_class: Tensor
    map_original: Tensor
    map_target: Tensor | None
    map_adv: Tensor
    logits_original: Tensor
    logits_adv: Tensor
    outputs: Outputs | None = None

    @property
    def aim(self) -> Tensor:
        """The heat map that was aimed at, [B, H, W]; not a number if none was."""
        if self.map_target is None:
            return torch.full_like(self.map_adv, torch.nan)
        return self.map_target

    @classmethod
    def of(cls, result: AttackResult) -> Outcome:
        """The same of an attack's result."""
        return cls(
            x=result.x,
            x_adv=result.x_adv,
            target_class=result.target_class,
            map_original=result.map_original,
            map_target=result.map_target,
            map_adv=result.map_adv,
            logits_original=result.logits_original,
            logits_adv=result.logits_adv,
            outputs=result.outputs,
        )


def _of_shape(
    measures: Mapping[str, Measure], sides: int, data_range: float | None
) -> Mapping[str, Measure]:
    """The measures of signals and volumes: SSIM along their sides, NaN where they are too short."""
    if sides == 2:
        return measures
    structure = functools.partial(ssim_or_nan, data_range=data_range, sides=sides)
    return {**measures, "ssim": structure}


def attack_metrics(one: Outcome, space: InputSpace) -> list[dict[str, float]]:
    """The numbers that an attack is judged by, per image.

    Images are compared in pixel units 0..1, maps normalised to sum 1, as in the experiments of
    Dombrowski et al. 2019.

    Args:
        one: images, maps and outputs of the attack.
        space: of the attacked model.

    Returns:
        By name: ``map_target_*`` and ``map_original_*`` compare the manipulated image's map with
        the target and with the original map, ``map_start_pcc`` the original map with the target;
        ``image_*`` compare the images, the rest the outputs: ``softmax_l2`` (see
        ``output_change``), ``logit_l2``, what
        became of the class predicted before (``logit_change``, ``probability_*``),
        ``class_explained``, ``class_before``, ``class_after`` and whether the answer is the
        same (``class_kept``, 0 or 1; of a binary decision, classes are 0 and 1). A number that is
        undefined is NaN.

    Raises:
        UsageError: if the images are smaller than 3 x 3 pixels.
    """
    before, after = one.logits_original, one.logits_adv
    outputs = one.outputs or outputs_of(before)
    winner = outputs.explained(before).unsqueeze(1)
    pixels, changed = space.to_pixels(one.x), space.to_pixels(one.x_adv)
    columns: dict[str, Tensor] = {
        "map_start_pcc": pcc(one.map_original, one.aim),
        "softmax_l2": output_change(before, after, outputs),
        "logit_l2": logit_l2(before, after),
        "logit_change": (after - before).gather(1, winner)[:, 0],
        "probability_before": outputs.probabilities(before).gather(1, winner)[:, 0],
        "probability_after": outputs.probabilities(after).gather(1, winner)[:, 0],
        "class_explained": one.target_class,
        "class_before": outputs.answer(before),
        "class_after": outputs.answer(after),
        "class_kept": outputs.kept(after, before),
    }
    sides = one.x.dim() - 2
    for name, metric in _of_shape(MAP_METRICS, sides, None).items():
        columns[f"map_target_{name}"] = metric(one.map_adv, one.aim)
        columns[f"map_original_{name}"] = metric(one.map_adv, one.map_original)
    for name, metric in _of_shape(IMAGE_METRICS, sides, 1.0).items():
        columns[f"image_{name}"] = metric(changed, pixels)
    numbers = {name: column.tolist() for name, column in columns.items()}
    found = []
    for index in range(one.x.shape[0]):
        values = {name: float(column[index]) for name, column in numbers.items()}
        values["probability_change"] = values["probability_after"] - values["probability_before"]
        found.append(values)
    return found


def channel_metrics(result: AttackResult) -> list[dict[str, dict[str, float]]]:
    """What is left after each channel that the attack went through, per image and channel.

    Returns:
        Per image, by the channel's name: ``target_pcc`` and ``original_pcc`` of the manipulated
        image's map after it, ``clean_pcc``, the correlation of the original image's map before and
        after it (what the channel alone does), ``class_kept`` (0 or 1). Undefined numbers are NaN.
    """
    outcome = Outcome.of(result)
    found: list[dict[str, dict[str, float]]] = [{} for _ in range(len(result.x))]
    for name, left in result.after.items():
        columns = {
            "target_pcc": pcc(left.map_adv, outcome.aim),
            "original_pcc": pcc(left.map_adv, result.map_original),
            "clean_pcc": pcc(left.map_clean, result.map_original),
            "class_kept": result.outputs.kept(left.logits_adv, result.logits_original).double(),
        }
        for index, entry in enumerate(found):
            entry[name] = {key: float(column[index]) for key, column in columns.items()}
    return found


def curve(history: Tensor, points: int = 100) -> Tensor:
    """At most ``points`` entries of a history [T], the first and the last among them."""
    count = history.shape[0]
    if count <= points:
        return history
    chosen = torch.linspace(0, count - 1, points).round().long()
    return history[chosen]
