"""The z_B rule for inputs within a box (Montavon et al. 2017, equation 15)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.tape import OpCall
from trompe.errors import UsageError
from trompe.rules.affine import checked
from trompe.rules.linear import (
    apply,
    input_of,
    memo,
    negative,
    positive,
    transposed,
    transposed_pair,
    weight_of,
)
from trompe.rules.passing import away

_SLACK = 4  # rounding errors by which a black pixel may lie outside, and keep its derivative


@dataclass(frozen=True)
class ZBox:
    """``R_i = sum_j (x_i w_ij - l_i w+_ij - h_i w-_ij) R_j / sum_i (...)``.

    The bounds l and h are those of the input space, carried through what the model does to the
    image before the layer (``trompe.rules.input_box``). Within them no contribution is negative, so
    that the rule returns at most what it was given; an input outside counts as the nearest within.

    Args:
        stabiliser: Added to denominators.

    Raises:
        UsageError: When called, for a layer that does not see the input.
    """

    stabiliser: float = 1e-6

    def __call__(self, relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
        """See ``trompe.engine.sweep.Rule``."""
        checked(op)
        if op.notes.bounds is None:
            raise UsageError(
                f"z_B at call {op.index} ({op.name}): its input has no bounds, as only the first "
                "layers of a network have; give another rule for the others"
            )
        low, high = op.notes.bounds
        x, weight = input_of(op), weight_of(op)
        lowest, highest = _widened(low, low, high), _widened(high, low, high)
        # As torch.clamp, whose derivative by tensors loses the layout of the image.
        inside = (x >= lowest) & (x <= highest)
        x = torch.where(inside, x, torch.clamp(x, lowest, highest).detach())
        channelwise = _channelwise(low, op) and _channelwise(high, op)
        share = _by_channel if channelwise else _by_place
        return [share(relevance, op, x, weight, self.stabiliser)]


def _widened(bound: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The lower or the upper bound, moved outwards by what rounding may come to."""
    outwards = -1.0 if bound is low else 1.0

    def make(bound: Tensor) -> Tensor:
        slack = _SLACK * torch.finfo(bound.dtype).eps * torch.maximum(low.abs(), high.abs())
        return bound + outwards * slack

    return memo(bound, f"widened {id(low)} {id(high)}", make, low, high)


def _channel(op: OpCall) -> int:
    """The dimension of an operation's input that its weight mixes, counted from the end."""
    return -1 if op.func is F.linear else -int(op.func.__name__[-2]) - 1


def _channelwise(bound: Tensor, op: OpCall) -> bool:
    """Whether a bound is one number, or one per channel."""
    axis = _channel(op)
    return bound.numel() == 1 or bound.numel() == bound.shape[axis]


def _per_weight(bound: Tensor, op: OpCall, weight: Tensor) -> Tensor:
    """The bound of the input that each weight [out, in / groups, ...] is multiplied by."""
    if bound.numel() == 1:
        return bound.reshape(())
    bound = bound.flatten()
    shape = [1] * (weight.dim() - 2)
    if "transpose" in op.func.__name__:  # [in, out / groups, ...]
        return bound.view(-1, 1, *shape)
    groups = bound.numel() // weight.shape[1]
    rows = bound.view(groups, -1).repeat_interleave(weight.shape[0] // groups, dim=0)
    return rows.view(*rows.shape, *shape)


def _by_channel(
    relevance: Tensor, op: OpCall, x: Tensor, weight: Tensor, stabiliser: float
) -> Tensor:
    """With bounds that are the same at all places: they are folded into the weight."""
    assert op.notes.bounds is not None  # the caller has checked
    low, high = op.notes.bounds

    def corner(original: Tensor) -> Tensor:
        up, down = (_per_weight(bound, op, original) for bound in (low, high))
        return up * original.clamp(min=0) + down * original.clamp(max=0)

    bound_weight = memo(weight, f"corner {id(low)} {id(high)}", corner, low, high)

    def offset(_: Tensor) -> Tensor:
        # What the lowest input of each sum gives: the same for all images, and for all steps.
        like = x if x.dim() < weight.dim() else x[:1]  # without, or with a batch
        return apply(op, torch.ones_like(like).detach(), bound_weight)

    settings = {k: v for k, v in op.kwargs.items() if not isinstance(v, Tensor)}
    key = f"offset {tuple(x.shape[1:])} {op.args[3:]} {settings}"
    z = away(apply(op, x, weight) - memo(bound_weight, key, offset), stabiliser)
    of_x, of_bound = transposed_pair(op, relevance / z, weight, bound_weight)
    return x * of_x - of_bound


def _by_place(
    relevance: Tensor, op: OpCall, x: Tensor, weight: Tensor, stabiliser: float
) -> Tensor:
    """With bounds that differ from place to place, as where the image was padded."""
    assert op.notes.bounds is not None  # the caller has checked
    low, high = (bound.expand_as(x) for bound in op.notes.bounds)
    up, down = weight_of(op, positive), weight_of(op, negative)
    z = away(apply(op, x, weight) - apply(op, low, up) - apply(op, high, down), stabiliser)
    share = relevance / z
    corner = low * transposed(op, share, up) + high * transposed(op, share, down)
    return x * transposed(op, share, weight) - corner
