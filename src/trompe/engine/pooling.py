"""Max pooling smoothed by log-sum-exp: ``log(sum(exp(b x))) / b`` over each window.

It tends to max pooling as b grows, from above: at most ``log(window size) / b`` more. The windows
are laid out as one strided copy per position within the window, so that a 2x2 pool costs a single
copy of its input (``unfold`` would copy and permute). As in ``softplus``, the weights of the
windows are a second output of the node, so that no exponential is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from trompe.engine.layout import channels_last

_TAIL = -30.0  # see softplus


class Geometry(NamedTuple):
    """Where the windows of a two-dimensional pool lie."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    size_in: tuple[int, int]
    size_out: tuple[int, int]

    @property
    def span(self) -> tuple[int, int]:
        """Height and width of the padded input that the windows reach."""
        height, width = (
            (o - 1) * s + d * (k - 1) + 1
            for o, s, d, k in zip(
                self.size_out, self.stride, self.dilation, self.kernel, strict=True
            )
        )
        return height, width

    def slices(self) -> list[tuple[slice, slice]]:
        """Per position within the window: the elements of the padded input found there."""
        (kh, kw), (sh, sw), (dh, dw), (oh, ow) = (
            self.kernel,
            self.stride,
            self.dilation,
            self.size_out,
        )
        return [
            (
                slice(i * dh, i * dh + (oh - 1) * sh + 1, sh),
                slice(j * dw, j * dw + (ow - 1) * sw + 1, sw),
            )
            for i in range(kh)
            for j in range(kw)
        ]


def pair(value: Any) -> tuple[int, int]:
    """A setting of a pool for height and width, given as one number or two."""
    if isinstance(value, int):
        return value, value
    values = [int(v) for v in value]
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def stride_of(stride: Any, kernel: tuple[int, int]) -> tuple[int, int]:
    """The stride of a pool: its kernel if none is given, or an empty list."""
    return kernel if stride is None or stride in ([], ()) else pair(stride)


def _size_out(size: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    free = size + 2 * p - d * (k - 1) - 1
    if not ceil_mode:
        return free // s + 1
    out = math.ceil(free / s) + 1
    # PyTorch drops a last window that would start in the padding on the right.
    return out - 1 if (out - 1) * s >= size + p else out


def _geometry(
    x: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Geometry:
    kernel = pair(kernel_size)
    steps = stride_of(stride, kernel)
    pad, dil = pair(padding), pair(dilation)
    size = (int(x.shape[-2]), int(x.shape[-1]))
    height, width = (
        _size_out(n, k, s, p, d, ceil_mode)
        for n, k, s, p, d in zip(size, kernel, steps, pad, dil, strict=True)
    )
    return Geometry(kernel, steps, pad, dil, size, (height, width))


def _padding(geometry: Geometry) -> tuple[int, int, int, int]:
    """Left, right, top, bottom; negative (a crop) where the windows do not reach the edge."""
    (ph, pw), (h, w), (sh, sw) = geometry.padding, geometry.size_in, geometry.span
    return pw, sw - w - pw, ph, sh - h - ph


def _split(x: Tensor, geometry: Geometry, fill: float) -> Tensor:
    padding = _padding(geometry)
    padded = F.pad(x, padding, value=fill) if any(padding) else x
    parts = [padded[..., rows, columns] for rows, columns in geometry.slices()]
    if not channels_last(x):
        return torch.stack(parts)
    # Memory in the order of x, the channels of a pixel side by side.
    return torch.stack([part.permute(0, 2, 3, 1) for part in parts]).permute(0, 1, 4, 2, 3)


def _merge(windows: Tensor, geometry: Geometry) -> Tensor:
    *lead, channels = windows.shape[1:-2]
    if lead and channels_last(windows[0]):
        padded = windows.new_zeros(*lead, *geometry.span, channels).permute(0, 3, 1, 2)
    else:
        padded = windows.new_zeros(*windows.shape[1:-2], *geometry.span)
    for window, (rows, columns) in zip(windows, geometry.slices(), strict=True):
        padded[..., rows, columns] += window
    padding = _padding(geometry)
    return F.pad(padded, [-p for p in padding]) if any(padding) else padded


def _over(windows: Tensor, reduction: Callable[..., Tensor]) -> Tensor:
    """A reduction over the places of the windows that keeps the layout of the images."""
    if windows.dim() == 5 and channels_last(windows[0]):
        return reduction(windows.permute(0, 1, 3, 4, 2), dim=0).permute(0, 3, 1, 2)
    return reduction(windows, dim=0)


class _Split(torch.autograd.Function):
    """[..., H, W] -> [window, ..., OH, OW]; the transpose of ``_Merge``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, geometry: Geometry) -> Tensor:
        ctx.geometry = geometry
        return _split(x, geometry, 0.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Merge.apply(grad, ctx.geometry), None


class _Merge(torch.autograd.Function):
    """[window, ..., OH, OW] -> [..., H, W], adding where windows overlap."""

    @staticmethod
    def forward(ctx: Any, windows: Tensor, geometry: Geometry) -> Tensor:
        ctx.geometry = geometry
        return _merge(windows, geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Split.apply(grad, ctx.geometry), None


class _LogSumExpPool(torch.autograd.Function):
    """(pooled value, softmax weights of the windows), differentiable any number of times."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, beta: float | Tensor, geometry: Geometry
    ) -> tuple[Tensor, Tensor]:
        weights = _split(x, geometry, -torch.inf)
        peak = _over(weights, torch.amax)
        weights.sub_(peak).mul_(beta).clamp_(min=_TAIL).exp_()
        total = _over(weights, torch.sum)
        weights.div_(total)
        ctx.beta, ctx.geometry = beta, geometry
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weights)
        return peak.add_(total.log_().div_(beta)), weights

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor | None, grad_weights: Tensor | None) -> Any:
        (weights,) = ctx.saved_tensors
        windows = None
        if grad_value is not None:
            windows = weights * grad_value
        if grad_weights is not None:
            weighted = weights * grad_weights
            curved = (
                torch.addcmul(weighted, weights, _over(weighted, torch.sum), value=-1) * ctx.beta
            )
            windows = curved if windows is None else windows + curved
        grad = None
        if windows is not None:
            grad = _Merge.apply(windows, ctx.geometry)
        return grad, None, None


def smooth_max_pool2d(
    x: Tensor,
    beta: float | Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Log-sum-exp in place of ``max_pool2d``, with its arguments.

    Args:
        x: [B, C, H, W] or [C, H, W].
        beta: positive, a float or a 0-dim tensor; the larger, the closer to the maximum.
        kernel_size: as for ``torch.nn.functional.max_pool2d``, and so are the rest.
        stride: the kernel size if not given.
        padding: padded places take no weight.
        dilation: distance of the places within a window.
        ceil_mode: whether a last, incomplete window counts.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(
            smooth_max_pool2d, (x,), x, beta, kernel_size, stride, padding, dilation, ceil_mode
        )
    geometry = _geometry(x, kernel_size, stride, padding, dilation, ceil_mode)
    value, _ = _LogSumExpPool.apply(x, beta, geometry)
    return value
