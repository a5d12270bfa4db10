"""The figure and the words of an evaluation of robustness."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trompe.report.attack_words import number
from trompe.report.style import FONT, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#cb181d", "#4292c6", "#238b45", "#8c6bb1", "#d94801", "#636363")
_CURVES = ("pcc", "spearman", "ssim", "topk", "lens_topk")


def radius_in_words(radius: float, norm: str) -> str:
    """Such as ``2/255 (linf)``, or the number itself where it is no whole number of levels."""
    levels = 255 * radius
    near = norm == "linf" and abs(levels - round(levels, 1)) < 1e-6
    return f"{levels:.3g}/255 ({norm})" if near else f"{radius:.4g} ({norm})"


def robustness_figure(report: Mapping[str, Any], title: str = "") -> Figure:
    """Robust-explanation accuracy against tau: per measure, one line per radius, its interval.

    Args:
        report: of ``Evaluation.report``.
        title: above the panels.
    """
    figure = new_figure(2.3 * len(_CURVES) + 0.6, 2.9)
    grid = figure.subplots(1, len(_CURVES), squeeze=False, sharey=True)[0]
    for axes, name in zip(grid, _CURVES, strict=True):
        _panel(axes, report, name)
    grid[0].set_ylabel("share of all images", fontsize=FONT)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=6, fontsize=FONT, frameon=False)
    if title:
        figure.suptitle(title, fontsize=FONT + 2)
    figure.subplots_adjust(left=0.06, right=0.99, top=0.8, bottom=0.27, wspace=0.08)
    return figure


def _panel(axes: Axes, report: Mapping[str, Any], name: str) -> None:
    for place, entry in enumerate(report["radii"]):
        measure = entry["measures"][name]
        taus, shares, low, high = (
            [point[key] for point in measure["curve"]] for key in ("tau", "share", "low", "high")
        )
        colour = _COLOURS[place % len(_COLOURS)]
        label = radius_in_words(entry["radius"], entry["norm"])
        axes.plot(taus, shares, color=colour, label=label, linewidth=1.5)
        axes.fill_between(taus, low, high, color=colour, alpha=0.15, linewidth=0)
    floor = report["radii"][-1]["measures"][name]["floor_mean"]
    for style, (control, value) in zip(("--", ":", "-.", (0, (1, 4))), floor.items(), strict=False):
        if value is not None:
            axes.axvline(value, color="#999999", linestyle=style, linewidth=1, label=control)
    chance = report["radii"][0]["measures"][name]["chance"]
    if chance:
        axes.axvline(chance, color="black", linewidth=0.8, label="chance of top-k")
    axes.set_title(measure["title"], fontsize=FONT + 1)
    axes.set_xlabel("tau", fontsize=FONT)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    axes.tick_params(labelsize=FONT - 1)


def save_robustness(
    path: str | os.PathLike[str], report: Mapping[str, Any], title: str = ""
) -> None:
    """Write the figure as a PNG, whole or not at all."""
    save_figure(robustness_figure(report, title), path)


def robustness_in_words(report: Mapping[str, Any]) -> str:
    """A few lines per radius: the number, what it rests on, and what to doubt."""
    lines: list[str] = []
    for entry in report["radii"]:
        lines += _radius_in_words(entry, report)
    if report["failed"]:
        name, why = next(iter(report["failed"].items()))
        more = len(report["failed"]) - 1
        lines.append(f"Failed: {name} ({why})" + (f", and {more} more" if more else ""))
    return "\n".join(lines)


def _radius_in_words(entry: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    robust, status = entry["robust_explanation_accuracy"], entry["status"]
    pcc, topk = entry["measures"]["pcc"], entry["measures"]["topk"]
    broken = f"{status['success']} of {robust['n']} explanations broken"
    lines = [
        f"within {radius_in_words(entry['radius'], entry['norm'])}: {broken}",
        f"  robust       {robust['share']:.0%} of all {robust['n']} images keep a map that "
        f"correlates at least {report['tau']:g} ({robust['confidence']:.0%} interval "
        f"{robust['low']:.0%} to {robust['high']:.0%})",
        f"  images       success {status['success']}, nothing found {status['nothing found']}, "
        f"unknown {status['unknown']}, failed {status['failed']}",
        f"  worst case   PCC {number(pcc['worst_mean'])}, top-k {number(topk['worst_mean'])} "
        f"(chance {topk['chance']:.2f})",
        "  floor        "
        + ", ".join(f"{name} {number(value)}" for name, value in pcc["floor_mean"].items())
        + " (PCC without an attack)",
    ]
    doubts = [f"{name} ({count})" for name, count in entry["flags"].items() if count]
    if doubts:
        lines.append(f"  doubts       {', '.join(doubts)}")
    if entry["stopped"] != "finished":
        lines.append("  stopped      early: what was found so far")
    return lines
