"""Reading calls: every spelling of an operation with a kink, as its one record.

``F.relu_``, ``h.clip(0)``, ``torch.maximum(h, zeros)``, ``F.threshold(h, 0, 0)``,
``torch.ops.aten.relu`` and the layers of exported models are one operation. What takes more than
one call (``h * (h > 0)``, ``torch.where(h > 0, h, 0)``) is read in ``trompe.engine.masks``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine import activations as act
from trompe.engine import selections as sel
from trompe.engine.inplace import twin
from trompe.engine.masks import USES, Memory, soften
from trompe.engine.operations import Function, Reading

Reader = Callable[..., "Reading | None"]

GUARD = 1e-3
"""A lone lower bound that is positive and no larger keeps a divisor off zero: no activation."""


def _number(value: Any) -> float | None:
    """A bound as a number, if it is one."""
    return float(value) if isinstance(value, (int, float)) else None


def bounded(input: Tensor, low: Any, high: Any) -> Reading | None:
    """``min(max(input, low), high)``, either of which may be ``None``."""
    if not input.is_floating_point() or any(isinstance(b, Tensor) for b in (low, high)):
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
    return act.RELU.of(input) if input.is_floating_point() else None


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
        return _maximum(memory, input, min)
    if isinstance(max, Tensor) and min is None:
        return _minimum(memory, input, max)
    return bounded(input, min, max)


def _clamp_min(memory: Memory, input: Tensor, min: Any) -> Reading | None:
    return _clamp(memory, input, min, None)


def _clamp_max(memory: Memory, input: Tensor, max: Any) -> Reading | None:
    return _clamp(memory, input, None, max)


def _maximum(memory: Memory, input: Tensor, other: Tensor) -> Reading | None:
    """Of two tensors; where one is a constant of one number, a bound."""
    if not input.is_floating_point():
        return None
    for tensor, constant in ((input, other), (other, input)):
        low = memory.uniform(constant, tensor)
        if low is not None:
            return bounded(tensor, low, None)
    return act.MAXIMUM.of(input, other)


def _minimum(memory: Memory, input: Tensor, other: Tensor) -> Reading | None:
    """As ``_maximum``."""
    if not input.is_floating_point():
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


def _abs(memory: Memory, input: Tensor) -> Reading | None:
    return act.ABS.of(input) if input.is_floating_point() else None


def _pool(operation: Any) -> Reader:
    def read(
        memory: Memory,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Reading | None:
        if return_indices:
            return None
        return operation.of(input, kernel_size, stride or None, padding, dilation, ceil_mode)

    return read


def _adaptive(operation: Any) -> Reader:
    def read(
        memory: Memory, input: Tensor, output_size: Any, return_indices: bool = False
    ) -> Reading | None:
        return None if return_indices else operation.of(input, output_size)

    return read


def _over(whole: Any, operation: Any, two: Reader) -> Reader:
    """``max(x)``, ``max(x, dim)`` or ``max(x, other)``, and likewise for ``min``."""

    def read(
        memory: Memory, input: Tensor, dim: Any = None, keepdim: bool = False, **more: Any
    ) -> Reading | None:
        other = more.get("other", dim)
        if isinstance(other, Tensor):
            return two(memory, input, other)
        if not input.is_floating_point():
            return None
        if dim is None:
            return Reading(whole, whole.function, (input, tuple(range(input.dim())), False))
        return operation.of(input, dim, keepdim)

    return read


def _along(operation: Any) -> Reader:
    def read(memory: Memory, input: Tensor, dim: Any = (), keepdim: bool = False) -> Reading | None:
        if not input.is_floating_point():
            return None
        dim = tuple(range(input.dim())) if dim in ((), [], None) else dim
        return operation.of(input, dim, keepdim)

    return read


_NAMES: tuple[tuple[Reader, str], ...] = (
    (_relu, "relu"),
    (_relu6, "relu6"),
    (_hardtanh, "hardtanh"),
    (_clamp, "clamp clip"),
    (_clamp_min, "clamp_min"),
    (_clamp_max, "clamp_max"),
    (_maximum, "maximum fmax"),
    (_minimum, "minimum fmin"),
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
    (_pool(sel.MAX_POOL1D), "max_pool1d"),
    (_pool(sel.MAX_POOL2D), "max_pool2d"),
    (_pool(sel.MAX_POOL3D), "max_pool3d"),
    *(
        (_adaptive(operation), f"adaptive_max_pool{dims}d")
        for dims, operation in zip((1, 2, 3), sel.ADAPTIVE_MAX_POOL, strict=True)
    ),
    (_along(sel.LARGEST), "amax"),
    (_along(sel.SMALLEST), "amin"),
    (_over(sel.LARGEST, sel.LARGEST_AND_WHERE, _maximum), "max"),
    (_over(sel.SMALLEST, sel.SMALLEST_AND_WHERE, _minimum), "min"),
)


def spelled(name: str) -> list[Function]:
    """All functions of this name: of tensors, of modules' functional forms, overloads of aten.

    In-place forms are left out: calls are read after they were made out of place.
    """
    homes: tuple[Any, ...] = (torch, F, Tensor, torch._C._nn)
    found: dict[Function, None] = {}
    for home in homes:
        function = getattr(home, name, None)
        if callable(function):
            found[function] = None
    packet = getattr(torch.ops.aten, name, None)
    if isinstance(packet, torch._ops.OpOverloadPacket):
        found[packet] = None
        for overload in packet.overloads():
            if not overload.endswith("out"):
                found[getattr(packet, overload)] = None
    return list(found)


READERS: dict[Function, Reader] = {
    function: reader
    for reader, names in _NAMES
    for name in names.split()
    for function in spelled(name)
}
"""What reads each function: ``read(memory, *args, **kwargs)``, ``None`` where it has no kink."""


_READABLE: dict[Function, bool] = {}


def may_be_read(func: Function, memory: Memory) -> bool:
    """Whether ``read`` may know a function, or its out-of-place twin; quick."""
    found = _READABLE.get(func)
    if found is None:
        found = _READABLE[func] = func in READERS or twin(func) in READERS
    return found or bool(memory.masks)


def read(memory: Memory, func: Function, args: tuple[Any, ...], kwargs: Any) -> Reading | None:
    """What a call is, if it has a kink.

    Args:
        memory: of this pass; see ``trompe.engine.masks.note``.
        func: the function called, out of place.
        args: its arguments.
        kwargs: likewise.

    Returns:
        The call read, or ``None``: without a kink, or not known.
    """
    reader = READERS.get(func)
    if reader is not None:
        return _tried(reader, memory, args, kwargs)
    if memory.masks:
        use = USES.get(func)
        found = None if use is None else _tried(use, memory, args, kwargs)
        return found or soften(memory, func, args, kwargs)
    return None


def _tried(reader: Reader, memory: Memory, args: tuple[Any, ...], kwargs: Any) -> Reading | None:
    try:
        return reader(memory, *args, **kwargs)
    except TypeError:  # called in a way that is not known: found by watching, and reported
        return None
