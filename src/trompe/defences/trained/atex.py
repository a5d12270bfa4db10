"""ATEX: outputs must not change where explanations say that nothing matters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trompe.defences.base import Defence, defences, score_gradient
from trompe.training import Batch


@defences.register("atex")
@dataclass(frozen=True)
class ExplanationTraining(Defence):
    """Distil along noise across the gradient (Tang et al. 2022, ATEX).

    ``weight * T^2 * KL(softmax(f(x) / T), softmax(f(x + z) / T))``, z normal noise less its part
    along the gradient, which counts as given; the output at x as well.

    Args:
        weight: Of the divergence.
        noise: Standard deviation of the noise, pixel units.
        temperature: T.
    """

    weight: float = 1.0
    noise: float = 0.02
    temperature: float = 4.0

    source = "Tang et al. 2022"

    def penalty(self, model: nn.Module, batch: Batch) -> Tensor:
        """The weighted divergence, [B]."""
        direction = score_gradient(model, batch.x, batch.y).detach().flatten(1)
        direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-12)
        z = (batch.space.scale(self.noise, batch.x) * batch.normal()).flatten(1)
        z = z - (z * direction).sum(dim=1, keepdim=True) * direction
        t = self.temperature
        with torch.no_grad():
            given = (model(batch.x) / t).log_softmax(dim=1)
        found = (model(batch.x + z.view_as(batch.x)) / t).log_softmax(dim=1)
        divergence = F.kl_div(found, given, reduction="none", log_target=True).sum(dim=1)
        return self.weight * t**2 * torch.as_tensor(divergence)
