"""Rules of operations without weights: what moves, selects, averages or adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.inplace import copied, overlaid, set_item
from trompe.engine.pooling import smooth_max_pool2d
from trompe.engine.softplus import softplus
from trompe.engine.sweep import Rule, vjp
from trompe.engine.tape import OpCall
from trompe.errors import UnsupportedOp

STABILISER = 1e-9
"""Added to denominators, as in the reference implementation."""


def identity(relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
    """Relevance passes an elementwise operation unchanged (activations, constant factors)."""
    shares: list[Tensor | None] = [None] * len(op.edges)
    for i, (_, alias) in enumerate(op.edges):
        if alias.shape == op.out.shape:
            shares[i] = relevance
            break
    return shares


def passed(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """All relevance to the first input, summed over copies where it was broadcast."""
    first = op.edges[0][1]
    share = relevance if relevance.shape == first.shape else relevance.sum_to_size(first.shape)
    return [share, *[None] * (len(op.edges) - 1)]


def cuts_the_negative(low: Any, high: Any) -> bool:
    """Whether a clamp to these bounds is a ReLU."""
    return high is None and not isinstance(low, Tensor) and low == 0


def clamped(relevance: Any, op: OpCall) -> Sequence[Tensor | None]:
    """A clamp at zero is a ReLU, one to an interval a hard tanh; a lone other bound has no rule."""
    low, high = op.argument(1, "min"), op.argument(2, "max")
    if not cuts_the_negative(low, high) and (low is None or high is None):
        place = op.place or f"call {op.index}"
        raise UnsupportedOp(op.name, place, "lrp", "at another bound than zero has no rule")
    return identity(relevance, op)


_HALF = 1e-6
"""The least denominator in float16, to which a number below 3e-8 is zero."""


def stabilised(z: Tensor, epsilon: float = STABILISER) -> Tensor:
    """``z`` moved away from zero by epsilon, keeping its sign."""
    if z.dtype == torch.float16:
        return _in_half(z, epsilon * torch.where(z >= 0, 1.0, -1.0).to(z.dtype))
    return z + epsilon * torch.where(z >= 0, 1.0, -1.0).to(z.dtype)


def away(z: Tensor, epsilon: float = STABILISER) -> Tensor:
    """``z``, a sum of nothing negative, moved away from zero by epsilon."""
    return _in_half(z, epsilon) if z.dtype == torch.float16 else z + epsilon


def _in_half(z: Tensor, epsilon: Tensor | float) -> Tensor:
    """The same in float16; infinite where z is next to nothing, so that what is divided is zero.

    A relevance of 0.1 over the least denominator is more than float16 holds, and infinity times a
    contribution of zero is no number; in a wider type such a product is zero.
    """
    return torch.where(z.abs() < _HALF, torch.inf, z + epsilon)


def _all(rule: Rule, *functions: Callable[..., Any]) -> dict[Callable[..., Any], Rule]:
    return dict.fromkeys(functions, rule)


ACTIVATIONS = {
    **_all(identity, F.relu, torch.relu, Tensor.relu, softplus),
    **_all(clamped, torch.clamp, torch.clamp_min, Tensor.clamp, Tensor.clamp_min),
}
"""Activations that keep the sign or cut the negative."""

STRUCTURE = _all(
    vjp,
    *(torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze),
    *(torch.unsqueeze, torch.cat, torch.concat, torch.stack, torch.chunk, torch.split),
    *(torch.unbind, torch.movedim, torch.narrow, torch.clone),
    *(Tensor.flatten, Tensor.reshape, Tensor.view, Tensor.permute, Tensor.transpose),
    *(Tensor.squeeze, Tensor.unsqueeze, Tensor.chunk, Tensor.split, Tensor.unbind),
    *(Tensor.contiguous, Tensor.clone, Tensor.__getitem__, Tensor.narrow, Tensor.to),
    *(Tensor.float, Tensor.double, Tensor.expand, Tensor.unflatten, Tensor.swapaxes),
    *(F.dropout, F.dropout2d, F.pad, torch.pixel_shuffle, F.channel_shuffle),
    *(set_item, copied, overlaid, Tensor.as_strided),
)
"""Operations that move values: their vector-Jacobian product moves relevance the same way."""

MAXIMA = _all(
    vjp,
    *(F.max_pool2d, torch.max_pool2d, F.max_pool1d, smooth_max_pool2d, torch.max_pool1d),
    *(F.adaptive_max_pool2d, torch.amax, Tensor.amax, F.max_pool1d_with_indices),
    *(F.max_pool2d_with_indices, F.max_pool3d_with_indices),
)
"""The winner takes all of a maximum, softmax shares of a smooth one."""

ADAPTIVE = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
AVERAGES = (
    *ADAPTIVE,
    torch.adaptive_avg_pool1d,
    F.avg_pool1d,
    F.avg_pool2d,
    F.avg_pool3d,
    torch.avg_pool1d,
    torch.mean,
    Tensor.mean,
    torch.sum,
    Tensor.sum,
)
"""Averages and sums over places or channels."""
