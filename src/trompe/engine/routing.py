"""Max pooling and concatenation, differentiated twice without waste.

Both only move numbers. PyTorch's pooling of contiguous images on a CPU is not vectorised: over the
channels it is two to three times as fast, the change of layout included. The derivative of a
concatenation is made of slices, whose own derivatives fill a tensor with zeros for each input and
add them up: here the slices' derivative is the concatenation again
(measured: ``docs/decisions.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trompe.engine.layout import channels_last, like
from trompe.engine.pooling import pair, stride_of


class _Windows(NamedTuple):
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool


def _pooled(x: Tensor, windows: _Windows) -> tuple[Tensor, Tensor]:
    """The maxima, and where they lie in the image."""
    if x.device.type == "cpu" and x.dim() == 4 and x.is_contiguous():
        x = x.contiguous(memory_format=torch.channels_last)
        value, index = torch.ops.aten.max_pool2d_with_indices(x, *windows)
        return value.contiguous(), index.contiguous()
    value, index = torch.ops.aten.max_pool2d_with_indices(x, *windows)
    return like(value, x), like(index, x)  # of a single image PyTorch may take the other layout


class _MaxPool(torch.autograd.Function):
    """The maximum of each window."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: _Windows) -> Tensor:
        value, index = _pooled(x, windows)
        ctx.index, ctx.windows, ctx.image = index, windows, x
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Scatter.apply(grad, ctx.index, ctx.windows, ctx.image), None


class _Scatter(torch.autograd.Function):
    """Numbers of windows put where the maxima were; the transpose of the pooling at this place."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, index: Tensor, windows: _Windows, image: Tensor) -> Tensor:
        ctx.index, ctx.windows, ctx.image = index, windows, image
        grad = like(grad, index)
        out = torch.ops.aten.max_pool2d_with_indices_backward(grad, image, *windows, index)
        return like(out, image)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Gather.apply(grad, ctx.index, ctx.windows, ctx.image), None, None, None


class _Gather(torch.autograd.Function):
    """Numbers of the image taken from where the maxima were; the transpose of ``_Scatter``."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, index: Tensor, windows: _Windows, image: Tensor) -> Tensor:
        ctx.index, ctx.windows, ctx.image = index, windows, image
        if not channels_last(index):
            return grad.flatten(-2).gather(-1, index.flatten(-2)).view_as(index)
        pixels, places = (t.permute(0, 2, 3, 1) for t in (grad, index))
        found = pixels.flatten(1, 2).gather(1, places.flatten(1, 2))
        return found.view(places.shape).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Scatter.apply(grad, ctx.index, ctx.windows, ctx.image), None, None, None


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """``torch.nn.functional.max_pool2d``; ``NotImplemented`` where it is not covered."""
    if return_indices or input.dim() != 4 or not input.requires_grad:
        return NotImplemented
    kernel = pair(kernel_size)
    windows = _Windows(kernel, stride_of(stride, kernel), pair(padding), pair(dilation), ceil_mode)
    return _MaxPool.apply(input, windows)


class _Concatenation(torch.autograd.Function):
    """``torch.cat``."""

    @staticmethod
    def forward(ctx: Any, dim: int, *parts: Tensor) -> Tensor:
        ctx.dim, ctx.sizes = dim, [part.shape[dim] for part in parts]
        if dim in (1, -3) and all(channels_last(part) for part in parts):
            # PyTorch may answer with channels first.
            return torch.cat([p.permute(0, 2, 3, 1) for p in parts], 3).permute(0, 3, 1, 2)
        return torch.cat(parts, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return None, *_Split.apply(grad, ctx.dim, ctx.sizes)


class _Split(torch.autograd.Function):
    """The transpose of ``_Concatenation``."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, dim: int, sizes: list[int]) -> tuple[Tensor, ...]:
        ctx.dim = dim
        # Copies: views of several outputs must not be handed out by a custom function, and the
        # products that follow are faster on contiguous memory.
        return tuple(like(part, grad) for part in grad.split(sizes, dim))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Concatenation.apply(ctx.dim, *grads), None, None


def concatenation(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    """``torch.cat``; ``NotImplemented`` where it is not covered."""
    plain = all(
        isinstance(t, Tensor) and t.dim() > 0 and t.dtype == tensors[0].dtype for t in tensors
    )
    if not plain or not any(t.requires_grad for t in tensors):
        return NotImplemented
    if any(t.dim() != tensors[0].dim() for t in tensors):  # PyTorch skips empty ones
        return NotImplemented
    return _Concatenation.apply(dim, *tensors)
