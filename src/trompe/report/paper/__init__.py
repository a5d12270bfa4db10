"""The paper's figures, redrawn: its experiment at three scales, its layout, its numbers."""

from __future__ import annotations

from trompe.report.paper.context import SCALES, Context, NoStandIn, scaled
from trompe.report.paper.figures import FIGURES, reproduce

__all__ = ["FIGURES", "SCALES", "Context", "NoStandIn", "reproduce", "scaled"]
