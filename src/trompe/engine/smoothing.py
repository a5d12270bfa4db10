"""beta-smoothing: run a model with its kinks replaced, without writing anything to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trompe.engine.decompose import Decomposed
from trompe.engine.inplace import Redirects, out_of_place
from trompe.engine.pooling import smooth_max_pool2d
from trompe.engine.softplus import softplus
from trompe.errors import UsageError

Beta = float | Tensor
Replacement = Callable[..., Any]


def _relu(beta: Beta, input: Tensor, inplace: bool = False) -> Tensor:
    return softplus(input, beta)


def _clamp(beta: Beta, input: Tensor, min: Any = None, max: Any = None) -> Any:
    """``x.clamp(min=0)`` is a ReLU; any other clamp stays as it is."""
    if max is None and not isinstance(min, Tensor) and min == 0 and input.is_floating_point():
        return softplus(input, beta)
    return NotImplemented


def _max_pool2d(
    beta: Beta,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if return_indices:
        return NotImplemented
    return smooth_max_pool2d(input, beta, kernel_size, stride, padding, dilation, ceil_mode)


ACTIVATIONS: dict[Callable[..., Any], Replacement] = {
    F.relu: _relu,
    F.relu_: _relu,
    torch.relu: _relu,
    torch.relu_: _relu,
    Tensor.relu: _relu,
    Tensor.relu_: _relu,
    torch.clamp: _clamp,
    torch.clamp_min: _clamp,
    Tensor.clamp: _clamp,
    Tensor.clamp_: _clamp,
    Tensor.clamp_min: _clamp,
    Tensor.clamp_min_: _clamp,
}
"""What stands in for each activation with a kink: ``replacement(beta, *args, **kwargs)``.

A replacement returns ``NotImplemented`` where the call has no kink to smooth.
"""

POOLINGS: dict[Callable[..., Any], Replacement] = {
    F.max_pool2d: _max_pool2d,
    torch.max_pool2d: _max_pool2d,
}
"""What stands in for each pooling, with the beta of the pooling."""


class _Smoothing(TorchFunctionMode):
    """While active, calls of kinked functions, from modules or plain code, are replaced."""

    def __init__(self, owner: Smoothed) -> None:
        super().__init__()
        self.owner = owner
        self.redirects = Redirects()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = self.redirects.resolve((args, kwargs or {}))
        owner = self.owner
        if func in ACTIVATIONS:
            (_, args, kwargs), overwritten = out_of_place(func, args, kwargs)
            out = ACTIVATIONS[func](owner.beta, *args, **kwargs)
            if out is not NotImplemented:
                if overwritten is not None:
                    self.redirects.overwrite(overwritten, out)
                return out
        elif owner.pooling and func in POOLINGS:
            out = POOLINGS[func](owner.beta * owner.pooling, *args, **kwargs)
            if out is not NotImplemented:
                return out
        return func(*args, **kwargs)


class Smoothed(nn.Module):
    """A model whose kinks are smoothed while it runs; the model itself is not changed.

    Args:
        model: any module; it is shared, not copied.
        beta: strength of the activations' softplus; may be set anew at any time.
        pooling: max pooling is smoothed by log-sum-exp at this multiple of beta; 0 leaves it.
    """

    def __init__(self, model: nn.Module, beta: Beta, pooling: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.beta = beta
        self.pooling = pooling
        self.training = model.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with its kinks smoothed."""
        with Decomposed(), _Smoothing(self):
            return self.model(*args, **kwargs)


def check_beta(beta: Beta) -> Beta:
    """Return ``beta`` if it is positive and finite.

    Raises:
        UsageError: otherwise.
    """
    value = float(beta)
    if not (value > 0 and math.isfinite(value)):
        raise UsageError(f"beta must be positive and finite, not {value:g}")
    return beta


def smooth(model: nn.Module, *, beta: Beta, pooling: bool | float = False) -> Smoothed:
    """The model with softplus_beta in place of its kinks (PAPER.md, section 4: beta-smoothing).

    Args:
        model: any module; not changed. A smoothed one is smoothed anew, not twice.
        beta: positive; about 1 to protect an explanation, 10 to 100 as the surrogate of an attack.
        pooling: whether max pooling is smoothed too, by log-sum-exp with the same beta; a number
            multiplies beta there.

    Returns:
        A callable module with the same inputs and outputs.

    Raises:
        UsageError: if beta is not positive.

    Example:
        >>> import torch, trompe
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> trompe.smooth(net, beta=0.8)(torch.zeros(1, 2)).shape
        torch.Size([1, 3])
    """
    inner = model.model if isinstance(model, Smoothed) else model
    return Smoothed(inner, check_beta(beta), float(pooling))


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside a smoothed one, or the model itself."""
    return model.model if isinstance(model, Smoothed) else model
