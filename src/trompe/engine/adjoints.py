"""Vector-Jacobian products written out, for the operations that most networks are made of.

``torch.autograd.grad`` finds any of them, but starts the engine for each operation, and what it
makes of a ReLU adds zeros to the gradient of the activation whenever the map is differentiated.
Each function here returns the product towards the single input of the recorded operation, made of
differentiable operations, or ``NotImplemented``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine import lean
from trompe.engine.tape import OpCall

Adjoint = Callable[[Tensor, OpCall], Any]


def geometry_of_call(op: OpCall) -> lean.Geometry | None:
    """The geometry of a batched convolution; ``None`` for other operations."""
    dims = lean.CONVOLUTIONS.get(op.func)
    if dims is None or op.edges[0][1].dim() != dims + 2:
        return None
    settings = (
        op.argument(position, name, default)
        for position, name, default in (
            (3, "stride", 1),
            (4, "padding", 0),
            (5, "dilation", 1),
            (6, "groups", 1),
        )
    )
    return lean.geometry_of(dims, *settings)


def _constant_weight(op: OpCall) -> Tensor | None:
    """The weight of an operation ``func(input, weight, ...)``, if neither depends on the input."""
    weight = op.argument(1, "weight")
    given = op.argument(0, "input")
    alone = len(op.edges) == 1 and op.edges[0][1] is given
    return weight if alone and not weight.requires_grad else None


def _convolution(relevance: Tensor, op: OpCall) -> Any:
    weight, geometry = _constant_weight(op), geometry_of_call(op)
    if weight is None or geometry is None:
        return NotImplemented
    return lean.transposed(relevance, weight, geometry, op.edges[0][1].shape)


def _linear(relevance: Tensor, op: OpCall) -> Any:
    weight = _constant_weight(op)
    return NotImplemented if weight is None else relevance @ weight


def _relu(relevance: Tensor, op: OpCall) -> Tensor:
    """``R [z > 0]``."""
    return torch.ops.aten.threshold_backward(relevance, op.out.detach(), 0)


def _same_numbers(relevance: Tensor, op: OpCall) -> Any:
    return relevance.reshape(op.edges[0][1].shape)


ADJOINTS: dict[Callable[..., Any], Adjoint] = {
    **dict.fromkeys(lean.CONVOLUTIONS, _convolution),
    F.linear: _linear,
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _relu),
    **dict.fromkeys(
        (torch.flatten, Tensor.flatten, torch.reshape, Tensor.reshape, Tensor.view), _same_numbers
    ),
}
"""The product of each function; all others are autograd's."""
