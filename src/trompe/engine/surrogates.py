"""Smooth stand-ins for functions with a kink; each tends to its original as beta grows.

All are made of softplus (``softplus_b(z) -> max(z, 0)``) or of log-sum-exp over windows. Each is
one operation in a record, so that rules can name it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from trompe.engine.pooling import smooth_max_pool2d
from trompe.engine.soft_clamp import soft_clamp
from trompe.engine.softplus import softplus

Arguments = ParamSpec("Arguments")
Beta = float | Tensor


def one_operation(function: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """Make ``function`` appear in records as a whole, as the functions of PyTorch do."""

    @functools.wraps(function)
    def whole(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        tensors = tuple(value for value in args if isinstance(value, Tensor))
        if has_torch_function(tensors):
            return handle_torch_function(whole, tensors, *args, **kwargs)
        return function(*args, **kwargs)

    return whole


@one_operation
def smooth_hardtanh(x: Tensor, beta: Beta, low: float = -1.0, high: float = 1.0) -> Tensor:
    """``clamp(x, low, high)``, of which ReLU6 is a case."""
    if isinstance(low, Tensor) or isinstance(high, Tensor):  # bounds of a clamp per channel, say
        return low + softplus(x - low, beta) - softplus(x - high, beta)
    return soft_clamp(x, beta, low, high)


@one_operation
def smooth_hard_sigmoid(x: Tensor, beta: Beta) -> Tensor:
    """``clamp(x / 6 + 1 / 2, 0, 1)``."""
    return (softplus(x + 3, beta) - softplus(x - 3, beta)) / 6


@one_operation
def smooth_hard_swish(x: Tensor, beta: Beta) -> Tensor:
    """``x clamp(x / 6 + 1 / 2, 0, 1)``."""
    return x * smooth_hard_sigmoid(x, beta)


@one_operation
def smooth_leaky_relu(x: Tensor, beta: Beta, slope: float | Tensor = 0.01) -> Tensor:
    """``x`` above zero, ``slope x`` below; the slope a number, or per channel (PReLU)."""
    if isinstance(slope, Tensor) and slope.numel() > 1:
        slope = slope.view(-1, *[1] * (x.dim() - 2)) if x.dim() > 1 else slope
    return slope * x + (1 - slope) * softplus(x, beta)


@one_operation
def smooth_elu(x: Tensor, beta: Beta, alpha: float = 1.0, scale: float = 1.0) -> Tensor:
    """``scale x`` above zero, ``scale alpha (exp(x) - 1)`` below (ELU, SELU)."""
    above = softplus(x, beta)
    return scale * (above + alpha * torch.expm1(x - above))


@one_operation
def smooth_celu(x: Tensor, beta: Beta, alpha: float = 1.0) -> Tensor:
    """``x`` above zero, ``alpha (exp(x / alpha) - 1)`` below."""
    above = softplus(x, beta)
    return above + alpha * torch.expm1((x - above) / alpha)


@one_operation
def smooth_threshold(x: Tensor, beta: Beta, threshold: float) -> Tensor:
    """``max(x, threshold)``."""
    return threshold + softplus(x - threshold, beta)


@one_operation
def smooth_upper_bound(x: Tensor, beta: Beta, bound: float) -> Tensor:
    """``min(x, bound)``."""
    return bound - softplus(bound - x, beta)


@one_operation
def smooth_softshrink(x: Tensor, beta: Beta, width: float = 0.5) -> Tensor:
    """``x`` moved towards zero by ``width``, and zero in between."""
    return softplus(x - width, beta) - softplus(-x - width, beta)


@one_operation
def smooth_abs(x: Tensor, beta: Beta) -> Tensor:
    """``|x|``."""
    return softplus(x, beta) + softplus(-x, beta)


@one_operation
def smooth_maximum(x: Tensor, other: Tensor, beta: Beta) -> Tensor:
    """``max(x, other)``, elementwise."""
    return other + softplus(x - other, beta)


@one_operation
def smooth_minimum(x: Tensor, other: Tensor, beta: Beta) -> Tensor:
    """``min(x, other)``, elementwise."""
    return x - softplus(x - other, beta)


@one_operation
def smooth_amax(x: Tensor, beta: Beta, dim: Any, keepdim: bool = False) -> Tensor:
    """The maximum over one dimension or several, as log-sum-exp."""
    return torch.logsumexp(x * beta, dim, keepdim) / beta


@one_operation
def smooth_amin(x: Tensor, beta: Beta, dim: Any, keepdim: bool = False) -> Tensor:
    """The minimum over one dimension or several, as log-sum-exp."""
    return -torch.logsumexp(x * -beta, dim, keepdim) / beta


def smooth_max_and_where(x: Tensor, beta: Beta, dim: int, keepdim: bool = False) -> Any:
    """``max(x, dim)``: smooth values beside the indices of the winners."""
    values = smooth_amax(x, beta, dim, keepdim)
    return torch.return_types.max((values, x.argmax(dim, keepdim)))  # type: ignore[arg-type]


def smooth_min_and_where(x: Tensor, beta: Beta, dim: int, keepdim: bool = False) -> Any:
    """``min(x, dim)``: smooth values beside the indices of the winners."""
    values = smooth_amin(x, beta, dim, keepdim)
    return torch.return_types.min((values, x.argmin(dim, keepdim)))  # type: ignore[arg-type]


@one_operation
def smooth_choice(x: Tensor, beta: Beta, bound: Any, above: Any, below: Any) -> Tensor:
    """``where(x > bound, above, below)``: the two values mixed by ``sigmoid(beta (x - bound))``."""
    far = (x - bound) * beta
    # Each weighted on its own: the one not chosen may be as large as exp(40), and would round off
    # the other in a difference of both.
    return torch.sigmoid(far) * above + torch.sigmoid(-far) * below


@one_operation
def smooth_hardshrink(x: Tensor, beta: Beta, width: float = 0.5) -> Tensor:
    """``x`` where it is farther from zero than ``width``, else zero."""
    return x * (torch.sigmoid((x - width) * beta) + torch.sigmoid((-x - width) * beta))


@one_operation
def smooth_max_pool1d(
    x: Tensor,
    beta: Beta,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Log-sum-exp in place of ``max_pool1d``, with its arguments."""
    steps = kernel_size if stride is None or stride == [] else stride
    settings = ((1, _one(kernel_size)), (1, _one(steps)), (0, _one(padding)), (1, _one(dilation)))
    return smooth_max_pool2d(x.unsqueeze(-2), beta, *settings, ceil_mode).squeeze(-2)


