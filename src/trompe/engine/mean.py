"""The mean of a map over many inputs, in chunks, with memory that does not grow with their number.

A map's own graph is as large as several forward passes. Where the mean runs over 30 inputs (the
steps of integrated gradients, the samples of SmoothGrad) and a graph is wanted, the chunks are
computed without one, and each is computed again when the gradient of the mean is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Part = Callable[[Tensor, int], Tensor]
"""``part(x, i)``: the i-th chunk's contribution to the sum, for x of the shape of the input."""


class _Sum(torch.autograd.Function):
    """The sum of parts, each part recomputed in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: Part, count: int) -> Tensor:
        ctx.part, ctx.count = part, count
        ctx.save_for_backward(x)
        with torch.enable_grad():
            start = x.detach().requires_grad_(True)
            total = part(start, 0).detach()
            for i in range(1, count):
                total = total + part(start, i).detach()
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        total = torch.zeros_like(x)
        for i in range(ctx.count):
            with torch.enable_grad():
                start = x.detach().requires_grad_(True)
                value = ctx.part(start, i)
            if value.requires_grad:
                total += torch.autograd.grad(value, start, grad, materialize_grads=True)[0]
        return total, None, None


def chunked_sum(x: Tensor, part: Part, count: int, *, recompute: bool) -> Tensor:
    """``sum(part(x, i) for i in range(count))``.

    Args:
        x: requires grad.
        part: gives a tensor of one shape for all i.
        count: number of parts.
        recompute: whether the graph of each part is dropped and made again when needed. The sum
            can then be differentiated once, and towards x alone.
    """
    if recompute and count > 1:
        return _Sum.apply(x, part, count)
    total = part(x, 0)
    for i in range(1, count):
        total = total + part(x, i)
    return total
