"""The picture of an attack: images above, their explanations below.

As in figures 1 and 2 of Dombrowski et al. 2019.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trompe.metrics import linf, output_change, pcc, psnr, ssim
from trompe.report.attack_words import SCALE, kept_in_words
from trompe.report.style import (
    FONT,
    REFERENCE_COLOURS,
    axes_at,
    bright,
    new_figure,
    panel,
    save_figure,
    short,
    show_map,
    show_photo,
)
from trompe.report.without_pixels import result_figure
from trompe.types import AttackResult, InputSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches: the width of a panel, the gap between panels and around them, the height of a title of
#: two lines, and of the caption.
_PANEL, _GAP, _TITLE, _CAPTION = 2.0, 0.08, 0.42, 0.36
#: The perturbation is multiplied by the first of these that makes it clearly visible.
_FACTORS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def amplification(change: Tensor) -> int:
    """How often to multiply ``change`` (pixel units) so that it nearly fills -0.5..0.5."""
    largest = float(np.quantile(change.abs().cpu().numpy(), 0.99))
    fitting = [factor for factor in _FACTORS if factor * largest <= 0.5]
    return fitting[-1] if fitting else 1


def _similarity(heat: Tensor, other: Tensor, name: str) -> str:
    """PCC and SSIM of a map [H, W] to another, in words."""
    a, b = heat[None], other[None]
    return f"PCC {float(pcc(a, b)):.2f}, SSIM {float(ssim(a, b)):.2f} to {name}"


def _caption(result: AttackResult, index: int, pixels: Tensor, changed: Tensor) -> str:
    """What happened to the output and to the image."""
    outputs = result.outputs
    moved = float(output_change(result.logits_original, result.logits_adv, outputs)[index])
    ratio = float(psnr(pixels[None], changed[None]))
    largest = 255 * float(linf(pixels[None], changed[None]))
    kept = kept_in_words(bool(result.class_kept[index]), outputs.meaning)
    return (
        f"Output: {kept}, {SCALE[outputs.meaning]} moved by {moved:.2g}   ·   "
        f"Image: PSNR {ratio:.0f} dB, largest change {largest:.1f}/255"
    )


def _panel_height(result: AttackResult) -> float:
    """Of a picture in its own aspect ratio, in inches."""
    return _PANEL * result.x.shape[2] / result.x.shape[3]


def _blank(result: AttackResult, count: int, columns: int) -> Figure:
    """A figure with room for ``count`` images."""
    height = count * (2 * (_TITLE + _panel_height(result)) + _CAPTION)
    return new_figure(columns * (_PANEL + _GAP) + _GAP, height)


def _draw(
    figure: Figure,
    row: int,
    result: AttackResult,
    input_space: InputSpace,
    labels: Sequence[str],
    target_pixels: Tensor | None,
    index: int,
) -> None:
    """Draw image ``index`` as the ``row``-th of the figure."""
    pixels, changed = input_space.to_pixels(torch.stack([result.x[index], result.x_adv[index]]))
    change = changed - pixels
    factor = amplification(change)
    original, manipulated = result.map_original[index], result.map_adv[index]
    target = None if result.map_target is None else result.map_target[index]
    maps = [original, manipulated]
    brightest = bright(maps if target is None else [*maps, target])
    height = _panel_height(result)
    top = row * (2 * (_TITLE + height) + _CAPTION)

    def axes(line: int, column: int) -> Axes:
        left = _GAP + column * (_PANEL + _GAP)
        return axes_at(figure, left, top + _TITLE + line * (_TITLE + height), _PANEL, height)

    before, after = (
        result.outputs.said(logits[index], short(labels))
        for logits in (result.logits_original, result.logits_adv)
    )
    show_photo(axes(0, 0), pixels, f"Original image\n{before}")
    show_photo(axes(0, 1), changed, f"Manipulated image\n{after}")
    show_photo(axes(0, 2), 0.5 + factor * change, f"Perturbation\namplified {factor} times")
    if target is None:  # the objective aims at no map: what matters is how far it moved
        similar, similar_after = "", _similarity(manipulated, original, "original")
    else:
        similar = _similarity(original, target, "target")
        similar_after = _similarity(manipulated, target, "target")
    show_map(axes(1, 0), original, brightest, f"Original explanation\n{similar}")
    show_map(axes(1, 1), manipulated, brightest, f"Manipulated explanation\n{similar_after}")
    last = 2
    if target_pixels is not None and target is not None:
        difference = (manipulated - target).abs()
        show_map(axes(1, 2), difference, brightest, "Remaining difference\nto the target")
        last = 3
        show_photo(axes(0, last), target_pixels, "Target image\n")
    if target is None:
        difference = (manipulated - original).abs()
        show_map(axes(1, last), difference, brightest, "Change of\nthe explanation")
    else:
        show_map(axes(1, last), target, brightest, "Target explanation\n")
    width, whole_height = figure.get_size_inches()
    middle = (_GAP + (last + 1) * (_PANEL + _GAP)) / 2 / width
    base = 1 - (top + 2 * (_TITLE + height) + _CAPTION / 2) / whole_height
    caption = _caption(result, index, pixels, changed)
    figure.text(middle, base, caption, ha="center", va="center", fontsize=FONT)


def overview_figure(
    result: AttackResult,
    input_space: InputSpace,
    *,
    labels: Sequence[str] = (),
    target_pixels: Tensor | None = None,
    index: int = 0,
) -> Figure:
    """One image of an attack: original, manipulated, perturbation, and the three heat maps.

    The maps share one colour scale. The perturbation is amplified by the factor in its title and
    shown around mid-grey. Signals are lines coloured by their heat; of volumes the middle slices
    are shown, and the caption says which.

    Args:
        result: of an attack on B images.
        input_space: of the attacked model.
        labels: readable names of the classes, if known.
        target_pixels: the image whose explanation was aimed at, 0..1, [3, H, W]; None if the
            target comes from no image.
        index: which of the B images.

    Returns:
        A figure of its own, drawn by Agg; ``figure.savefig`` writes it.

    Example:
        >>> overview_figure(result, loaded.input_space).savefig("fooled.png")  # doctest: +SKIP
    """
    if result.x.dim() != 4:
        return result_figure(result, input_space, labels, index)
    columns = 3 if target_pixels is None else 4
    figure = _blank(result, 1, columns)
    _draw(figure, 0, result, input_space, labels, target_pixels, index)
    return figure


def save_overview(
    path: str | os.PathLike[str],
    result: AttackResult,
    input_space: InputSpace,
    *,
    labels: Sequence[str] = (),
    target_pixels: Tensor | None = None,
    most: int = 8,
) -> None:
    """Write the overviews of the first ``most`` images, one below the other, as a PNG.

    Args:
        path: the file to write; replaced if it exists.
        result: of an attack on B images.
        input_space: of the attacked model.
        labels: readable names of the classes, if known.
        target_pixels: the target images, 0..1, [B, 3, H, W], if the targets come from images.
        most: how many images to show.

    Raises:
        OutputError: if the file cannot be written.
    """
    count = min(result.x.shape[0], most)
    columns = 3 if target_pixels is None else 4
    figure = _blank(result, count, columns)
    for index in range(count):
        target = None if target_pixels is None else target_pixels[index]
        _draw(figure, index, result, input_space, labels, target, index)
    save_figure(figure, path)


def reference_overview(
    path: str | os.PathLike[str],
    result: AttackResult,
    input_space: InputSpace,
    *,
    target_pixels: Tensor | None = None,
    index: int = 0,
) -> None:
    """Write ``overview_METHOD.png`` in the layout of the paper's program.

    Args:
        path: the file to write; replaced if it exists.
        result: of an attack on B images.
        input_space: of the attacked model.
        target_pixels: the image whose explanation was aimed at, 0..1, [3, H, W], if any.
        index: which of the B images.

    Raises:
        OutputError: if the file cannot be written.
    """
    pixels, changed = input_space.to_pixels(torch.stack([result.x[index], result.x_adv[index]]))
    columns = [
        ("Target", target_pixels, result.aim[index]),
        ("Original", pixels, result.map_original[index]),
        ("Manipulated", changed, result.map_adv[index]),
    ]
    brightest = bright([heat for _, _, heat in columns])
    height = _panel_height(result)
    title = _TITLE / 2 + _GAP
    figure = new_figure(3 * (_PANEL + _GAP) + _GAP, 2 * (title + height) + _GAP)
    for column, (name, photo, heat) in enumerate(columns):
        left = _GAP + column * (_PANEL + _GAP)
        upper = axes_at(figure, left, title, _PANEL, height)
        if photo is None:
            panel(upper, f"{name} Image")
        else:
            show_photo(upper, photo, f"{name} Image")
        lower = axes_at(figure, left, 2 * title + height, _PANEL, height)
        show_map(lower, heat, brightest, f"{name} Explanation", colours=REFERENCE_COLOURS)
    save_figure(figure, path)
