"""The figure of a sandwich from noise: what is certified, and what attacks reach."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

from trompe.certificates import NoiseLayer, NoiseSandwich
from trompe.report.style import FONT, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BOUND, _ATTACK, _PLAIN = "#2166ac", "#cb181d", "#fdae61"


def noise_sandwich_figure(found: NoiseSandwich, title: str = "") -> Figure:
    """Three panels over the radius: correlation, l1 change, largest squares.

    Several images: their medians. Where the bound of the correlation is void for most images, a
    cross on the axis says so.
    """
    figure = new_figure(8.6, 3.1)
    pcc, l1, overlap = figure.subplots(1, 3)
    _curve(pcc, found, lambda one: max(one.certified_pcc, 0.0), _BOUND, "certified: at least")
    _curve(pcc, found, lambda one: one.attacked_pcc, _ATTACK, "attack on the smoothed map")
    _curve(pcc, found, lambda one: one.plain_pcc, _PLAIN, "attack on the plain map")
    _curve(l1, found, lambda one: one.certified_l1 / 2, _BOUND, "certified: at most")
    _curve(l1, found, lambda one: one.attacked_l1 / 2, _ATTACK, "attack on the smoothed map")
    _curve(overlap, found, lambda one: one.certified_overlap, _BOUND, "certified: at least")
    _curve(overlap, found, lambda one: one.attacked_overlap, _ATTACK, "attack on the smoothed map")
    void = [radius for radius, layers in _by_radius(found) if _mostly_void(layers)]
    if void:
        pcc.plot(
            void, [0.0] * len(void), "x", color="black", clip_on=False, label="void: nothing known"
        )
    names = ("correlation (PCC)", "l1 change, share of the largest", "largest squares that stay")
    for axes, name in zip((pcc, l1, overlap), names, strict=True):
        axes.set_ylim(0, 1)
        axes.set_xlim(left=0)
        axes.set_ylabel(name, fontsize=FONT)
        axes.set_xlabel("radius (l2, pixel units)", fontsize=FONT)
        axes.tick_params(labelsize=FONT - 1)
        axes.grid(True, linewidth=0.3, color="#dddddd")
    handles, labels = pcc.get_legend_handles_labels()
    figure.subplots_adjust(left=0.07, right=0.985, top=0.78, bottom=0.16, wspace=0.28)
    figure.legend(
        handles, labels, loc="upper center", ncols=4, fontsize=FONT, frameon=False,
        bbox_to_anchor=(0.5, 0.93),
    )  # fmt: skip
    if title:
        figure.suptitle(title, fontsize=FONT + 1, y=0.985)
    return figure


def save_noise_sandwich(
    path: str | os.PathLike[str], found: NoiseSandwich, title: str = ""
) -> None:
    """Write ``noise_sandwich_figure`` as a PNG."""
    save_figure(noise_sandwich_figure(found, title), path)


def _by_radius(found: NoiseSandwich) -> list[tuple[float, list[NoiseLayer]]]:
    radii = sorted({one.radius for one in found.layers})
    return [(radius, [one for one in found.layers if one.radius == radius]) for radius in radii]


def _mostly_void(layers: list[NoiseLayer]) -> bool:
    return 2 * sum(one.void for one in layers) > len(layers)


def _curve(
    axes: Axes,
    found: NoiseSandwich,
    value: Callable[[NoiseLayer], float],
    colour: str,
    name: str,
) -> None:
    rows = _by_radius(found)
    axes.plot(
        [radius for radius, _ in rows],
        [statistics.median(value(one) for one in layers) for _, layers in rows],
        marker="o", markersize=3, linewidth=1.3, color=colour, label=name,
    )  # fmt: skip
