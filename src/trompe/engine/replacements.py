"""Which function with a kink is replaced by which smooth one, and which have no stand-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.pooling import smooth_max_pool2d
from trompe.engine.softplus import softplus
from trompe.engine.surrogates import (
    Beta,
    smooth_abs,
    smooth_adaptive_max_pool,
    smooth_amax,
    smooth_celu,
    smooth_elu,
    smooth_hard_sigmoid,
    smooth_hard_swish,
    smooth_hardtanh,
    smooth_leaky_relu,
    smooth_max_pool1d,
    smooth_max_pool3d,
    smooth_maximum,
    smooth_minimum,
    smooth_softshrink,
    smooth_threshold,
)

Function = Callable[..., Any]
Replacement = Callable[..., Any]

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _relu(beta: Beta, input: Tensor, inplace: bool = False) -> Tensor:
    return softplus(input, beta)


def cuts_the_negative(min: Any, max: Any) -> bool:
    """Whether a clamp to these bounds is a ReLU."""
    return max is None and not isinstance(min, Tensor) and min == 0


def _clamp(beta: Beta, input: Tensor, min: Any = None, max: Any = None) -> Any:
    """``clamp(min=0)`` is a ReLU, ``clamp(a, b)`` a hard tanh; a lone other bound is a guard."""
    if not input.is_floating_point() or isinstance(min, Tensor) or isinstance(max, Tensor):
        return NotImplemented
    if min is not None and max is not None:
        return smooth_hardtanh(input, beta, min, max)
    return softplus(input, beta) if cuts_the_negative(min, max) else NotImplemented


def _relu6(beta: Beta, input: Tensor, inplace: bool = False) -> Tensor:
    return smooth_hardtanh(input, beta, 0.0, 6.0)


def _hardtanh(
    beta: Beta, input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    return smooth_hardtanh(input, beta, min_val, max_val)


def _hardsigmoid(beta: Beta, input: Tensor, inplace: bool = False) -> Tensor:
    return smooth_hard_sigmoid(input, beta)


def _hardswish(beta: Beta, input: Tensor, inplace: bool = False) -> Tensor:
    return smooth_hard_swish(input, beta)


def _leaky_relu(
    beta: Beta, input: Tensor, negative_slope: float = 0.01, inplace: bool = False
) -> Tensor:
    return smooth_leaky_relu(input, beta, negative_slope)


def _prelu(beta: Beta, input: Tensor, weight: Tensor) -> Tensor:
    return smooth_leaky_relu(input, beta, weight)


def _rrelu(
    beta: Beta,
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Any:
    return NotImplemented if training else smooth_leaky_relu(input, beta, (lower + upper) / 2)


def _elu(beta: Beta, input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    return smooth_elu(input, beta, alpha)


def _selu(beta: Beta, input: Tensor, inplace: bool = False) -> Tensor:
    return smooth_elu(input, beta, _SELU_ALPHA, _SELU_SCALE)


def _celu(beta: Beta, input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    return smooth_celu(input, beta, alpha)


def _threshold(
    beta: Beta, input: Tensor, threshold: float, value: float, inplace: bool = False
) -> Any:
    """Only where the function is continuous is it a maximum."""
    return smooth_threshold(input, beta, threshold) if value == threshold else NotImplemented


def _softshrink(beta: Beta, input: Tensor, lambd: float = 0.5) -> Tensor:
    return smooth_softshrink(input, beta, lambd)


def _abs(beta: Beta, input: Tensor) -> Any:
    return smooth_abs(input, beta) if input.is_floating_point() else NotImplemented


def _maximum(beta: Beta, input: Tensor, other: Tensor) -> Any:
    return smooth_maximum(input, other, beta) if input.is_floating_point() else NotImplemented


def _minimum(beta: Beta, input: Tensor, other: Tensor) -> Any:
    return smooth_minimum(input, other, beta) if input.is_floating_point() else NotImplemented


def _max_pool(replacement: Function) -> Replacement:
    def pool(
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
        return replacement(input, beta, kernel_size, stride, padding, dilation, ceil_mode)

    return pool


def _adaptive(dims: int) -> Replacement:
    def pool(beta: Beta, input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
        if return_indices:
            return NotImplemented
        return smooth_adaptive_max_pool(input, beta, output_size, dims)

    return pool


def _amax(beta: Beta, input: Tensor, dim: Any = (), keepdim: bool = False) -> Any:
    if not input.is_floating_point() or dim == ():
        return NotImplemented
    return smooth_amax(input, beta, dim, keepdim)


def _max(beta: Beta, input: Tensor, dim: Any = None, keepdim: bool = False, **other: Any) -> Any:
    """``max(x, dim)``: smooth values beside the indices of the winners."""
    if isinstance(dim, Tensor) or isinstance(other.get("other"), Tensor):
        return _maximum(beta, input, dim if dim is not None else other["other"])
    if dim is None or not input.is_floating_point():
        return NotImplemented
    values = smooth_amax(input, beta, dim, keepdim)
    return torch.return_types.max((values, input.argmax(dim, keepdim)))  # type: ignore[arg-type]


def _each(replacement: Replacement, *functions: Function) -> dict[Function, Replacement]:
    return dict.fromkeys(functions, replacement)


ACTIVATIONS: dict[Function, Replacement] = {
    **_each(_relu, F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    **_each(_clamp, torch.clamp, torch.clamp_min, torch.clip, torch.clamp_, torch.clip_),
    **_each(_clamp, Tensor.clamp, Tensor.clamp_, Tensor.clamp_min, Tensor.clamp_min_),
    **_each(_clamp, Tensor.clip, Tensor.clip_),
    **_each(_relu6, F.relu6),
    **_each(_hardtanh, F.hardtanh, F.hardtanh_),
    **_each(_hardsigmoid, F.hardsigmoid),
    **_each(_hardswish, F.hardswish),
    **_each(_leaky_relu, F.leaky_relu, F.leaky_relu_),
    **_each(_prelu, F.prelu, torch.prelu, Tensor.prelu),
    **_each(_rrelu, F.rrelu, F.rrelu_, torch.rrelu, torch.rrelu_),
    **_each(_elu, F.elu, F.elu_),
    **_each(_selu, F.selu, F.selu_, torch.selu, torch.selu_),
    **_each(_celu, F.celu, F.celu_, torch.celu, torch.celu_),
    **_each(_threshold, F.threshold, torch.threshold),
    **_each(_softshrink, F.softshrink),
    **_each(_abs, torch.abs, torch.abs_, torch.absolute, Tensor.abs, Tensor.abs_),
    **_each(_abs, Tensor.absolute, Tensor.__abs__),
    **_each(_maximum, torch.maximum, Tensor.maximum, torch.fmax),
    **_each(_minimum, torch.minimum, Tensor.minimum, torch.fmin),
}
"""What stands in for each activation with a kink: ``replacement(beta, *args, **kwargs)``.

