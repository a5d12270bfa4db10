"""Batch norm in evaluation mode, folded on the fly into the linear operation before it."""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.tape import OpCall, Tape
from trompe.rules.linear import LINEAR, memo


def _factor(op: OpCall) -> Tensor:
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


def fold(tape: Tape) -> None:
    """Give each linear operation the factor of the batch norm that alone follows it.

    The linear operation notes the batch norm, which itself passes relevance on unchanged. The model
    is not touched.
    """
    if not any(op.func is F.batch_norm for op in tape.calls):
        return
    users = Counter(id(tensor) for op in tape.calls for tensor, _ in op.edges)
    makers = {id(tensor): op for op in tape.calls for tensor in op.outputs}
    for op in tape.calls:
        if op.func is not F.batch_norm or op.argument(5, "training", False):
            continue
        source = op.edges[0][0]
        maker = makers.get(id(source))
        op.notes.slope = _factor(op)
        if maker is None or maker.func not in LINEAR or users[id(source)] != 1:
            continue
        if not _other_channels(maker):
            maker.notes.after = op
            op.notes.folded = True


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
    left = [op for op in tape.calls if op.notes.slope is not None and not op.notes.folded]
    if not left:
        return
    users = Counter(id(tensor) for op in tape.calls for tensor, _ in op.edges)
    takers = {id(op.edges[0][0]): op for op in tape.calls if op.func in LINEAR and op.edges}
    for op in left:
        slope = op.notes.slope
        taker = takers.get(id(op.out))
        if taker is None or users[id(op.out)] != 1 or (taker.func is F.linear and op.out.dim() > 2):
            continue
        shift = -op.argument(1, "running_mean") * slope
        bias: Tensor | None = op.argument(4, "bias")
        taker.notes.gain = slope
        taker.notes.shift = shift if bias is None else shift + bias
        op.notes.folded = True
