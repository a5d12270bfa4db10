"""Figures of beta-smoothing: maps against beta, attacks on smoothed maps, the choice of beta."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from trompe.attacks import Adaptive
from trompe.defences import Choice
from trompe.geometry import Comparison, Likeness, Recovery
from trompe.report.figures import (
    Curve,
    Panel,
    draw_boxes,
    draw_curves,
    draw_scatter,
    joint_figure,
)
from trompe.report.style import FONT, log_sideways, log_upwards, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

_BLUE, _RED, _GREEN, _GREY = "#2171b5", "#cb181d", "#238b45", "#969696"


def _axes(axes: Axes, ylabel: str) -> None:
    log_sideways(axes)
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


def distance_figure(found: Mapping[str, Likeness]) -> Figure:
    """Softplus maps against the ReLU map: MSE, SSIM and PCC over beta (figures 7, 8 and 9).

    Args:
        found: by method, from ``trompe.geometry.distance_to_relu``.
    """
    panels = []
    for measure in ("mse", "ssim", "pcc"):
        curves = {
            method: Curve(one.betas, getattr(one, measure).T.tolist())
            for method, one in found.items()
        }
        draw = partial(
            draw_curves, curves=curves, across="β", up=measure.upper(), log_across=True,
            log_up=measure == "mse",
        )  # fmt: skip
        panels.append(Panel(f"{measure.upper()} to the ReLU map", "Curves over beta.", draw))
    return joint_figure(panels)


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
    log_upwards(lower)
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


def adaptive_figure(found: Adaptive) -> Figure:
    """Attacking a smoothed explanation against attacking the plain one, per image (figure 5).

    Args:
        found: from ``trompe.attacks.adaptive_attack``.
    """
    panels = []
    for measure in ("mse", "ssim", "pcc"):
        plain = getattr(found.plain.after, measure).tolist()
        points = {
            name: list(zip(plain, getattr(one.after, measure).tolist(), strict=True))
            for name, one in found.smoothed.items()
        }
        draw = partial(
            draw_scatter, points=points, across="attack on the plain explanation",
            up="on the smoothed one", log=measure == "mse",
        )  # fmt: skip
        words = f"{measure.upper()} of the map and the target"
        panels.append(Panel(words, "Scatter plot: a point is an image.", draw))
    return joint_figure(panels)


def comparison_panels(found: Comparison) -> tuple[Panel, Panel]:
    """SmoothGrad beside beta-smoothing: likeness of the maps, and run times (figure 5).

    Args:
        found: from ``trompe.geometry.compare_smoothings``.
    """
    times = {name.replace("beta-", "β-"): seconds for name, seconds in found.seconds.items()}
    medians = "; ".join(f"{name}: {time:.3g} s" for name, time in found.median_seconds.items())
    return (
        Panel(
            f"SmoothGrad's map and that of β = {found.beta:g}",
            f"Curve over the noise; Theorem 2 names {found.sigma:.3g}.",
            partial(_draw_agreement, found=found),
        ),
        Panel(
            "Seconds per explanation",
            f"Box plots. {medians}.",
            partial(draw_boxes, groups={name: {"": seconds} for name, seconds in times.items()},
                    log=True),
        ),
    )  # fmt: skip


def comparison_figure(found: Comparison) -> Figure:
    """``comparison_panels`` as a figure."""
    return joint_figure(comparison_panels(found), columns=2)


def _draw_agreement(axes: Axes, found: Comparison) -> None:
    """The correlation over sigma, with Theorem 2's sigma and what no smoothing reaches."""
    name = f"SmoothGrad {found.samples[-1]}"
    draw_curves(
        axes,
        {name: Curve(found.sigmas, found.agreement.T.tolist())},
        across="SmoothGrad's noise, units of x",
        up="PCC",
        log_across=found.sigmas[0] > 0,
    )
    axes.axhline(float(found.plain.nanquantile(0.5)), color=_GREY, linewidth=1.0, linestyle="--")
    axes.axvline(found.sigma, color="black", linewidth=0.8)
    if found.sigmas[0] > 0:  # few values, close together: matplotlib's own labels overlap
        axes.minorticks_off()
        axes.set_xticks(found.sigmas, [f"{sigma:.2g}" for sigma in found.sigmas])
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.15 * (high - low))
    axes.text(found.sigma, 1.0, "Theorem 2 ", fontsize=FONT - 1, ha="right", va="top",
              transform=axes.get_xaxis_transform())  # fmt: skip
    axes.text(0.0, float(found.plain.nanquantile(0.5)), " not smoothed", fontsize=FONT - 1,
              color="#666666", va="bottom", transform=axes.get_yaxis_transform())  # fmt: skip
