"""Figures of the geometry: sandwiches, and curvature against beta."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trompe.certificates import Sandwich
from trompe.report.style import FONT, log_upwards, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = {
    "gradient_l2": "gradient, l2",
    "normal_l2": "normalised gradient, l2",
    "heatmap_l1": "heat map, l1",
}
_COLOURS = {
    "frobenius": "#bbbbbb",
    "global": "#8c6bb1",
    "interval": "#4292c6",
    "jacobian": "#238b45",
}
_ATTACK = "#cb181d"


def _beta(beta: float | None) -> str:
    return "ReLU" if beta is None else f"$\\beta$ = {beta:g}"


def sandwich_figure(found: Sandwich, title: str = "") -> Figure:
    """One row per quantity, one column per beta: attack below, bounds above, against the radius.

    Several images: their medians.
    """
    quantities = list(dict.fromkeys(layer.quantity for layer in found.layers))
    betas = list(dict.fromkeys(layer.beta for layer in found.layers))
    figure = new_figure(2.6 * len(betas) + 0.9, 2.3 * len(quantities) + 0.9)
    grid = figure.subplots(len(quantities), len(betas), squeeze=False, sharex=True, sharey="row")
    for row, quantity in enumerate(quantities):
        for column, beta in enumerate(betas):
            axes = grid[row, column]
            _panel(axes, found, quantity, beta)
            if row == 0:
                axes.set_title(_beta(beta), fontsize=FONT + 1)
            if column == 0:
                axes.set_ylabel(f"change of the\n{_NAMES[quantity]}", fontsize=FONT)
            if row == len(quantities) - 1:
                axes.set_xlabel(f"radius of the {found.norm} ball", fontsize=FONT)
    entries = {}
    for axes in grid.flat:
        handles, labels = axes.get_legend_handles_labels()
        entries.update(dict(zip(labels, handles, strict=True)))
    across = min(len(entries), 2 * len(betas))
    figure.subplots_adjust(
        left=0.75 / figure.get_size_inches()[0],
        right=1 - 0.1 / figure.get_size_inches()[0],
        top=1 - (0.59 + 0.16 * -(-len(entries) // across)) / figure.get_size_inches()[1],
        bottom=0.45 / figure.get_size_inches()[1],
        wspace=0.06,
        hspace=0.12,
    )
    figure.legend(
        entries.values(), entries.keys(), loc="upper center", ncols=across, fontsize=FONT,
        frameon=False, bbox_to_anchor=(0.5, 1 - 0.22 / figure.get_size_inches()[1]),
    )  # fmt: skip
    if title:
        figure.suptitle(title, fontsize=FONT + 1, y=1 - 0.1 / figure.get_size_inches()[1])
    return figure


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _panel(axes: Axes, found: Sandwich, quantity: str, beta: float | None) -> None:
    layers = [one for one in found.layers if one.quantity == quantity and one.beta == beta]
    radii = sorted({one.radius for one in layers})
    at = {radius: [one for one in layers if one.radius == radius] for radius in radii}
    lower = [_median([one.lower for one in at[radius]]) or math.nan for radius in radii]
    methods = list(dict.fromkeys(name for one in layers for name in one.upper))
    best = [_median([one.best for one in at[radius]]) for radius in radii]
    if methods:
        axes.fill_between(radii, lower, best, color="#fdd0a2", alpha=0.6, linewidth=0)
    for method in methods:
        values = [_median([one.upper[method] for one in at[radius]]) for radius in radii]
        axes.plot(
            radii, values, color=_COLOURS.get(method, "black"), linewidth=1.1, marker="v",
            markersize=3, label=f"bound: {method}",
        )  # fmt: skip
    axes.plot(
        radii, lower, color=_ATTACK, linewidth=1.4, marker="^", markersize=3.5,
        label="strongest attack found",
    )  # fmt: skip
    if quantity != "gradient_l2":
        axes.axhline(2, color="black", linewidth=0.6, linestyle=":")
    axes.set_xscale("log")
    log_upwards(axes)
    axes.tick_params(which="both", labelsize=FONT - 1)
    axes.grid(True, which="major", linewidth=0.3, color="#dddddd")


def save_sandwich(path: str | os.PathLike[str], found: Sandwich, title: str = "") -> None:
    """Write ``sandwich_figure`` as a PNG."""
    save_figure(sandwich_figure(found, title), path)


def curvature_figure(
    betas: Sequence[float], curvatures: Sequence[Sequence[float]], title: str = ""
) -> Figure:
    """The principal curvatures' magnitudes against beta.

    Args:
        betas: rising or falling.
        curvatures: per beta, those of one image, of falling magnitude.
        title: above the figure.
    """
    figure = new_figure(4.6, 3.4)
    axes = figure.subplots()
    for index in range(len(curvatures[0])):
        values = [abs(row[index]) for row in curvatures]
        axes.plot(
            betas,
            values,
            marker="o",
            markersize=3,
            linewidth=1.4 if index == 0 else 0.9,
            color=_ATTACK if index == 0 else "#4292c6",
            alpha=1 if index == 0 else 0.8 - 0.6 * index / len(curvatures[0]),
            label=r"$|\lambda_{max}|$" if index == 0 else ("the next" if index == 1 else None),
        )
    axes.set_xscale("log")
    log_upwards(axes)
    axes.set_xlabel(r"$\beta$ of the softplus network", fontsize=FONT)
    axes.set_ylabel("principal curvature, magnitude", fontsize=FONT)
    axes.tick_params(which="both", labelsize=FONT - 1)
    axes.grid(True, which="major", linewidth=0.3, color="#dddddd")
    axes.legend(fontsize=FONT, frameon=False)
    axes.set_title(title, fontsize=FONT + 1, parse_math=False)
    figure.tight_layout()
    return figure


def save_curvature(
    path: str | os.PathLike[str],
    betas: Sequence[float],
    curvatures: Sequence[Sequence[float]],
    title: str = "",
) -> None:
    """Write ``curvature_figure`` as a PNG."""
    save_figure(curvature_figure(betas, curvatures, title), path)
