"""The figures of a run: boxes, scatter and curves, each panel drawn on axes of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trompe.report.style import FONT, log_sideways, log_upwards, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Told apart by people with any colour vision, and visible on light and dark pages (Paul Tol).
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#888888")
#: Inches of one panel.
WIDTH, HEIGHT = 3.4, 2.6

Groups = Mapping[str, Mapping[str, Sequence[float]]]
"""Values by group (a place on the axis, such as a method) and series (a colour)."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Args:
        title: above it.
        describe: what it shows, in words, for those who do not see it.
        draw: draws it.
        height: in inches.
    """

    title: str
    describe: str
    draw: Callable[[Axes], None]
    height: float = HEIGHT


FEWEST = 5
"""Fewer values than this have no quartiles worth a box: each is drawn as a point."""


def box_statistics(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles, and the 10th and 90th percentile: the paper's boxes and whiskers."""
    low, first, median, third, high = np.percentile(list(values), [10, 25, 50, 75, 90])
    return {
        "whislo": float(low),
        "q1": float(first),
        "med": float(median),
        "q3": float(third),
        "whishi": float(high),
    }


def draw_boxes(axes: Axes, groups: Groups, *, log: bool = False) -> None:
    """Box plots, groups along the axis, series side by side; of fewer than five values, points.

    Args:
        axes: to draw on.
        groups: the values.
        log: logarithmic scale, if all values are positive.
    """
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.75 / max(len(series), 1)
    lowest = np.inf
    for number, name in enumerate(series):
        statistics: list[dict[str, Any]] = []
        places = []
        colour = COLOURS[number % len(COLOURS)]
        for place, group in enumerate(groups.values()):
            values = [v for v in group.get(name, ()) if np.isfinite(v)]
            across = place + (number - (len(series) - 1) / 2) * width
            lowest = min(lowest, *values, np.inf)
            if len(values) >= FEWEST:
                statistics.append(dict(box_statistics(values)))
                places.append(across)
            else:
                axes.plot([across] * len(values), values, "o", color=colour, markersize=4)
        if statistics:
            axes.bxp(
                statistics,
                positions=places,
                widths=0.85 * width,
                showfliers=False,
                patch_artist=True,
                boxprops={"facecolor": colour, "alpha": 0.75, "edgecolor": colour},
                medianprops={"color": "black", "linewidth": 1.4},
                whiskerprops={"color": colour, "linewidth": 1.2},
                capprops={"color": colour, "linewidth": 1.2},
            )
        axes.plot([], [], "s", color=colour, label=name)
    if log and lowest > 0 and np.isfinite(lowest):
        axes.set_yscale("log")
    axes.set_xticks(range(len(groups)), [_spoken(name) for name in groups])
    axes.set_xlim(-0.6, len(groups) - 0.4)
    for text in axes.get_xticklabels():
        text.set_rotation(0 if len(groups) <= 2 else 25)
        text.set_horizontalalignment("center" if len(groups) <= 2 else "right")
    if len(series) > 1:
        _legend_above(axes)
    _plain(axes)


def draw_scatter(
    axes: Axes,
    points: Mapping[str, Sequence[tuple[float, float]]],
    *,
    across: str,
    up: str,
    log: bool = False,
) -> None:
    """Points by series, with the diagonal on which both coordinates are equal.

    Args:
        axes: to draw on.
        points: by series.
        across: name of the first coordinate.
        up: name of the second.
        log: logarithmic scales.
    """
    from matplotlib.ticker import NullFormatter

    everything = [value for some in points.values() for point in some for value in point]
    everything = [value for value in everything if np.isfinite(value)] or [0.0, 1.0]
    low, high = min(everything), max(everything)
    if log and low > 0:
        axes.set_xscale("log")
        axes.set_yscale("log")
        if np.floor(np.log10(high)) > np.log10(low):  # a power of ten is named: that is enough
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.tick_params(axis="x", which="both", rotation=30)
    axes.axline((low, low), (high, high) if high > low else (low + 1, low + 1), **_GUIDE)
    for number, (name, some) in enumerate(points.items()):
        axes.plot(
            [point[0] for point in some],
            [point[1] for point in some],
            "osD^vP*"[number % 7],
            color=COLOURS[number % len(COLOURS)],
            markersize=4,
            alpha=0.8,
            label=_spoken(name),
        )
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if len(points) > 1:
        _legend_above(axes)
    _plain(axes)


