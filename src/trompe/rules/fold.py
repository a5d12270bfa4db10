"""What follows a linear operation and is affine per channel, folded into it on the fly.

A batch norm in evaluation mode, a constant that is added, a factor: ``h @ W + b`` is the linear
layer that ``F.linear(h, W.T, b)`` is, and a batch norm that somebody has written out is a batch
norm. A rule that asks for the bias must find the same one in each spelling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.arithmetic import (
    ADDITIONS,
    DIFFERENCES,
    FACTORS,
    NEGATIONS,
    QUOTIENTS,
    REVERSED_DIFFERENCES,
)
from trompe.engine.calls import users_of
from trompe.engine.sweep import vjp
from trompe.engine.tape import OpCall, Tape
from trompe.rules.linear import LINEAR, memo, output_axis

MOVES = frozenset(
    {
        *(torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze),
        *(torch.unsqueeze, torch.movedim, torch.moveaxis, torch.swapaxes, torch.swapdims, torch.t),
        *(Tensor.flatten, Tensor.reshape, Tensor.permute, Tensor.transpose, Tensor.squeeze),
        *(Tensor.unsqueeze, Tensor.movedim, Tensor.moveaxis, Tensor.swapaxes, Tensor.swapdims),
        *(Tensor.t, Tensor.view, Tensor.contiguous, Tensor.clone, torch.clone, torch.unflatten),
        *(Tensor.unflatten, F.dropout, F.dropout1d, F.dropout2d),
        *(Tensor.T.__get__, Tensor.mT.__get__),  # type: ignore[attr-defined]
    }
)
"""What only moves values: its vector-Jacobian product moves them back."""
AFFINE = frozenset(
    {*ADDITIONS, *DIFFERENCES, *REVERSED_DIFFERENCES, *FACTORS, *QUOTIENTS, *NEGATIONS}
)
"""What may multiply an activation by constants, or add them."""


class Affine(NamedTuple):
    """``factor x + shift`` of an operation on one activation.

    Args:
        factor: what multiplies it: a number, a tensor that broadcasts to it, or 1.
        shift: what is added; likewise.
    """

    factor: Tensor | float = 1.0
    shift: Tensor | float = 0.0


class _End(NamedTuple):
    """Where a linear operation ends, so far.

    Args:
        root: the linear operation.
        moves: what has moved its output since.
    """

    root: OpCall
    moves: tuple[OpCall, ...] = ()


def _slope(op: OpCall) -> Tensor:
    """What a batch norm multiplies each channel by, [C]."""
    variance: Tensor = op.argument(2, "running_var")
    weight: Tensor | None = op.argument(3, "weight")
    eps = op.argument(7, "eps", 1e-5)
    if weight is None:
        return memo(variance, f"factor {eps}", lambda v: torch.rsqrt(v + eps))
    if weight.requires_grad:
        return torch.rsqrt(variance + eps) * weight
    key = f"factor {eps} {id(weight)} {weight._version}"
    return memo(variance, key, lambda v: torch.rsqrt(v + eps) * weight, weight)


def affine(op: OpCall) -> Affine | None:
    """What an operation on one activation and constants multiplies and adds, if no more."""
    if len(op.edges) != 1 or len(op.outputs) != 1 or op.out.shape != op.edges[0][1].shape:
        return None
    if op.func in NEGATIONS:
        return Affine(-1.0)
    x, first, second = op.edges[0][1], op.argument(0, "input"), op.argument(1, "other")
    leads = first is x
    constant = second if leads else first
    if not leads and second is not x:
        return None
    if op.func in FACTORS:
        return Affine(constant)
    if op.func in QUOTIENTS:
        if not leads or op.kwargs.get("rounding_mode") is not None:
            return None
        return Affine(1 / constant) if isinstance(constant, Tensor) or constant else None
    alpha = op.argument(2, "alpha", 1)
    if op.func in ADDITIONS:
        return Affine(1.0, constant * alpha) if leads else Affine(alpha, constant)
    if op.func in DIFFERENCES:
        return Affine(1.0, -constant * alpha) if leads else Affine(-alpha, constant)
    if op.func in REVERSED_DIFFERENCES:
        return Affine(-alpha, constant) if leads else Affine(1.0, -constant * alpha)
    return None


def fold(tape: Tape) -> None:
    """Give each linear operation what follows it, alone takes its output, and is affine.

    The linear operation notes the followers, which themselves pass relevance on unchanged. The
    model is not touched. A factor must be one number per channel, what is added may have any shape,
    and stand behind operations that only move values.
    """
    users = users_of(tape.calls)
    linear: dict[int, _End] = {}  # by what it returns
    for op in tape.calls:
        if op.func in LINEAR:
            linear[id(op.out)] = _End(op)
            continue
        norm = op.func is F.batch_norm and not op.argument(5, "training", False)
        if norm:
            op.notes.slope = _slope(op)
        elif op.func not in AFFINE and op.func not in MOVES:
            continue
        source = op.edges[0][0]
        end = linear.get(id(source)) if users[id(source)] == 1 else None
        if end is None:
            continue
        if op.func in MOVES:
            linear[id(op.out)] = _End(end.root, (*end.moves, op))
        elif (norm and not end.moves and not _other_channels(end.root)) or (
            not norm and _noted(op, end)
        ):
            op.notes.folded = True
            op.notes.moves = end.moves
            end.root.notes.after = (*end.root.notes.after, op)
            linear[id(op.out)] = end


def _noted(op: OpCall, end: _End) -> bool:
    """Note the factor, [C], and the addend of an affine operation; whether it has such."""
    found = affine(op)
    if found is None:
        return False
    factor = found.factor
    if isinstance(factor, Tensor) or factor != 1:
        if end.moves and isinstance(factor, Tensor):
            factor = _cut(moved_back(factor.expand(op.out.shape), end.moves))
        slope = _per_channel(factor, end.root)
        if slope is None:
            return False
        op.notes.slope = slope
    op.notes.addend = found.shift
    return True


def moved_back(values: Tensor, moves: Sequence[OpCall]) -> Tensor:
    """Values behind some moves, as they lie in what was moved."""
    for move in reversed(moves):
        (moved,) = vjp(values, move)
        assert moved is not None  # of an operation that only moves values
        values = moved
    return values


def _cut(factor: Tensor) -> Tensor:
    """A factor that was expanded, of size 1 where it was, which strides tell if nothing copied."""
    for dim, (size, stride) in enumerate(zip(factor.shape, factor.stride(), strict=True)):
        if size > 1 and stride == 0:
            factor = factor.narrow(dim, 0, 1)
    return factor


def _per_channel(factor: Tensor | float, root: OpCall) -> Tensor | None:
    """A factor as one number for each channel of the weight; ``None`` if it is more than that."""
    weight: Tensor = root.argument(1, "weight")
    axis = output_axis(root)
    count = weight.shape[axis]
    if not isinstance(factor, Tensor):
        return weight.new_full((count,), float(factor))
    place = root.out.dim() - 1 if root.func is F.linear else root.out.dim() - weight.dim() + 1
    place -= root.out.dim() - factor.dim()
    if any(size != 1 for dim, size in enumerate(factor.shape) if dim != place):
        return None
    if factor.numel() not in (1, count):
        return None
    return factor.reshape(-1).to(root.out.dtype).expand(count)


def _other_channels(op: OpCall) -> bool:
    """Whether the channels that a batch norm scales are no dimension of the weight."""
    if op.func is F.linear:
        return op.out.dim() > 2  # [B, T, C]: the batch norm scales the places
    return "transpose" in op.func.__name__ and op.argument(6, "groups", 1) != 1


def fold_before(tape: Tape) -> None:
    """Fold each remaining batch norm into the linear operation that alone takes its output.

    A linear operation of ``a x + c`` is one of ``a x`` whose bias is larger by what it makes of
    c. The shift c stands in its notes; the factor a is elementwise, and relevance passes it.
    """
    left = [op for op in tape.calls if op.func is F.batch_norm and not op.notes.folded]
    left = [op for op in left if op.notes.slope is not None]
    if not left:
        return
    users = users_of(tape.calls)
    takers = {id(op.edges[0][0]): op for op in tape.calls if op.func in LINEAR and op.edges}
    for op in left:
        slope = op.notes.slope
        taker = takers.get(id(op.out))
        if taker is None or users[id(op.out)] != 1 or (taker.func is F.linear and op.out.dim() > 2):
            continue
        assert slope is not None  # those without one were left out
        shift = -op.argument(1, "running_mean") * slope
        bias: Tensor | None = op.argument(4, "bias")
        taker.notes.gain = slope
        taker.notes.shift = shift if bias is None else shift + bias
        op.notes.folded = True
