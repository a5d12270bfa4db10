"""Which activations cannot be negative, read off the record."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from trompe.engine.decompose import hard_sigmoid
from trompe.engine.softplus import softplus
from trompe.engine.surrogates import smooth_abs, smooth_hard_sigmoid
from trompe.engine.tape import OpCall, Tape
from trompe.rules.linear import LINEAR
from trompe.rules.passing import POOLINGS, STRUCTURE

_NONNEGATIVE = frozenset(
    {
        *(F.relu, torch.relu, Tensor.relu, softplus, F.softplus, F.relu6, torch.sigmoid),
        *(Tensor.sigmoid, F.sigmoid, F.softmax, torch.softmax, Tensor.softmax, torch.exp),
        *(hard_sigmoid, smooth_hard_sigmoid, torch.square, Tensor.square, torch.abs, Tensor.abs),
        *(smooth_abs, Tensor.exp),
    }
)
_KEEPS = frozenset({*STRUCTURE, *POOLINGS, torch.roll, F.max_pool3d, F.avg_pool3d})
_JOINS = frozenset({torch.add, Tensor.add, Tensor.__add__, torch.mul, Tensor.mul, Tensor.__mul__})


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
    tensors = [leaf for leaf in tree_leaves((op.args, op.kwargs)) if isinstance(leaf, Tensor)]
    floating = sum(tensor.is_floating_point() for tensor in tensors)
    if floating != len(op.edges) or not all(id(tensor) in known for tensor, _ in op.edges):
        return False
    numbers = [leaf for leaf in tree_leaves((op.args, op.kwargs)) if isinstance(leaf, (int, float))]
    return op.func not in _JOINS or all(number >= 0 for number in numbers)


def mark_nonnegative(tape: Tape) -> None:
    """Note in each linear operation whether its input cannot be negative."""
    known: set[int] = set()
    for op in tape.calls:
        if op.func in LINEAR and op.edges:
            op.notes["nonnegative"] = id(op.edges[0][0]) in known and "shift" not in op.notes
        elif _nonnegative(op, known):
            known.update(id(tensor) for tensor in op.outputs)


def mark_signed(tape: Tape) -> None:
    """As ``mark_nonnegative``, and note where an input may be negative."""
    mark_nonnegative(tape)
    for op in tape.calls:
        if op.func in LINEAR and op.edges and not op.notes["nonnegative"]:
            op.notes["signed"] = True
