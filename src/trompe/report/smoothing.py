"""Figures of beta-smoothing: maps against beta (figures 4, 7, 8, 9), and the choice of beta."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from trompe.geometry.smoothing import Choice, Likeness, Recovery
from trompe.report.style import FONT, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

_BLUE, _RED, _GREEN, _GREY = "#2171b5", "#cb181d", "#238b45", "#969696"


def _axes(axes: Axes, ylabel: str) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(r"$\beta$", fontsize=FONT)
    axes.set_ylabel(ylabel, fontsize=FONT)
    axes.tick_params(which="both", labelsize=FONT - 1)
    axes.grid(True, which="major", linewidth=0.3, color="#dddddd")


def _band(axes: Axes, betas: tuple[float, ...], values: Tensor, colour: str, label: str) -> None:
    """The median over the images, and the quarter above and below it."""
    low, middle, high = (
        values.double().nanquantile(share, dim=1).tolist() for share in (0.25, 0.5, 0.75)
    )
    axes.fill_between(betas, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(betas, middle, color=colour, linewidth=1.4, marker="o", markersize=3, label=label)


def distance_figure(found: Likeness, title: str = "") -> Figure:
    """Softplus maps against the ReLU map: MSE, SSIM and PCC over beta (figures 7, 8 and 9)."""
    figure = new_figure(8.4, 2.7)
    for axes, name in zip(figure.subplots(1, 3), ("mse", "ssim", "pcc"), strict=True):
        _band(axes, found.betas, getattr(found, name), _BLUE, "softplus map to ReLU map")
        _axes(axes, name.upper())
        if name == "mse":
            axes.set_yscale("log")
    figure.suptitle(title, fontsize=FONT + 1)
    figure.tight_layout()
    return figure


def recovery_figure(found: Recovery, title: str = "") -> Figure:
    """The manipulated image's map, smoothed: back to the original, off the target (figure 4)."""
    figure = new_figure(4.4, 3.1)
    axes = figure.subplots()
    _band(axes, found.to_original.betas, found.to_original.pcc, _BLUE, "with the original's map")
    _band(axes, found.to_target.betas, found.to_target.pcc, _RED, "with the attack's target")
    _axes(axes, "correlation of the smoothed map")
    axes.legend(fontsize=FONT, frameon=False)
    axes.set_title(title, fontsize=FONT + 1, parse_math=False)
    figure.tight_layout()
    return figure


def choice_figure(found: Choice, title: str = "") -> Figure:
    """What smoothing costs (faithfulness) and brings (flatness), and the beta chosen."""
    figure = new_figure(4.8, 4.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(found.betas, found.faithful, color=_BLUE, marker="o", markersize=3, linewidth=1.4)
    upper.axhline(found.threshold, color=_GREY, linewidth=0.8, linestyle="--")
    _axes(upper, "correlation with\nthe plain map")
    upper.set_xlabel("")
    measured = [value or math.nan for value in found.curvature]
    lower.plot(
        found.betas, measured, color=_GREEN, marker="o", markersize=3, linewidth=1.4,
        label=r"measured at the image: $|\lambda_{max}|$",
    )  # fmt: skip
    if any(math.isfinite(value) for value in found.bound):
        lower.plot(
            found.betas, found.bound, color=_RED, marker="v", markersize=3, linewidth=1.1,
            label="proved for all inputs, from layer norms",
        )  # fmt: skip
    _axes(lower, "curvature")
    lower.set_yscale("log")
    for axes in (upper, lower):
        axes.axvline(found.chosen, color="black", linewidth=0.8)
    upper.annotate(
        rf" $\beta$ = {found.chosen:g}", (found.chosen, upper.get_ylim()[0]), fontsize=FONT,
        va="bottom",
    )  # fmt: skip
    lower.legend(fontsize=FONT - 1, frameon=False)
    upper.set_title(title, fontsize=FONT + 1, parse_math=False)
    figure.tight_layout()
    return figure


def save_choice(path: str | os.PathLike[str], found: Choice, title: str = "") -> None:
    """Write ``choice_figure`` as a PNG."""
    save_figure(choice_figure(found, title), path)
