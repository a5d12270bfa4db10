"""ART: the gradient of the true class stays near the image, that of its rival away."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.defences.base import Defence, defences, score_gradient
from trompe.defences.neighbour import worst_neighbour
from trompe.errors import UsageError
from trompe.training import Batch


@defences.register("art")
@dataclass(frozen=True)
class AttributionalTraining(Defence):
    """``CE(x') + weight * log(1 + exp(d(x', g_y) - d(x', g_r)))`` (Singh et al. 2020, ART).

    d is one minus the cosine, g_y and g_r the gradients at x' of the true class and of its
    strongest rival; x' maximises the same triplet within the l-infinity ball.

    Args:
        beta: Of the softplus that the network is trained, and to be used, with.
        weight: Of the triplet loss.
        radius: Of the ball, pixel units.
        steps: Of the inner maximisation.
    """

    beta: float | None = 50.0
    weight: float = 0.5
    radius: float = 4 / 255
    steps: int = 2

    source = "Singh et al. 2020"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise UsageError(f"steps must be at least 1, not {self.steps}")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Both terms at the changed images."""
        x = worst_neighbour(
            batch, self.radius, self.steps, lambda x: self.triplet(model, x, batch.y)
        )
        return {
            "cross_entropy": F.cross_entropy(model(x), batch.y),
            "penalty": self.weight * self.triplet(model, x, batch.y).mean(),
        }

    def triplet(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The soft-margin triplet loss, [B]."""
        with torch.no_grad():
            others = model(x).scatter(1, y[:, None], float("-inf"))
            rival = others.argmax(dim=1)
        flat = x.flatten(1)
        near = 1 - torch.cosine_similarity(flat, score_gradient(model, x, y).flatten(1))
        far = 1 - torch.cosine_similarity(flat, score_gradient(model, x, rival).flatten(1))
        return F.softplus(near - far)
