"""R2ET: the most relevant pixels must stay ahead of the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.defences.base import Defence, defences, heat, score_gradient
from trompe.training import Batch


@defences.register("r2et")
@dataclass(frozen=True)
class RankingThickness(Defence):
    """Widen the gap between the k most relevant pixels and the next k (Chen et al. 2024, R2ET).

    ``thickness`` times the mean of ``h_(k + i) - h_(k - i + 1)`` over the pairs around the border
    of the top k, h the heat map of the gradient times the number of pixels; and ``hessian`` times
    the squared change of the gradient over a short random step (an estimate of ``|H|``), in pixel
    units.

    Args:
        thickness: Weight of the gap.
        hessian: Weight of the estimate.
        share: k, as a share of the pixels.
        radius: Length of the step per pixel, pixel units.
    """

    thickness: float = 0.1
    hessian: float = 0.01
    share: float = 0.1
    radius: float = 4 / 255

    source = "Chen et al. 2024"

    def penalty(self, model: nn.Module, batch: Batch) -> Tensor:
        """The weighted sum, [B]."""
        scale = batch.space.scale(1.0, batch.x)
        here = score_gradient(model, batch.x, batch.y)
        step = batch.space.scale(self.radius, batch.x) * batch.normal().sign()
        there = score_gradient(model, batch.x + step, batch.y)
        change = ((there - here) * scale).flatten(1).square().sum(dim=1)
        return self.thickness * self.gap(heat(here)) + self.hessian * change

    def gap(self, shares: Tensor) -> Tensor:
        """The mean of the pairs' differences, low minus high, times the number of pixels, [B]."""
        count = shares.shape[1]
        k = max(1, min(round(self.share * count), count // 2))
        largest = shares.topk(2 * k, dim=1).values
        high, low = largest[:, :k].flip(1), largest[:, k:]
        found: Tensor = torch.mean(low - high, dim=1) * count
        return found
