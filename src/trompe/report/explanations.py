"""Heat maps side by side: methods down, smoothing across.

As in figures 8 and 9 of Dombrowski et al. 2019.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from trompe.errors import UsageError
from trompe.report.style import (
    FONT,
    REFERENCE_COLOURS,
    axes_at,
    bright,
    new_figure,
    save_figure,
    show_map,
    show_photo,
)
from trompe.report.without_pixels import explained_signal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Inches: the width of a panel, the gap between panels and around them, the height of a line of
#: titles, and the room for the methods' names at the left.
_PANEL, _GAP, _LINE, _NAMES = 1.7, 0.06, 0.24, 0.22


def explanations_figure(
    pixels: Tensor,
    maps: Mapping[str, Sequence[Tensor]],
    betas: Sequence[float],
    *,
    title: str = "",
) -> Figure:
    """A grid of heat maps: rows are methods; columns the image, the ReLU map, one map per beta.

    The maps of a row share one colour scale.

    Args:
        pixels: the image, 0..1, [3, H, W]; or one per row, [rows, 3, H, W]; or a signal [C, T], or
            a volume [C, D, H, W], of which the middle slice is shown.
        maps: per method its heat maps [H, W] (of the signal's or volume's shape): of the ReLU
            network, then one per beta.
        betas: of the softplus networks, in the order of the maps.
        title: above all, such as the predicted class.

    Returns:
        A figure of its own, drawn by Agg.

    Raises:
        UsageError: if there is no method, or one has not a map per column.
    """
    if not maps:
        raise UsageError("no explanation to show: name at least one method")
    captions = ["ReLU", *(f"softplus, β = {beta:g}" for beta in betas)]
    for method, heats in maps.items():
        if len(heats) != len(captions):
            raise UsageError(
                f"{method} has {len(heats)} maps for {len(captions)} columns: give the ReLU map "
                "and one per beta"
            )
    if pixels.dim() == 2:
        return explained_signal(pixels, maps, captions, title)
    if next(iter(maps.values()))[0].dim() == 4:
        middle = pixels.shape[1] // 2
        title = ", ".join([title] * bool(title) + [f"slice {middle} of 0..{pixels.shape[1] - 1}"])
        maps = {name: [heat.sum(dim=0)[middle] for heat in heats] for name, heats in maps.items()}
        pixels = pixels[:, middle].mean(dim=0, keepdim=True)
    photos = pixels.expand(len(maps), -1, -1, -1)
    height = _PANEL * photos.shape[2] / photos.shape[3]
    head = _LINE * (2 if title else 1)
    figure = new_figure(
        _NAMES + (1 + len(captions)) * (_PANEL + _GAP), head + len(maps) * (height + _GAP)
    )
    for row, (method, heats) in enumerate(maps.items()):
        top = head + row * (height + _GAP)
        photo = axes_at(figure, _NAMES, top, _PANEL, height)
        show_photo(photo, photos[row], "" if row else "image")
        photo.set_ylabel(method.replace("_", " "), fontsize=FONT, parse_math=False)
        for column, (heat, caption) in enumerate(zip(heats, captions, strict=True), start=1):
            axes = axes_at(figure, _NAMES + column * (_PANEL + _GAP), top, _PANEL, height)
            show_map(axes, heat, bright(heats), "" if row else caption)
    if title:
        height = 1 - 0.05 / figure.get_figheight()
        figure.suptitle(title, fontsize=FONT + 2, y=height, parse_math=False)
    return figure


def save_explanations(
    path: str | os.PathLike[str],
    pixels: Tensor,
    maps: Mapping[str, Sequence[Tensor]],
    betas: Sequence[float],
    *,
    title: str = "",
) -> None:
    """Write ``explanations_figure`` as a PNG; see there for the arguments.

    Raises:
        OutputError: if the file cannot be written.
        UsageError: if there is no method, or one has not a map per column.
    """
    save_figure(explanations_figure(pixels, maps, betas, title=title), path)


def reference_explanations(
    path: str | os.PathLike[str], pixels: Tensor, maps: Sequence[Tensor], betas: Sequence[float]
) -> None:
    """Write ``expls_METHOD.png`` in the layout of the paper's program.

    Args:
        path: the file to write; replaced if it exists.
        pixels: the image, 0..1, [3, H, W].
        maps: the heat maps [H, W] of one method: of the ReLU network, then one per beta.
        betas: of the softplus networks, in the order of the maps.

    Raises:
        OutputError: if the file cannot be written.
        UsageError: if there is not a map per column.
    """
    captions = ["Expl. with ReLU", *(f"Expl. with softplus \nbeta={beta:g}" for beta in betas)]
    if len(maps) != len(captions):
        raise UsageError(f"{len(maps)} maps for {len(captions)} columns: give one per column")
    photos = pixels.expand(len(maps), -1, -1, -1)
    height = _PANEL * photos.shape[2] / photos.shape[3]
    figure = new_figure((1 + len(maps)) * (_PANEL + _GAP) + _GAP, 2 * _LINE + height + _GAP)
    places = [
        axes_at(figure, _GAP + column * (_PANEL + _GAP), 2 * _LINE, _PANEL, height)
        for column in range(1 + len(maps))
    ]
    show_photo(places[0], pixels, "Image")
    for place, heat, caption in zip(places[1:], maps, captions, strict=True):
        show_map(place, heat, bright(maps), caption, colours=REFERENCE_COLOURS)
    save_figure(figure, path)
