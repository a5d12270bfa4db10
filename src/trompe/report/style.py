"""What all figures share: panels for photos and maps, colours, limits, and saving."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from trompe.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Perceptually uniform and dark where nothing is relevant.
MAP_COLOURS = "inferno"
#: The colours of the paper's program.
REFERENCE_COLOURS = "coolwarm"
#: Heat maps have a few very bright pixels: this share of the entries stays below the brightest
#: colour, and the rest of the map remains visible.
ROBUST = 0.99
#: Size of the letters, in points.
FONT = 8
#: Dots per inch of a saved figure.
DPI = 150


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that is drawn by Agg and unknown to pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from trompe.report.shown_figure import ShownFigure

    figure = ShownFigure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes for a picture of this size and place, in inches from the upper left corner.

    Placed by hand, the panels of a figure fit it exactly; matplotlib's layout engines leave gaps
    and take seconds for a page of images.
    """
    whole_width, whole_height = figure.get_size_inches()
    return figure.add_axes(
        (
            left / whole_width,
            1 - (top + height) / whole_height,
            width / whole_width,
            height / whole_height,
        )
    )


def log_upwards(axes: Axes) -> None:
    """A logarithmic scale of the values, where any curve has one to be drawn on it.

    Zeros have no logarithm: curves of nothing else, as the curvature of a linear network, keep the
    linear scale.
    """
    if any((np.asarray(line.get_ydata(), dtype=float) > 0).any() for line in axes.get_lines()):
        axes.set_yscale("log", nonpositive="mask")


def log_sideways(axes: Axes) -> None:
    """A logarithmic scale across, where any curve has a point that can be drawn on it.

    Curves without a single number, as of maps that do not exist, keep the linear scale.
    """
    for line in axes.get_lines():
        across, up = (np.asarray(data, dtype=float) for data in line.get_data())
        if ((across > 0) & np.isfinite(up)).any():
            axes.set_xscale("log")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure as a PNG, whole or not at all.

    Raises:
        OutputError: if the file cannot be written.
    """
    with atomic_path(path) as temporary:
        # No date and no version inside: the same figure gives the same bytes.
        figure.savefig(temporary, format="png", metadata={"Software": None})


def short(labels: Sequence[str]) -> list[str]:
    """Readable names, cut to a title's length."""
    return [name if len(name) <= 22 else f"{name[:21]}…" for name in labels]


def bright(maps: Sequence[Tensor]) -> float:
    """The entry that gets the brightest colour in all ``maps``: the median of their own limits."""
    limits = []
    for one in maps:
        entries = one.detach().cpu().numpy()  # torch.quantile ends at 16 million entries
        limits.append(float(np.quantile(entries, ROBUST)) or float(entries.max()))
    return statistics.median(limits) or 1.0


def panel(axes: Axes, title: str = "") -> None:
    """Make ``axes`` a bare picture with a title."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    # A class may be called anything: a dollar sign does not begin a formula.
    axes.set_title(title, fontsize=FONT, pad=4, parse_math=False)


def show_photo(axes: Axes, pixels: Tensor, title: str = "") -> None:
    """Show pixels 0..1, [3, H, W] or [1, H, W] (other channel numbers: their mean), clamped."""
    pixels = pixels.detach().cpu().float().clamp(0, 1)
    if pixels.shape[0] != 3:
        pixels = pixels.mean(dim=0).expand(3, -1, -1)
    axes.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
    panel(axes, title)


def show_map(
    axes: Axes, heat: Tensor, brightest: float, title: str = "", *, colours: str = MAP_COLOURS
) -> None:
    """Show a heat map [H, W], from 0 to ``brightest``."""
    axes.imshow(
        heat.detach().cpu().float().numpy(),
        cmap=colours,
        vmin=0,
        vmax=brightest,
        interpolation="nearest",
    )
    panel(axes, title)
