"""The spellings of activations: what each function's arguments say of its record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trompe.engine import activations as act
from trompe.engine import selections as sel
from trompe.engine.masks import Memory
from trompe.engine.operations import Reading

Reader = Callable[..., "Reading | None"]

GUARD = 1e-3
"""A lone lower bound that is positive and no larger keeps a divisor off zero: no activation."""


def _number(value: Any) -> float | None:
    """A bound as a number, if it is one."""
    return float(value) if isinstance(value, (int, float)) else None


def floating(tensor: Tensor) -> bool:
    """Whether a tensor is one of numbers with a fraction; no mode sees the look."""
    with torch._C.DisableTorchFunction():
        return tensor.is_floating_point()


def bounded(input: Tensor, low: Any, high: Any) -> Reading | None:
    """``min(max(input, low), high)``, either of which may be ``None``."""
    if not floating(input) or any(isinstance(b, Tensor) for b in (low, high)):
        return None
    if low is not None and high is not None:
        if not low < high:
            return None  # a constant
        return act.HARDTANH.of(input, low, high)
    if high is not None:
        return act.UPPER_BOUND.of(input, high)
    if low is None or 0 < low <= GUARD:
        return None
    if low == 0:
        return act.RELU.of(input)
    return act.LOWER_BOUND.of(input, low, function=torch.clamp_min)


def _relu(memory: Memory, input: Tensor, inplace: bool = False) -> Reading | None:
    return act.RELU.of(input) if floating(input) else None


def _relu6(memory: Memory, input: Tensor, inplace: bool = False) -> Reading:
    return act.HARDTANH.of(input, 0.0, 6.0)


def _hardtanh(
    memory: Memory,
    input: Tensor,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
) -> Reading:
    return act.HARDTANH.of(input, min_val, max_val)


def _clamp(memory: Memory, input: Tensor, min: Any = None, max: Any = None) -> Reading | None:
    """``clamp(min=0)`` is a ReLU, ``clamp(a, b)`` a hard tanh."""
    if isinstance(min, Tensor) and max is None:
        return maximum(memory, input, min)
    if isinstance(max, Tensor) and min is None:
        return minimum(memory, input, max)
    return bounded(input, min, max)


def _clamp_min(memory: Memory, input: Tensor, min: Any) -> Reading | None:
    return _clamp(memory, input, min, None)


def _clamp_max(memory: Memory, input: Tensor, max: Any) -> Reading | None:
    return _clamp(memory, input, None, max)


def maximum(memory: Memory, input: Tensor, other: Tensor) -> Reading | None:
    """Of two tensors; where one is a constant of one number, a bound."""
    if not floating(input):
        return None
    for tensor, constant in ((input, other), (other, input)):
        low = memory.uniform(constant, tensor)
        if low is not None:
            return bounded(tensor, low, None)
    return act.MAXIMUM.of(input, other)


def minimum(memory: Memory, input: Tensor, other: Tensor) -> Reading | None:
    """As ``maximum``."""
    if not floating(input):
        return None
    for tensor, constant in ((input, other), (other, input)):
        high = memory.uniform(constant, tensor)
        if high is not None:
            return bounded(tensor, None, high)
    return act.MINIMUM.of(input, other)


def _threshold(
    memory: Memory, input: Tensor, threshold: float, value: float, inplace: bool = False
) -> Reading:
    """A maximum where it is continuous, else a choice with a jump."""
    if threshold == value == 0:
        return act.RELU.of(input)
    if threshold == value:
        return act.LOWER_BOUND.of(input, threshold, value)

    def soft(beta: Any) -> Any:
        return sel.WHERE.stand_in(beta, input, threshold, input, value)

    return Reading(sel.WHERE, None, soft=soft, on=(input,))


def _leaky_relu(
    memory: Memory, input: Tensor, negative_slope: float = 0.01, inplace: bool = False
) -> Reading:
    if negative_slope == 0:
        return act.RELU.of(input)
    return act.LEAKY_RELU.of(input, negative_slope)


def _rrelu(
    memory: Memory,
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Reading | None:
    return None if training else act.LEAKY_RELU.of(input, (lower + upper) / 2)


def _prelu(memory: Memory, input: Tensor, weight: Tensor) -> Reading:
    return act.PRELU.of(input, weight)


def _elu(memory: Memory, input: Tensor, alpha: float = 1.0, *more: Any, **_: Any) -> Any:
    """``F.elu(input, alpha, inplace)``, or ``aten::elu(input, alpha, scale, input_scale)``."""
    if any(not isinstance(value, bool) and value != 1 for value in more):
        return None
    return act.ELU.of(input, alpha)


def _selu(memory: Memory, input: Tensor, inplace: bool = False) -> Reading:
    return act.SELU.of(input)


def _celu(memory: Memory, input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Reading:
    return act.CELU.of(input, alpha)


def _hardsigmoid(memory: Memory, input: Tensor, inplace: bool = False) -> Reading:
    return act.HARD_SIGMOID.of(input)


def _hardswish(memory: Memory, input: Tensor, inplace: bool = False) -> Reading:
    return act.HARD_SWISH.of(input)


def _softshrink(memory: Memory, input: Tensor, lambd: float = 0.5) -> Reading:
    return act.SOFT_SHRINK.of(input, lambd)


def _hardshrink(memory: Memory, input: Tensor, lambd: float = 0.5) -> Reading:
    return sel.HARD_SHRINK.of(input, lambd)


def _sqrt(memory: Memory, input: Tensor) -> Reading | None:
    """The root of a square is an absolute value."""
    root = memory.root(input)
    return None if root is None else act.ABS.of(root)


def _pow(memory: Memory, input: Tensor, exponent: Any) -> Reading | None:
    return _sqrt(memory, input) if not isinstance(exponent, Tensor) and exponent == 0.5 else None


def _abs(memory: Memory, input: Tensor) -> Reading | None:
    return act.ABS.of(input) if floating(input) else None


SPELLINGS: tuple[tuple[Reader, str], ...] = (
    (_relu, "relu"),
    (_relu6, "relu6"),
    (_hardtanh, "hardtanh"),
    (_clamp, "clamp clip"),
    (_clamp_min, "clamp_min"),
    (_clamp_max, "clamp_max"),
    (maximum, "maximum fmax"),
    (minimum, "minimum fmin"),
    (_threshold, "threshold"),
    (_leaky_relu, "leaky_relu"),
    (_rrelu, "rrelu"),
    (_prelu, "prelu _prelu_kernel"),
    (_elu, "elu"),
    (_selu, "selu"),
    (_celu, "celu"),
    (_hardsigmoid, "hardsigmoid"),
    (_hardswish, "hardswish"),
    (_softshrink, "softshrink"),
    (_hardshrink, "hardshrink"),
    (_abs, "abs absolute __abs__"),
    (_sqrt, "sqrt"),
    (_pow, "pow __pow__"),
)
"""What reads the functions of each name."""
