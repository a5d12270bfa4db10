"""CURE: the loss's gradient must not turn along its own direction."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from trompe.defences.base import Defence, defences, loss_gradient
from trompe.training import Batch


@defences.register("cure")
@dataclass(frozen=True)
class Cure(Defence):
    """``weight * |grad l(x + h z) - grad l(x)|^2``, z the gradient's signs over their length.

    Moosavi-Dezfooli et al. 2019, equation 7; of the cross entropy l, in pixel units.

    Args:
        weight: Of the squared difference.
        h: The step, an l2 length in pixel units.
    """

    weight: float = 4.0
    h: float = 1.5

    source = "Moosavi-Dezfooli et al. 2019"

    def penalty(self, model: nn.Module, batch: Batch) -> Tensor:
        """The weighted squared change of the gradient, [B]."""
        here = loss_gradient(model, batch.x, batch.y)
        signs = here.detach().sign()
        length = signs.flatten(1).norm(dim=1).clamp(min=1e-12)
        z = signs / length.view(-1, *(1 for _ in signs.shape[1:]))
        there = loss_gradient(model, batch.x + batch.space.scale(self.h, batch.x) * z, batch.y)
        change = (there - here) * batch.space.scale(1.0, batch.x)
        return self.weight * change.flatten(1).square().sum(dim=1)
