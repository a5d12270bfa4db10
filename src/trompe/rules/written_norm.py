"""Normalisations that are written out: the bias behind one, and batch norms after no linear layer.

``F.layer_norm(h, shape) * w + b`` is ``F.layer_norm(h, shape, w, b)``, and a factor and an addend
per channel of feature maps are a batch norm with running statistics. What is added is then the bias
of the normalisation, which takes its share as there.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.arithmetic import ADDITIONS
from trompe.engine.calls import users_of
from trompe.engine.tape import OpCall, Tape
from trompe.rules.fold import AFFINE, MOVES, affine, moved_back
from trompe.rules.linear import LINEAR
from trompe.rules.passing import STRUCTURE

_NORMS = frozenset({F.layer_norm, F.group_norm, F.batch_norm})
"""What makes deviations from a mean of its input, whose rule counts the bias."""


_JOINS = frozenset({*STRUCTURE, *ADDITIONS, torch.sum, Tensor.sum})


class _Chain(NamedTuple):
    """Factors and addends, one per channel, that follow each other.

    Args:
        calls: the operations.
        slope: what they multiply each channel by, that broadcasts to the activation.
        shift: what they then add.
        total: the sum among them.
    """

    calls: tuple[OpCall, ...]
    slope: Tensor | float
    shift: Tensor | float
    total: OpCall | None


def mark_biases(tape: Tape) -> None:
    """Note each addend that is the bias of a normalisation, or of a sum of linear layers."""
    users = users_of(tape.calls)
    takers = {id(op.edges[0][0]): op for op in tape.calls if op.edges}
    summed: set[int] = set()  # sums of what linear layers make, and what these make
    for op in tape.calls:
        sources = [id(tensor) for tensor, _ in op.edges]
        if op.func in _NORMS and not op.notes.folded:
            _fold_behind(op, users, takers)
        elif op.func in LINEAR or (op.notes.folded and sources[0] in summed):
            summed.add(id(op.out))
        elif op.func in AFFINE and len(sources) == 1:
            found = affine(op) if sources[0] in summed else None
            if found is not None:
                op.notes.biased = isinstance(found.shift, Tensor)
                if not op.notes.biased:
                    summed.add(id(op.out))
        elif all(source in summed for source in sources) and op.func in _JOINS:
            summed.update(id(tensor) for tensor in op.outputs)


def _fold_behind(norm: OpCall, users: Counter[int], takers: dict[int, OpCall]) -> None:
    """Fold the weight and the bias that stand behind a normalisation into it."""
    moves: list[OpCall] = []
    factor: Tensor | float = 1.0
    parts: list[OpCall] = []
    op = norm
    while users[id(op.out)] == 1 and id(op.out) in takers:
        op = takers[id(op.out)]
        if op.func in MOVES and len(op.edges) == 1:
            moves.append(op)
            continue
        found = affine(op) if op.func in AFFINE else None
        if found is None:
            return
        parts.append(op)
        if isinstance(found.factor, Tensor):
            factor = factor * moved_back(found.factor.expand(op.out.shape), moves)
        else:
            factor = factor * found.factor
        if isinstance(found.shift, Tensor):
            norm.notes.outcome = (moved_back(op.out, moves), factor)
            for part in parts:
                part.notes.folded = True
            return


def mark_batch_norms(tape: Tape) -> None:
    """Read what is affine per channel, and folded nowhere, as a batch norm.

    Not of the image itself, whose normalisation before the first layer is no part of the network.
    """
    users = users_of(tape.calls)
    takers = {id(op.edges[0][0]): op for op in tape.calls if op.edges}
    seen = {id(tape.input)}
    done: set[int] = set()
    for op in tape.calls:
        if op.func not in LINEAR and op.edges and all(id(t) in seen for t, _ in op.edges):
            seen.update(id(t) for t in op.outputs)
            continue
        if op.func not in AFFINE or id(op) in done or op.notes.folded or op.notes.biased:
            continue
        chain = _chain(op, users, takers)
        done.update(id(call) for call in chain.calls)
        slope, shift = (_channels(value, op.out) for value in (chain.slope, chain.shift))
        if slope is None or shift is None or chain.total is None:
            continue
        for call in chain.calls:  # what one of them adds, the last counts for all
            call.notes.folded = True
        last = chain.calls[-1]
        taker = takers.get(id(last.out))
        if _folds(taker, last, users):
            assert taker is not None  # or it would not fold
            taker.notes.gain, taker.notes.shift = slope, shift
        else:
            chain.total.notes.folded = False
            chain.total.notes.normalised = (last.out, shift.view(-1, *[1] * (op.out.dim() - 2)))


def _chain(op: OpCall, users: Counter[int], takers: dict[int, OpCall]) -> _Chain:
    calls: list[OpCall] = []
    slope: Tensor | float = 1.0
    shift: Tensor | float = 0.0
    total: OpCall | None = None
    following: OpCall | None = op
    while following is not None and following.func in AFFINE:
        found = affine(following)
        if found is None or following.notes.folded or following.notes.biased:
            break
        slope, shift = slope * found.factor, shift * found.factor + found.shift
        if isinstance(found.shift, Tensor) or found.shift:
            total = following
        calls.append(following)
        following = takers.get(id(following.out)) if users[id(following.out)] == 1 else None
    return _Chain(tuple(calls) or (op,), slope, shift, total)


def _channels(value: Tensor | float, like: Tensor) -> Tensor | None:
    """One number for each channel [C] of feature maps [B, C, ...], if that is what a value is."""
    if not isinstance(value, Tensor) or like.dim() < 3 or like.shape[1] == 1:
        return None
    shape = (1, like.shape[1], *[1] * (like.dim() - 2))
    if value.shape not in (shape, shape[1:]) or value.dtype != like.dtype:
        return None
    return value.reshape(-1)


def _folds(taker: OpCall | None, last: OpCall, users: Counter[int]) -> bool:
    """Whether a linear operation alone takes what the last of a batch norm makes."""
    if taker is None or taker.func not in LINEAR or users[id(last.out)] != 1:
        return False
    return taker.func is not F.linear and taker.edges[0][0] is last.out
