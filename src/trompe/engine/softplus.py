"""The softplus that replaces ReLU, made for being differentiated twice in every attack step.

``softplus_b(z) = log(1 + exp(b z)) / b`` has the derivative ``s = sigmoid(b z)`` and the second
derivative ``b s (1 - s)``. The function below returns ``s`` as a second, hidden output of the same
autograd node. A map that multiplies by ``s`` then sends its own gradient back to that node, where
both meet: no exponential is computed twice, where PyTorch's softplus recomputes one in the
backward and several in the double backward pass.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

# Beyond |b z| = edge, softplus is 0 or z to the precision of the type. Cutting there keeps the
# exponentials out of denormal numbers and overflow, on which CPUs are many times slower.
EDGE = 30.0


def _value_and_slope(z: Tensor, beta: float | Tensor) -> tuple[Tensor, Tensor]:
    scaled = z * beta
    if z.dtype == torch.float64:  # the precise form, for oracles and finite differences
        return F.softplus(scaled, threshold=40).div_(beta), scaled.sigmoid_()
    scaled.clamp_(-EDGE, EDGE)
    slope = scaled.sigmoid()
    # softplus(u) = relu(u) - log(sigmoid(|u|)). The base-2 logarithm is vectorised on CPUs, where
    # log, log1p and softplus itself are not: three to five times faster, and exact to an absolute
    # 1e-7 / b.
    excess = scaled.abs_().sigmoid_().log2_()
    if isinstance(beta, Tensor):
        return z.clamp(min=0).sub_(excess.mul_(math.log(2)).div_(beta)), slope
    return z.clamp(min=0).add_(excess, alpha=-math.log(2) / beta), slope


class _Softplus(torch.autograd.Function):
    """(softplus_b(z), sigmoid(b z)), differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, beta: float | Tensor) -> tuple[Tensor, Tensor]:
        value, slope = _value_and_slope(z, beta)
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
            curved = torch.ops.aten.sigmoid_backward(grad_slope, slope)
            if grad is None or isinstance(ctx.beta, Tensor):
                curved = curved * ctx.beta
                grad = curved if grad is None else grad + curved
            else:
                grad = torch.add(grad, curved, alpha=ctx.beta)
        return grad, None


def softplus(z: Tensor, beta: float | Tensor) -> Tensor:
    """``log(1 + exp(beta z)) / beta``, the smooth stand-in for ReLU (Dombrowski et al. 2019).

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


def slope_of(value: Tensor) -> Tensor:
    """The derivative ``sigmoid(beta z)`` belonging to ``value = softplus(z, beta)``.

    Args:
        value: as ``softplus`` returned it, of a z that requires grad; its graph is still whole.
    """
    node: Any = value.grad_fn
    (slope,) = node.saved_tensors
    found: Tensor = slope
    return found


class _Gated(torch.autograd.Function):
    """``softplus_b(r) slope``, differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, slope: Tensor, beta: float | Tensor) -> Tensor:
        value, own = _value_and_slope(r, beta)
        ctx.beta = beta
        ctx.save_for_backward(r, slope, value, own)
        return value * slope

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        r, slope, value, own = ctx.saved_tensors
        if torch.is_grad_enabled():  # what was kept has no graph, which a third derivative needs
            value, own = softplus_and_slope(r, ctx.beta)
        return grad * own * slope, grad * value, None


def gated_softplus(r: Tensor, slope: Tensor, beta: float | Tensor) -> Tensor:
    """``softplus(r, beta) * slope`` as one operation, for guided backpropagation."""
    out: Tensor = _Gated.apply(r, slope, beta)
    return out
