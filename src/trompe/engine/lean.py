"""Convolutions that are differentiated twice without gradients of their weights.

PyTorch's double backward of a convolution computes the gradient of the weight whether or not the
weight requires it: one convolution more per layer and step than an attack needs (measured with
PyTorch 2.14; ``benchmarks/README.md``). A convolution with a constant weight is linear in its
input, so its backward is the transposed map, whose backward is the convolution again: two
functions, each the other's derivative, cover every order of differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from trompe.engine.decompose import Decomposed
from trompe.engine.layout import channels_last
from trompe.engine.routing import concatenation, max_pool2d

CONVOLUTIONS: dict[Callable[..., Any], int] = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
"""The convolutions covered, with their spatial dimensions."""


class Geometry(NamedTuple):
    """All that a convolution is beside its tensors."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int


class _Convolution(torch.autograd.Function):
    """``x * weight + bias``, weight and bias constant."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, geometry: Geometry, bias: Tensor | None
    ) -> Tensor:
        ctx.weight, ctx.geometry, ctx.shape = weight, geometry, x.shape
        stride, padding, dilation, groups = geometry
        none = [0] * len(stride)
        ctx.last = channels_last(x) or channels_last(weight)
        if channels_last(x):  # a 1x1 weight counts as both layouts, and PyTorch may take the other
            if pointwise(weight, geometry):
                return _per_pixel(x, weight.flatten(1).t(), bias)
            weight = weight.contiguous(memory_format=torch.channels_last)
        out = torch.ops.aten.convolution(
            x, weight, bias, stride, padding, dilation, False, none, groups
        )
        return _in_layout(out, ctx.last)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad = _in_layout(grad, ctx.last)
        return _Transposed.apply(grad, ctx.weight, ctx.geometry, ctx.shape), None, None, None


class _Transposed(torch.autograd.Function):
    """The transpose of ``_Convolution``."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, weight: Tensor, geometry: Geometry, shape: torch.Size
    ) -> Tensor:
        ctx.weight, ctx.geometry = weight, geometry
        ctx.last = channels_last(grad) or channels_last(weight)
        if channels_last(grad) and pointwise(weight, geometry):
            return _per_pixel(grad, weight.flatten(1), None)
        stride, padding, dilation, groups = geometry
        # Only the shape and the layout of the input matter: its memory is never touched. A 1x1
        # weight counts as both layouts: what came in decides.
        like = torch.empty(shape, dtype=grad.dtype, device=grad.device)
        if ctx.last:
            like = torch.empty_like(like, memory_format=torch.channels_last)
        out = torch.ops.aten.convolution_backward(
            grad,
            like,
            weight,
            bias_sizes=None,
            stride=stride,
            padding=padding,
            dilation=dilation,
            transposed=False,
            output_padding=[0] * len(stride),
            groups=groups,
            output_mask=[True, False, False],
        )[0]
        return _in_layout(out, ctx.last)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad = _in_layout(grad, ctx.last)
        return _Convolution.apply(grad, ctx.weight, ctx.geometry, None), None, None, None


def _in_layout(t: Tensor, last: bool) -> Tensor:
    """``t``, channels last if it should be: the derivative of an average comes as it likes.

    So may the convolution of a single image.
    """
    return t.contiguous(memory_format=torch.channels_last) if last else t


def _per_pixel(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """The channels of each pixel times ``matrix`` [in, out]; ``x`` is channels last.

    The result is no view, since the model may change it in place: recorded, a change through a view
    costs a run of the model that checks it.
    """
    batch, _, height, width = x.shape
    shape, last = (batch, matrix.shape[1], height, width), torch.channels_last
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=last)
    pixels, results = (t.permute(0, 2, 3, 1).flatten(0, 2) for t in (x, out))
    with torch._C.DisableTorchFunction():  # a mode further out would take these apart
        if bias is None:
            torch.mm(pixels, matrix, out=results)
        else:
            torch.addmm(bias, pixels, matrix, out=results)
    return out


