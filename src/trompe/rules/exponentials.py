"""What an exponential is divided by, or reduced by, that is no softmax the record knows."""

from __future__ import annotations

import torch
from torch import Tensor

from trompe.engine.arithmetic import DIFFERENCES, QUOTIENTS
from trompe.engine.tape import OpCall, Tape
from trompe.errors import UnsupportedOp

_EXPONENTIALS = frozenset(
    {torch.exp, Tensor.exp, torch.exp2, Tensor.exp2, torch.special.exp2, Tensor.__rpow__}
)
_WHY = (
    "takes exponentials apart that look like a softmax, and has no rule: call "
    "torch.nn.functional.softmax there"
)


def refuse_odd_softmax(tape: Tape, name: str) -> None:
    """Refuse a softmax that is written out in a way that was not recognised.

    An exponential over other activations is not an elementwise function of one, and a rule for its
    parts would give it another map than a softmax has.

    Raises:
        UnsupportedOp: names the operation.
    """
    makers: dict[int, OpCall] = {}
    for op in tape.calls:
        odd = False
        if op.func in QUOTIENTS and len(op.edges) == 2:
            numerator = makers.get(id(op.edges[0][0]))
            odd = numerator is not None and numerator.func in _EXPONENTIALS
        elif op.func in _EXPONENTIALS:
            given = makers.get(id(op.edges[0][0]))
            if given is not None and given.func in DIFFERENCES and len(given.edges) == 2:
                odd = given.edges[1][0].numel() < given.edges[0][0].numel()
        if odd:
            raise UnsupportedOp(op.name, op.place or f"call {op.index}", name, _WHY)
        makers.update((id(tensor), op) for tensor in op.outputs)
