"""Which activations cannot be negative, read off the record.

What is listed here saves time only: a rule that is not told that its inputs cannot be negative
takes both signs into account, and comes to the same map where none is negative.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.arithmetic import ADDITIONS
from trompe.engine.decompose import hard_sigmoid
from trompe.engine.inplace import set_item
from trompe.engine.pytree import tensors_in
from trompe.engine.softplus import softplus
from trompe.engine.surrogates import smooth_abs, smooth_hard_sigmoid, smooth_minimum
from trompe.engine.tape import OpCall, Tape
from trompe.rules.general import MOVING
from trompe.rules.passing import AVERAGES, MAXIMA, STRUCTURE

_NONNEGATIVE = frozenset(
    {
        *(F.relu, torch.relu, Tensor.relu, softplus, F.softplus, F.relu6, torch.sigmoid),
        *(Tensor.sigmoid, F.sigmoid, F.softmax, torch.softmax, Tensor.softmax, torch.exp),
        *(hard_sigmoid, smooth_hard_sigmoid, torch.square, Tensor.square, torch.abs, Tensor.abs),
        *(smooth_abs, Tensor.exp),
    }
)
_KEEPS = frozenset({*STRUCTURE, *MAXIMA, *AVERAGES, *MOVING}) - {smooth_minimum}
_JOINS = frozenset({*ADDITIONS, torch.mul, Tensor.mul, Tensor.__mul__})
_FILLED = {
    F.pad: (3, "value"),
    set_item: (2, "value"),
    **dict.fromkeys((torch.masked_fill, Tensor.masked_fill), (2, "value")),
    **dict.fromkeys((torch.where, Tensor.where), (2, "other")),
}
"""Where a number stands that these write beside what they move."""


def _numbers(op: OpCall) -> list[float]:
    """The numbers that an operation adds to, multiplies with, or writes beside what it is given."""
    if op.func in _FILLED:
        given = [op.argument(*_FILLED[op.func])]
        if op.func in (torch.where, Tensor.where):
            given.append(op.argument(1, "input"))
    else:
        given = [*op.args, *op.kwargs.values()] if op.func in _JOINS else []
    return [value for value in given if isinstance(value, (int, float))]


def _nonnegative(op: OpCall, known: set[int]) -> bool:
    """Whether the outputs cannot be negative, given the tensors that cannot."""
    if op.func in _NONNEGATIVE:
        return True
    if "clamp" in op.func.__name__ or "hardtanh" in op.func.__name__:
        low = op.argument(1, "min", op.argument(1, "min_val", op.kwargs.get("low")))
        if op.func.__name__ == "smooth_hardtanh":
            low = op.argument(2, "low", -1.0)
        return isinstance(low, (int, float)) and low >= 0
    if op.func not in _KEEPS and op.func not in _JOINS:
        return False
    floating = sum(tensor.is_floating_point() for tensor in tensors_in(op.args, op.kwargs))
    if floating != len(op.edges) or not _given(op, known):
        return False
    return all(number >= 0 for number in _numbers(op))


def _given(op: OpCall, known: set[int]) -> bool:
    """Whether an operation takes nothing that may be negative."""
    return bool(op.edges) and all(id(tensor) in known for tensor, _ in op.edges)


def mark_nonnegative(tape: Tape) -> None:
    """Note in each operation whether its inputs cannot be negative."""
    known: set[int] = set()
    for op in tape.calls:
        op.notes.nonnegative = _given(op, known) and op.notes.shift is None
        if _nonnegative(op, known):
            known.update(id(tensor) for tensor in op.outputs)