def geometry_of(
    dims: int, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Geometry | None:
    """The geometry, or ``None`` where the padding is given in words."""
    if isinstance(padding, str):
        return None

    def spread(value: Any) -> list[int]:
        return [value] * dims if isinstance(value, int) else [int(v) for v in value]

    return Geometry(spread(stride), spread(padding), spread(dilation), groups)


def pointwise(weight: Tensor, geometry: Geometry) -> bool:
    """Whether it is a matrix product per pixel, on a CPU: with channels last nothing is moved."""
    plain = Geometry([1, 1], [0, 0], geometry.dilation, 1)
    return weight.device.type == "cpu" and weight.shape[2:] == (1, 1) and geometry == plain


def convolution(
    x: Tensor, weight: Tensor, geometry: Geometry, bias: Tensor | None = None
) -> Tensor:
    """The convolution of ``x`` with a constant weight, plus a constant bias."""
    return _Convolution.apply(x, weight, geometry, bias)


def transposed(grad: Tensor, weight: Tensor, geometry: Geometry, shape: torch.Size) -> Tensor:
    """The transpose of ``convolution``: from the shape of its output to ``shape``."""
    return _Transposed.apply(grad, weight, geometry, shape)


def _lean(
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    geometry = geometry_of(dims, stride, padding, dilation, groups)
    batched = input.dim() == weight.dim()
    trainable = weight.requires_grad or (bias is not None and bias.requires_grad)
    if geometry is None or trainable or not batched or not input.requires_grad:
        return NotImplemented
    return convolution(input, weight, geometry, bias)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """In evaluation a multiplication and an addition per channel.

    Besides being cheaper, it is right: PyTorch's double backward of it is wrong for a single image
    where layouts are mixed (2.14, CPU).
    """
    given = [t for t in (running_mean, running_var, weight, bias) if t is not None]
    constant = running_mean is not None and running_var is not None
    if training or not constant or any(t.requires_grad or t.dtype != input.dtype for t in given):
        return NotImplemented
    assert running_mean is not None
    assert running_var is not None
    factor = (running_var + eps).rsqrt()
    factor = factor if weight is None else factor * weight
    shift = -running_mean * factor
    shift = shift if bias is None else shift + bias
    shape = [1, -1] + [1] * (input.dim() - 2)
    return torch.addcmul(shift.view(shape), input, factor.view(shape))


LEAN: dict[Callable[..., Any], Callable[..., Any]] = {
    **{func: partial(_lean, dims) for func, dims in CONVOLUTIONS.items()},
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), max_pool2d),
    F.batch_norm: _batch_norm,
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), concatenation),
}
"""The lean form of each function; it returns ``NotImplemented`` where it does not apply."""

_LARGE = 2**19  # of a smaller pool the change of layout costs what it gains


def _large_max_pool2d(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    large = input.device.type == "cpu" and input.numel() >= _LARGE
    return max_pool2d(input, *args, **kwargs) if large else NotImplemented


ONCE: dict[Callable[..., Any], Callable[..., Any]] = dict.fromkeys(
    (F.max_pool2d, torch.max_pool2d), _large_max_pool2d
)
"""What pays even where nothing is differentiated twice."""


def _run(
    forms: Mapping[Callable[..., Any], Callable[..., Any]], func: Any, args: Any, kw: Any
) -> Any:
    """The lean form's result, or ``NotImplemented``."""
    form = forms.get(func)
    return NotImplemented if form is None else form(*args, **(kw or {}))


class Lean(Decomposed):
    """While active, everything can be differentiated twice, in the forms of ``LEAN``."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = _run(LEAN, func, args, kwargs)
        return (
            super().__torch_function__(func, types, args, kwargs) if out is NotImplemented else out
        )


class Once(TorchFunctionMode):
    """While active, operations take the forms of ``ONCE``."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = _run(ONCE, func, args, kwargs)
        return func(*args, **(kwargs or {})) if out is NotImplemented else out
