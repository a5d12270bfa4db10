"""A penalty on the Hessian of the score, which is what turns the gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trompe.defences.base import Defence, defences, score_gradient
from trompe.training import Batch


@defences.register("hessian")
@dataclass(frozen=True)
class HessianPenalty(Defence):
    """``weight * E_v |H v|^2`` with v normal: the squared Frobenius norm of the Hessian.

    Dombrowski et al. 2022, section 4.3: H of the explained class's score by the image, estimated by
    products with random vectors (Hutchinson); in pixel units. A network of ReLU has none, so it is
    trained, and to be used, with softplus.

    Args:
        beta: Of the softplus.
        weight: Of the squared norm.
        vectors: How many v per image and step.
    """

    beta: float | None = 10.0
    weight: float = 1e-5
    vectors: int = 1

    source = "Dombrowski et al. 2022"

    def penalty(self, model: nn.Module, batch: Batch) -> Tensor:
        """The weighted estimate, [B]."""
        x = batch.x.detach().requires_grad_(True)
        gradient = score_gradient(model, x, batch.y)
        scale = batch.space.scale(1.0, x)
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for _ in range(self.vectors):
            v = batch.normal()
            (product,) = torch.autograd.grad((gradient * scale * v).sum(), x, create_graph=True)
            total = total + (product * scale).flatten(1).square().sum(dim=1)
        return self.weight / max(1, self.vectors) * total
