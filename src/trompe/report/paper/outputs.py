"""Figures 10 and 11: what the attack does to the network's answer."""

from __future__ import annotations

from collections.abc import Sequence

from trompe.audit.results import Row
from trompe.report.figures import joint_figure
from trompe.report.paper.attacks import values_of
from trompe.report.paper.claims import Claim, claim
from trompe.report.paper.context import Context, Redrawn
from trompe.report.run_figures import OUTPUTS, box_panels
from trompe.robustness.shares import share


def unmoved(rows: Sequence[Row], name: str = "") -> tuple[Claim, ...]:
    """What figures 10 and 11 report: the class is kept, the output hardly moves."""
    kept = share(sum(row.values["class_kept"] == 1 for row in rows), len(rows))
    front = f"{name}: " if name else ""
    return (
        Claim(
            f"{front}cells in which the class is kept",
            "all",
            str(kept),
            "agrees" if kept.count == kept.n else "differs",
            kept.n,
        ),
        claim(
            f"{front}change of the softmax (L2)",
            "about 1e-3: below 1e-2",
            values_of(rows, "softmax_l2"),
            high=1e-2,
            form=".2g",
        ),
    )


def _outputs(context: Context, first: int, last: int) -> Redrawn:
    rows = context.plain.done
    drawing = joint_figure(box_panels(rows, OUTPUTS[first:last]), columns=2)
    return Redrawn({"": drawing}, unmoved(rows))


def figure_10(context: Context) -> Redrawn:
    """How far the output moved."""
    return _outputs(context, 0, 2)


def figure_11(context: Context) -> Redrawn:
    """How far the winning class's score moved."""
    return _outputs(context, 2, 4)
