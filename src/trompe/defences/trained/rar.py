"""Robust attribution regularisation: integrated gradients of the loss to the worst neighbour."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.defences.base import Defence, defences, loss_gradient
from trompe.defences.neighbour import worst_neighbour
from trompe.errors import UsageError
from trompe.training import Batch


def attribution(model: nn.Module, start: Tensor, end: Tensor, y: Tensor, points: int) -> Tensor:
    """Integrated gradients of the cross entropy from one image to another, [B, ...], with a graph.

    ``(end - start) * mean_k grad l(start + (k - 1/2) / points (end - start))``.
    """
    total = torch.zeros_like(end)
    for k in range(points):
        share = (k + 0.5) / points
        total = total + loss_gradient(model, start + share * (end - start), y)
    return (end - start) * total / points


@dataclass(frozen=True)
class _RobustAttribution(Defence):
    weight: float = 1.0
    radius: float = 4 / 255
    steps: int = 2
    points: int = 3

    source = "Chen et al. 2019"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.points < 1:
            raise UsageError("steps and points must be at least 1")

    def _worst(self, model: nn.Module, batch: Batch) -> Tensor:
        """The neighbour to which the integrated gradients have the largest l1 norm, [B, ...]."""
        return worst_neighbour(
            batch,
            self.radius,
            self.steps,
            lambda x: attribution(model, batch.x, x, batch.y, self.points).abs(),
        )


@defences.register("ig_norm")
@dataclass(frozen=True)
class IgNorm(_RobustAttribution):
    """``CE(x) + weight * max_x' |IG(x -> x')|_1`` (Chen et al. 2019, IG-NORM).

    IG are the integrated gradients of the cross entropy; x' in the l-infinity ball.

    Args:
        weight: Of the norm.
        radius: Of the ball, pixel units.
        steps: Of the inner maximisation.
        points: Of the integral.
    """

    def penalty(self, model: nn.Module, batch: Batch) -> Tensor:
        """The weighted norm, [B]."""
        worst = self._worst(model, batch)
        found = attribution(model, batch.x, worst, batch.y, self.points)
        return self.weight * found.flatten(1).abs().sum(dim=1)


@defences.register("ig_sum_norm")
@dataclass(frozen=True)
class IgSumNorm(_RobustAttribution):
    """``CE(x') + weight * |IG(x -> x')|_1`` at the worst x' (Chen et al. 2019, IG-SUM-NORM).

    Args:
        weight: Of the norm.
        radius: Of the ball, pixel units.
        steps: Of the inner maximisation.
        points: Of the integral.
    """

    weight: float = 0.1

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Both terms at the same neighbour."""
        worst = self._worst(model, batch)
        found = attribution(model, batch.x, worst, batch.y, self.points)
        return {
            "cross_entropy": F.cross_entropy(model(worst), batch.y),
            "penalty": self.weight * found.flatten(1).abs().sum(dim=1).mean(),
        }
