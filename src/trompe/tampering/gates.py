"""ReLU as it is, whose gates have a derivative: what trains the maps of a network of kinks.

The gradient of a ReLU network depends on its weights through the gates as well, which are steps:
their derivative is zero almost everywhere, and a training on maps that differentiates the network
as it is never learns where a gate opens. With softplus in place of ReLU it does, but then trains
the maps of another network: those become the target while the maps of the ReLU network stay. Here
map and outputs are the ReLU network's, and only the derivative of a gate is that of a sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_IN_PLACE = frozenset({F.relu_, torch.relu_, Tensor.relu_})
_RELU = frozenset({F.relu, torch.relu, Tensor.relu}) | _IN_PLACE


class _SteppedReLU(torch.autograd.Function):
    """``max(z, 0)``; its derivative ``z > 0`` has the derivative of ``sigmoid(beta z)``."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, beta: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.beta = beta
        return z.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        soft = torch.sigmoid(ctx.beta * z)
        return grads[0] * ((z > 0).to(z) + (soft - soft.detach())), None


class DifferentiableGates(TorchFunctionMode):
    """Within it every ReLU is what it is, and its gate has a derivative.

    Args:
        beta: Of the sigmoid whose derivative the gates get; positive.
    """

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace ReLUs; everything else runs as it is."""
        named = dict(kwargs or {})
        if func not in _RELU:
            return func(*args, **named)
        z: Tensor = args[0] if args else named["input"]
        if func in _IN_PLACE or named.get("inplace") or any(one is True for one in args[1:]):
            # Whoever works in place may go on with the tensor that was given.
            return z.copy_(_SteppedReLU.apply(z.clone(), self.beta))
        return _SteppedReLU.apply(z, self.beta)
