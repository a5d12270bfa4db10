"""LGA: gradients of neighbours must agree, in length and in direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.defences.base import Defence, defences, score_gradient
from trompe.training import Batch


@defences.register("lga")
@dataclass(frozen=True)
class LocalGradientAlignment(Defence):
    """``l2 |g(x) - g(x + z)|^2 + cosine (1 - cos(g(x), g(x + z))) / 2`` (Joo et al. 2023).

    z is drawn evenly from the l-infinity ball; g is the gradient of the explained class's score, in
    pixel units, and counts as given at x. The cosine is what a small Hessian alone does not give.

    Args:
        beta: Of the softplus that the network is trained, and to be used, with.
        l2: Weight of the squared difference.
        cosine: Weight of the angle.
        radius: Of z, pixel units.
    """

    beta: float | None = 3.0
    l2: float = 0.01
    cosine: float = 1.0
    radius: float = 4 / 255

    source = "Joo et al. 2023"

    def penalty(self, model: nn.Module, batch: Batch) -> Tensor:
        """The weighted disagreement, [B]."""
        z = batch.space.scale(self.radius, batch.x) * batch.even()
        scale = batch.space.scale(1.0, batch.x)
        here = (score_gradient(model, batch.x, batch.y) * scale).flatten(1).detach()
        there = (score_gradient(model, batch.x + z, batch.y) * scale).flatten(1)
        angle = (1 - torch.cosine_similarity(here, there, dim=1)) / 2
        return self.l2 * (here - there).square().sum(dim=1) + self.cosine * angle
