"""The smooth clamp that replaces ReLU6 and hard tanh, made for being differentiated twice.

``f(z) = low + softplus_b(z - low) - softplus_b(z - high)`` has the derivative ``s = s1 - s2`` with
``s1 = sigmoid(b (z - low))`` and ``s2 = sigmoid(b (z - high))``. With their sum ``t = s1 + s2``

    ds/dz = b s (1 - t),        dt/dz = b (t - (s^2 + t^2) / 2),

so that ``f``, ``s`` and ``t`` together are closed under differentiation. As in ``softplus``, ``s``
and ``t`` are hidden outputs of one node, and no exponential is computed twice.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.softplus import EDGE


def _parts(
    z: Tensor, beta: float | Tensor, low: float, high: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``f``, ``s`` and ``t``."""
    below, above = (z - low).mul_(beta), (z - high).mul_(beta)
    if z.dtype == torch.float64:  # the precise form, for oracles and finite differences
        value = F.softplus(below, threshold=40).sub_(F.softplus(above, threshold=40))
        first, second = below.sigmoid_(), above.sigmoid_()
        return value.div_(beta).add_(low), first - second, first + second
    first = below.clamp_(-EDGE, EDGE).sigmoid_()
    second = above.clamp_(-EDGE, EDGE).sigmoid_()
    # softplus(u) = relu(u) - log(max(sigmoid(u), 1 - sigmoid(u))): one logarithm for both, to the
    # base of 2, which alone is vectorised on CPUs; exact to an absolute 1e-7 / b.
    excess = torch.maximum(first, 1 - first).div_(torch.maximum(second, 1 - second)).log2_()
    value = z.clamp(low, high)
    if isinstance(beta, Tensor):
        value.sub_(excess.mul_(math.log(2)).div_(beta))
    else:
        value.add_(excess, alpha=-math.log(2) / beta)
    return value, first - second, first.add_(second)


class _SoftClamp(torch.autograd.Function):
    """``f``, ``s`` and ``t``, differentiable any number of times."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, beta: float | Tensor, low: float, high: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        value, slope, total = _parts(z, beta, low, high)
        ctx.beta = beta
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(slope, total)
        return value, slope, total

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, grad_slope: Tensor | None, grad_total: Tensor | None
    ) -> Any:
        slope, total = ctx.saved_tensors  # outputs: they carry the graph of further derivatives
        found = None if grad is None else grad * slope
        if grad_slope is not None:
            curved = torch.addcmul(slope, slope, total, value=-1)
            if found is None or isinstance(ctx.beta, Tensor):
                curved = grad_slope * curved * ctx.beta
                found = curved if found is None else found + curved
            else:
                found = torch.addcmul(found, grad_slope, curved, value=ctx.beta)
        if grad_total is not None:
            bent = grad_total * (total - (slope * slope + total * total) / 2) * ctx.beta
            found = bent if found is None else found + bent
        return found, None, None, None


def soft_clamp(z: Tensor, beta: float | Tensor, low: float, high: float) -> Tensor:
    """``low + softplus_b(z - low) - softplus_b(z - high)``, which tends to ``clamp(z, low, high)``.

    Args:
        z: any shape, floating point.
        beta: positive, a float or a 0-dim tensor; the larger, the closer to the clamp.
        low: lower bound.
        high: upper bound.
    """
    value: Tensor = _SoftClamp.apply(z, beta, low, high)[0]
    return value
