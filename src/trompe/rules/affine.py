"""A linear operation with what is folded into it: its input, its bias, its output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.tape import OpCall
from trompe.errors import UnsupportedOp
from trompe.rules.fold import moved_back
from trompe.rules.linear import apply, bias_of, input_of


def channels(vector: Tensor, op: OpCall, like: Tensor) -> Tensor:
    """A vector with one number per channel, of a shape that broadcasts to ``like``."""
    if op.func is F.linear:
        return vector
    dims = int(op.func.__name__[-2])  # conv2d: two
    lead = [1] if like.dim() == dims + 2 else []
    return vector.view(*lead, -1, *[1] * dims)


def checked(op: OpCall) -> None:
    """Refuse weights that depend on the input.

    Raises:
        UnsupportedOp: if relevance would have to go to the weights as well.
    """
    given = op.args[0] if op.args else op.kwargs.get("input")
    if len(op.edges) != 1 or op.edges[0][1] is not given:
        place = op.place or f"call {op.index}"
        raise UnsupportedOp(op.name, place, "lrp", "has weights that depend on the input: no rule")


def centred(op: OpCall) -> Tensor:
    """The input, less the shift of a batch norm folded in from before."""
    checked(op)
    x = input_of(op)
    shift = op.notes.shift
    return x if shift is None else x - channels(shift, op, x)


def whole_bias(op: OpCall, weight: Tensor) -> Tensor | None:
    """All that is added to the sums: the bias, and what is folded in adds.

    Args:
        op: the operation.
        weight: its weight, the factors of what follows folded in.
    """
    bias = bias_of(op)
    total = None if bias is None else channels(bias, op, op.out)
    for follower in op.notes.after:
        total = _followed(total, follower, op)
    before = op.notes.shift
    if before is None:
        return total
    x = input_of(op)
    constant = channels(before, op, x).expand(x.shape if x.dim() < 2 else (1, *x.shape[1:]))
    brought = apply(op, constant, weight)
    return brought if total is None else total + brought


def _followed(total: Tensor | None, follower: OpCall, op: OpCall) -> Tensor | None:
    """What is added to the sums, after one of the operations folded in from behind."""
    slope, addend = follower.notes.slope, follower.notes.addend
    if follower.func is F.batch_norm:
        mean = channels(follower.argument(1, "running_mean"), op, op.out)
        total = -mean if total is None else total - mean
        bias: Tensor | None = follower.argument(4, "bias")
        addend = 0.0 if bias is None else channels(bias, op, op.out)
    elif follower.notes.moves:
        addend = _moved_back(torch.as_tensor(addend).to(op.out), follower)
    if total is None:
        return addend if isinstance(addend, Tensor) else op.out.new_tensor(addend)
    return (total if slope is None else total * channels(slope, op, op.out)) + addend


def outcome(op: OpCall) -> Tensor:
    """The output, after what is folded in from behind."""
    if not op.notes.after:
        return op.out
    last = op.notes.after[-1]
    return _moved_back(last.out, last)


def _moved_back(values: Tensor, follower: OpCall) -> Tensor:
    """Values at a follower, as they lie in the output of the linear operation."""
    return moved_back(values.expand(follower.out.shape), follower.notes.moves)


def plus(z: Tensor, bias: Tensor | None) -> Tensor:
    """``z + bias``."""
    return z if bias is None else z + bias


def named(name: str, part: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``part`` under a name by which its values are kept (``trompe.rules.linear.Memo``)."""

    def function(weight: Tensor) -> Tensor:
        return part(weight)

    function.__name__ = name
    return function


def sum_to(share: Tensor, shape: Any) -> Tensor:
    """The share of an input that was broadcast: summed over the copies."""
    if share.shape == shape:
        return share
    return share.sum_to_size(shape)
