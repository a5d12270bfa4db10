"""Adversarial training: gradients of such networks are sparser and steadier."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from trompe.defences.base import Defence, defences
from trompe.defences.neighbour import worst_neighbour
from trompe.errors import UsageError
from trompe.training import Batch


@defences.register("adversarial")
@dataclass(frozen=True)
class AdversarialTraining(Defence):
    """Train on images changed against their class (Madry et al. 2018): sign steps, projected.

    Args:
        radius: Of the l-infinity ball, pixel units.
        steps: Of 2.5 times ``radius / steps`` each.
    """

    radius: float = 4 / 255
    steps: int = 3

    source = "Madry et al. 2018"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise UsageError(f"steps must be at least 1, not {self.steps}")

    def inputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """The changed images."""
        return worst_neighbour(
            batch,
            self.radius,
            self.steps,
            lambda x: F.cross_entropy(model(x), batch.y, reduction="sum"),
        )