@one_operation
def smooth_max_pool3d(
    x: Tensor,
    beta: Beta,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Log-sum-exp in place of ``max_pool3d``: over height and width, then over depth."""
    steps = kernel_size if stride is None or stride == [] else stride
    kernel, step, pad, dilated = (_three(v) for v in (kernel_size, steps, padding, dilation))
    flat = smooth_max_pool2d(
        x.flatten(-4, -3), beta, kernel[1:], step[1:], pad[1:], dilated[1:], ceil_mode
    )
    depth = flat.unflatten(-3, x.shape[-4:-2]).movedim(-3, -1)
    pooled = smooth_max_pool2d(
        depth.flatten(-4, -3),
        beta,
        (1, kernel[0]),
        (1, step[0]),
        (0, pad[0]),
        (1, dilated[0]),
        ceil_mode,
    )
    return pooled.unflatten(-3, depth.shape[-4:-2]).movedim(-1, -3)


@one_operation
def smooth_adaptive_max_pool(x: Tensor, beta: Beta, output_size: Any, dims: int) -> Tensor:
    """Log-sum-exp in place of ``adaptive_max_pool{1, 2, 3}d``, one dimension after the other."""
    sizes = [output_size] * dims if isinstance(output_size, int) else list(output_size)
    out = x * beta
    for position, size in enumerate(sizes):
        axis = position - dims
        length = out.shape[axis]
        if size is None or size == length:
            continue
        windows = [
            out.narrow(axis, i * length // size, -(-(i + 1) * length // size) - i * length // size)
            for i in range(size)
        ]
        out = torch.stack([window.logsumexp(axis) for window in windows], dim=axis)
    return out / beta


def _one(value: int | Sequence[int]) -> int:
    return value if isinstance(value, int) else int(value[0])


def _three(value: int | Sequence[int]) -> tuple[int, int, int]:
    values = [value] * 3 if isinstance(value, int) else [int(v) for v in value]
    return values[0], values[-2], values[-1]
