"""Pictures in rows and columns, as in figures 1 and 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trompe.errors import UsageError
from trompe.report.style import FONT, axes_at, bright, new_figure, show_map, show_photo
from trompe.types import InputSpace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Inches: the width of a panel, the gap, the room of a title and of the names at the left.
_PANEL, _GAP, _TITLE, _NAMES = 1.25, 0.05, 0.3, 0.25
_ROWS = ("original map", "target map", "manipulated map", "manipulated image", "perturbation")


@dataclass(frozen=True)
class Column:
    """What one method shows.

    Args:
        name: of the method.
        original: heat map of the original image, [H, W].
        target: the map aimed at.
        manipulated: heat map of the manipulated image.
        x_adv: that image, normalised, [C, H, W].
    """

    name: str
    original: Tensor
    target: Tensor
    manipulated: Tensor
    x_adv: Tensor


def strips(
    columns: Sequence[Column], x: Tensor, space: InputSpace, *, target: Tensor | None = None
) -> Figure:
    """Methods across; original, target and manipulated map, image and perturbation down.

    Args:
        columns: one per method.
        x: the original image, normalised, [C, H, W].
        space: of the model.
        target: the target image, if there is one, normalised.

    Raises:
        UsageError: if there is no method.
    """
    if not columns:
        raise UsageError("no method came through: there is nothing to draw")
    step = _PANEL + _GAP
    left = 2 * _NAMES + step
    figure = new_figure(left + len(columns) * step, _TITLE + len(_ROWS) * step)
    pixels = space.to_pixels(x[None])[0]
    show_photo(axes_at(figure, _NAMES, _TITLE, _PANEL, _PANEL), pixels, "original image")
    if target is not None:
        top = _TITLE + 2 * step
        show_photo(
            axes_at(figure, _NAMES, top, _PANEL, _PANEL),
            space.to_pixels(target[None])[0],
            "target image",
        )
    changes = [space.to_pixels(c.x_adv[None])[0] - pixels for c in columns]
    largest = torch.stack(changes).abs().max()
    factor = 0.5 / max(float(largest), 1e-12)
    for number, (column, change) in enumerate(zip(columns, changes, strict=True)):
        maps = (column.original, column.target, column.manipulated)
        for row, name in enumerate(_ROWS):
            place = axes_at(figure, left + number * step, _TITLE + row * step, _PANEL, _PANEL)
            title = "" if row else column.name.replace("_", " ")
            if row < 3:
                show_map(place, maps[row], bright(maps), title)
            else:
                show_photo(place, (pixels + change) if row == 3 else 0.5 + factor * change)
            if number == 0:
                place.set_ylabel(name, fontsize=FONT)
    return figure
