"""Second derivatives of maps against finite differences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trompe.types import Explainer

# Next to a denominator that is nearly zero only the smallest steps see the slope.
STEPS = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9)


def slope_error(
    explainer: Explainer, model: nn.Module, x: Tensor, target: Tensor, enough: float = 1e-7
) -> float:
    """Relative error of the derivative of a random functional of the map, along a random line.

    That of the best step; the first below ``enough`` will do.
    """
    generator = torch.Generator().manual_seed(7)
    direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    weights = torch.randn(x.shape, generator=generator, dtype=x.dtype)

    def value(x: Tensor) -> Tensor:
        return (explainer(model, x, target) * weights).sum()

    start = x.detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(start), start)
    slope = float((gradient * direction).sum())
    best = float("inf")
    for step in STEPS:
        with torch.no_grad():
            up, down = (float(value(x + s * step * direction)) for s in (1, -1))
        expected = (up - down) / (2 * step)
        best = min(best, abs(slope - expected) / max(abs(expected), 1e-12))
        if best < enough:
            break
    return best
