"""The operators of exported models, as the functions that everybody else calls.

``torch.export`` writes a model down in operators of the aten library. Most have a function of the
same name and the same arguments in ``torch.nn.functional`` or ``torch``; a few order or name
arguments otherwise. Rules know the functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Function = Callable[..., Any]


def _batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    return F.batch_norm(input, mean, variance, weight, bias, training, momentum, eps)


def _without_cudnn(norm: Function) -> Function:
    """A normalisation without the last argument of its operator, whether to use cuDNN."""

    def run(*args: Any, **kwargs: Any) -> Tensor:
        kwargs = {name: value for name, value in kwargs.items() if not name.startswith("cudnn")}
        out: Tensor = norm(*args[:5], **kwargs)
        return out

    return run


def _dropout(input: Tensor, p: float, train: bool) -> Tensor:
    return F.dropout(input, p, train)


def _slice(
    input: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    places: list[slice] = [slice(None)] * input.dim()
    places[dim] = slice(start, end, step)
    return input[tuple(places)]


_OTHERWISE: dict[str, Function] = {
    "slice": _slice,
    "batch_norm": _batch_norm,
    "layer_norm": _without_cudnn(F.layer_norm),
    "group_norm": _without_cudnn(F.group_norm),
    "dropout": _dropout,
}
_ALIKE = (
    (F, "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
    (F, "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d pixel_shuffle"),
    (F, "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d gelu silu mish pad"),
    (F, "softplus scaled_dot_product_attention"),
    (torch, "add sub rsub mul div neg mm bmm matmul addmm baddbmm addcmul einsum cat stack"),
    (torch, "mean sum flatten unflatten transpose permute unsqueeze squeeze chunk split"),
    (torch, "softmax sigmoid tanh exp log sqrt rsqrt pow abs select roll unbind square"),
    (Tensor, "view reshape expand repeat contiguous clone"),
)


def _operators(functions: Mapping[str, Function]) -> dict[Function, Function]:
    """The function of each operator of these names, and of each of its overloads."""
    found: dict[Function, Function] = {}
    for name, function in functions.items():
        packet = getattr(torch.ops.aten, name, None)
        if packet is None:  # not every version has each
            continue
        found[packet] = function
        for overload in packet.overloads():
            if "out" not in overload:
                found[getattr(packet, overload)] = function
    return found


PLAIN = _operators({name: getattr(home, name) for home, some in _ALIKE for name in some.split()})
"""The function of an operator, called with the same arguments."""

REORDERED = _operators(_OTHERWISE)
"""What calls the function that an operator is with other arguments."""
