"""The softplus that replaces ReLU, made for being differentiated twice in every attack step.

``softplus_b(z) = log(1 + exp(b z)) / b`` has the derivative ``s = sigmoid(b z)`` and the second
derivative ``b s (1 - s)``. The function below returns ``s`` as a second, hidden output of the same
autograd node. A map that multiplies by ``s`` then sends its own gradient back to that node, where
both meet: no exponential is computed twice, where PyTorch's softplus recomputes one in the
backward and several in the double backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

# Below b z = tail the function is constant to the precision of the type. Cutting there keeps
# exp(b z) out of the denormal numbers, on which CPUs are up to a hundred times slower.
_TAIL = {torch.float32: -30.0, torch.float64: -60.0}


class _Softplus(torch.autograd.Function):
    """(softplus_b(z), sigmoid(b z)), differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, beta: float | Tensor) -> tuple[Tensor, Tensor]:
        scaled = (z * beta).clamp_(min=_TAIL.get(z.dtype, -15.0))
        value = F.softplus(scaled).div_(beta)
        slope = scaled.sigmoid_()
        ctx.beta = beta
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(slope)
        return value, slope

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor | None, grad_slope: Tensor | None) -> Any:
        (slope,) = ctx.saved_tensors  # an output: it carries the graph of the double backward
        grad = None
        if grad_value is not None:
            grad = grad_value * slope
        if grad_slope is not None:
            curved = torch.ops.aten.sigmoid_backward(grad_slope, slope) * ctx.beta
            grad = curved if grad is None else grad + curved
        return grad, None


def softplus(z: Tensor, beta: float | Tensor) -> Tensor:
    """``log(1 + exp(beta z)) / beta``, the smooth stand-in for ReLU (PAPER.md, section 1).

    Args:
        z: any shape, floating point.
        beta: positive, a float or a 0-dim tensor; the larger, the closer to ReLU.
    """
    if has_torch_function_unary(z):
        return handle_torch_function(softplus, (z,), z, beta)
    return softplus_and_slope(z, beta)[0]


def softplus_and_slope(z: Tensor, beta: float | Tensor) -> tuple[Tensor, Tensor]:
    """Softplus and its derivative ``sigmoid(beta z)``, both differentiable, in one pass."""
    value, slope = _Softplus.apply(z, beta)
    return value, slope
