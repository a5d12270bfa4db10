"""Weight decay, which bounds the curvature through the norms of the layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.defences.base import Defence, defences
from trompe.training import Batch


@defences.register("weight_decay")
@dataclass(frozen=True)
class WeightDecay(Defence):
    """Half the squared norm of all matrices and filters (Dombrowski et al. 2022, section 4.1).

    Args:
        weight: Of the squared norm.
    """

    weight: float = 1e-3

    source = "Dombrowski et al. 2022"

    def penalty(self, model: nn.Module, batch: Batch) -> Tensor:
        """The same number for every image, [B]."""
        squares = [p.square().sum() for p in model.parameters() if p.dim() > 1]
        return (self.weight / 2 * torch.stack(squares).sum()).expand(len(batch.x))