_GUIDE: dict[str, Any] = {"color": "#888888", "linewidth": 0.8, "linestyle": "--"}


@dataclass(frozen=True)
class Curve:
    """A curve with its band.

    Args:
        across: coordinates, [N].
        values: one row per image, [M, N]; the median is drawn, and the band of the quartiles.
    """

    across: Sequence[float]
    values: Sequence[Sequence[float]]


def draw_curves(
    axes: Axes,
    curves: Mapping[str, Curve],
    *,
    across: str,
    up: str,
    log_across: bool = False,
    log_up: bool = False,
) -> None:
    """Medians and quartiles over images.

    Args:
        axes: to draw on.
        curves: by series.
        across: name of the coordinate.
        up: name of the values.
        log_across: logarithmic coordinate.
        log_up: logarithmic values.
    """
    for number, (name, curve) in enumerate(curves.items()):
        first, median, third = np.nanpercentile(np.asarray(curve.values), [25, 50, 75], axis=0)
        colour = COLOURS[number % len(COLOURS)]
        dashes = ("-", "--", "-.", ":")[number % 4]
        axes.plot(curve.across, median, dashes, color=colour, label=_spoken(name), linewidth=1.5)
        axes.fill_between(curve.across, first, third, color=colour, alpha=0.2, linewidth=0)
    if log_across:
        log_sideways(axes)
    if log_up:
        log_upwards(axes)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if len(curves) > 1:
        _legend_above(axes)
    _plain(axes)


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _legend_columns(labels: Sequence[str]) -> int:
    """As many columns as fit above a panel."""
    return 3 if sum(sorted(map(len, labels))[-3:]) <= 36 else 2


def _legend_above(axes: Axes) -> None:
    """A legend that hides nothing."""
    labels = axes.get_legend_handles_labels()[1]
    axes.legend(
        fontsize=FONT - 1,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(-0.1, 1.0),
        ncols=min(len(labels), _legend_columns(labels)),
        borderaxespad=0.2,
        columnspacing=1.0,
        handletextpad=0.4,
    )


def _plain(axes: Axes) -> None:
    """Small letters, no box around, faint lines to read values off."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#888888", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=FONT - 1)
    axes.yaxis.get_offset_text().set_fontsize(FONT - 1)
    axes.xaxis.label.set_fontsize(FONT)
    axes.yaxis.label.set_fontsize(FONT)
    axes.xaxis.label.set_parse_math(False)
    axes.yaxis.label.set_parse_math(False)


def panel_figure(panel: Panel) -> Figure:
    """A figure of one panel, without its title."""
    figure = new_figure(WIDTH, panel.height)
    panel.draw(figure.add_subplot())
    figure.tight_layout(pad=0.4)
    return figure


def joint_figure(panels: Sequence[Panel], columns: int = 3) -> Figure:
    """A figure of several panels with their titles, as in the paper.

    Where all panels have the same legend, it stands once, above them.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(columns * WIDTH, rows * (HEIGHT + 0.2))
    drawn = []
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        panel.draw(axes)
        drawn.append(axes)
    names = [_legend_names(axes) for axes in drawn]
    shared = len(panels) > 1 and len(names[0]) > 1 and all(one == names[0] for one in names)
    for axes, panel, entries in zip(drawn, panels, names, strict=True):
        lines = 0 if shared else -(-len(entries) // _legend_columns(entries))
        axes.set_title(panel.title, fontsize=FONT + 1, pad=5 + 12 * lines, parse_math=False)
    if not shared:
        figure.tight_layout(pad=0.6)
        return figure
    handles, labels = drawn[0].get_legend_handles_labels()
    for axes in drawn:
        legend = axes.get_legend()
        if legend is not None:
            legend.remove()
    figure.legend(
        handles, labels, loc="upper center", ncols=len(labels), frameon=False, fontsize=FONT - 1
    )
    figure.tight_layout(pad=0.6, rect=(0, 0, 1, 1 - 0.25 / figure.get_size_inches()[1]))
    return figure


def _legend_names(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]