A replacement returns ``NotImplemented`` where the call has no kink to smooth.
"""

POOLINGS: dict[Function, Replacement] = {
    **_each(_max_pool(smooth_max_pool2d), F.max_pool2d, torch.max_pool2d),
    **_each(_max_pool(smooth_max_pool1d), F.max_pool1d, torch.max_pool1d),
    **_each(_max_pool(smooth_max_pool3d), F.max_pool3d, torch.max_pool3d),
    **_each(_adaptive(1), F.adaptive_max_pool1d, torch.adaptive_max_pool1d),
    **_each(_adaptive(2), F.adaptive_max_pool2d),
    **_each(_adaptive(3), F.adaptive_max_pool3d),
    **_each(_amax, torch.amax, Tensor.amax),
    **_each(_max, torch.max, Tensor.max),
}
"""What stands in for each pooling, with the beta of the pooling."""

KINKED: frozenset[Function] = frozenset(
    {
        *(torch.sort, Tensor.sort, torch.topk, Tensor.topk, torch.median, Tensor.median),
        *(torch.min, Tensor.min, torch.amin, Tensor.amin, torch.kthvalue, torch.cummax),
        *(F.hardshrink, torch.hardshrink, torch.sign, Tensor.sign, torch.round, Tensor.round),
        *(torch.floor, Tensor.floor, torch.ceil, Tensor.ceil, torch.trunc, torch.heaviside),
        *(torch.gt, torch.lt, torch.ge, torch.le, Tensor.gt, Tensor.lt, Tensor.ge, Tensor.le),
        *(Tensor.__gt__, Tensor.__lt__, Tensor.__ge__, Tensor.__le__, torch.argmax),
        *(Tensor.argmax, torch.clamp_max, Tensor.clamp_max, torch.quantile),
    }
)
"""Functions with kinks or jumps, and comparisons that may choose between branches, left as are."""
