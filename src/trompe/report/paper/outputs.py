"""Figures 10 and 11: what the attack does to the network's answer."""

from __future__ import annotations

from trompe.report.figures import joint_figure
from trompe.report.paper.attacks import middle
from trompe.report.paper.context import Claim, Context, Redrawn
from trompe.report.run_figures import OUTPUTS, box_panels


def _outputs(context: Context, first: int, last: int) -> Redrawn:
    rows = context.plain.done
    kept = sum(row.values["class_kept"] for row in rows)
    claims = (
        Claim(
            "cells in which the class is kept",
            "all",
            f"{kept:.0f} of {len(rows)}",
            kept == len(rows),
        ),
        Claim(
            "median change of the softmax (L2)",
            "about 1e-3",
            f"{middle(rows, 'softmax_l2'):.2g}",
            middle(rows, "softmax_l2") < 1e-2,
        ),
    )
    return Redrawn({"": joint_figure(box_panels(rows, OUTPUTS[first:last]), columns=2)}, claims)


def figure_10(context: Context) -> Redrawn:
    """How far the output moved."""
    return _outputs(context, 0, 2)


def figure_11(context: Context) -> Redrawn:
    """How far the winning class's score moved."""
    return _outputs(context, 2, 4)
