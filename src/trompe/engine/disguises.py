"""Functions that are others in disguise, and run, recorded, as these."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.contractions import tensordot
from trompe.engine.decompose import weighted


def _softmax(input: Tensor, dim: int, *_: Any, **kwargs: Any) -> Tensor:
    return torch.softmax(input, dim, dtype=kwargs.get("dtype"))


def _softmin(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    return F.softmax(-input, dim, _stacklevel, dtype)


def _lerp(input: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    return input * (1 - weight) + end * weight


def _add_quotient(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    quotient = tensor1 / tensor2
    return input + (quotient if value == 1 else quotient * value)


def _addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return weighted(torch.matmul(mat, vec), input, beta, alpha)


def _addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    return weighted(torch.bmm(batch1, batch2).sum(0), input, beta, alpha)


def _multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    return functools.reduce(torch.matmul, tensors)


def _vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    return (x * y).sum(dim)


def _dot(input: Tensor, tensor: Tensor) -> Tensor:
    return (input * tensor).sum(0)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if use_input_stats:
        return F.group_norm(input, input.shape[1], weight, bias, eps)
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    return F.layer_norm(input, list(normalized_shape), weight, bias, eps)


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    return F.group_norm(input, num_groups, weight, bias, eps)


_CONVOLUTIONS: dict[bool, tuple[Any, ...]] = {
    False: (F.conv1d, F.conv2d, F.conv3d),
    True: (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
}


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    *_: Any,
) -> Tensor:
    function: Callable[..., Tensor] = _CONVOLUTIONS[transposed][weight.dim() - 3]
    if transposed:
        return function(input, weight, bias, stride, padding, output_padding, groups, dilation)
    return function(input, weight, bias, stride, padding, dilation, groups)


def _everywhere(name: str) -> list[Any]:
    """The functions of this name that take the same arguments."""
    homes: tuple[Any, ...] = (torch, Tensor, torch.linalg, torch.special)
    return [f for home in homes if callable(f := getattr(home, name, None))]


_BY_NAME: dict[str, Callable[..., Any]] = {
    "lerp": _lerp,
    "addcdiv": _add_quotient,
    "addmv": _addmv,
    "addbmm": _addbmm,
    "multi_dot": _multi_dot,
    "vecdot": _vecdot,
    "dot": _dot,
    "vdot": _dot,
}

DISGUISES: dict[Callable[..., Any], Callable[..., Any]] = {
    **{f: plain for name, plain in _BY_NAME.items() for f in _everywhere(name)},
    F.softmin: _softmin,
    torch.special.softmax: _softmax,
    torch.ops.aten._softmax: _softmax,
    torch.ops.aten._softmax.default: _softmax,
    torch.tensordot: tensordot,
    torch.functional.tensordot: tensordot,
    F.instance_norm: _instance_norm,
    torch.layer_norm: _layer_norm,
    torch.group_norm: _group_norm,
    torch.convolution: _convolution,
    torch.ops.aten.convolution: _convolution,
    torch.ops.aten.convolution.default: _convolution,
}
"""What is run in place of a function, whose parts are then recorded."""
