"""Which axis of an activation holds channels, told by the operations around it.

Maps may be [B, C, H, W] or [B, H, W, C], and the number of axes does not say which. What does is
how they were made and what becomes of them: a convolution, a pool or a batch norm has its channels
in the second axis, a linear layer or a layer norm in the last, an average over all places leaves
the channels alone. From the activation, operations that keep the axes or move them are followed
until one tells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from trompe.engine.tape import OpCall, Tape

_REDUCTIONS = frozenset({"mean", "sum", "amax", "logsumexp", "smooth_amax", "std", "var"})
_SECOND = ("conv", "pool", "batch_norm", "group_norm", "instance_norm", "pixel_", "prelu")
_PRODUCTS = frozenset({"matmul", "__matmul__", "bmm", "mm", "einsum", "attention"})

Places = tuple[int | None, ...]
"""Per axis of the activation asked about: where it is in another tensor, if it still is an axis."""


def channel_axis(tape: Tape, op: OpCall) -> int | None:
    """The axis of an operation's output [B, ...] that holds channels; ``None`` if nothing tells.

    Args:
        tape: The record.
        op: An operation of it, with an output of at least two axes.
    """
    return _before(tape, op) or _after(tape, op)


def told_channels(op: OpCall, like: Tensor) -> int | None:
    """The channels of an operation's input or output, if the operation itself says where."""
    name = op.func.__name__
    if like.dim() > 2 and (any(part in name for part in _SECOND) or op.func is F.interpolate):
        return 1
    if op.func is F.linear:
        return like.dim() - 1
    if name in _PRODUCTS:
        return _of_product(op, like) if len(op.edges) == 1 else None
    if op.func is F.layer_norm or op.func is F.rms_norm:
        return like.dim() - 1 if len(op.argument(1, "normalized_shape")) == 1 else None
    return None


def _of_product(op: OpCall, like: Tensor) -> int | None:
    """The axis of the channels of a product with a constant, which mixes them, or makes them.

    It is the only axis that is summed over (of the input) or that comes from the constant (of the
    output).
    """
    alias = op.edges[0][1]
    if op.func.__name__ != "einsum":
        first = bool(op.args) and op.args[0] is alias
        return like.dim() - (1 if first or alias.dim() < 2 else 2)
    equation, *operands = op.args
    operands = [*operands[0]] if isinstance(operands[0], (list, tuple)) else operands
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return None
    given, made = equation.replace(" ", "").split("->")
    terms = given.split(",")
    mine = next(term for term, operand in zip(terms, operands, strict=True) if operand is alias)
    others = "".join(terms).replace(mine, "", 1)
    here, there = (made, mine) if like is op.out else (mine, made)
    mixed = [i for i, label in enumerate(here) if label in others and label not in there]
    return mixed[0] if len(mixed) == 1 else None


def _reduced(op: OpCall) -> int | None:
    """The axis that is left where all others but the first are averaged over."""
    shape = op.edges[0][1].shape
    if op.func.__name__ not in _REDUCTIONS:
        return None
    given = op.kwargs.get("dim", op.args[1] if len(op.args) > 1 else None)
    if op.func.__name__ == "smooth_amax":
        given = op.argument(2, "dim")
    if given is None or isinstance(given, bool):
        return None
    dims = {d % len(shape) for d in ([given] if isinstance(given, int) else given)}
    left = [axis for axis in range(1, len(shape)) if axis not in dims]
    return left[0] if len(left) == 1 and len(dims) == len(shape) - 2 else None


def moved(source: Tensor, out: Tensor) -> Places:
    """Where each axis of ``source`` is in ``out``, which an operation made of it.

    A view of the same memory has the same axes wherever sizes and strides are the same; any other
    result of the same shape, or of one that is longer or shorter along one axis (a concatenation, a
    pad, a choice), is taken to have the axes in their places.
    """
    if source.untyped_storage()._cdata != out.untyped_storage()._cdata:
        alike = [a == b for a, b in zip(source.shape, out.shape, strict=False)]
        kept = source.dim() == out.dim() and alike.count(False) <= 1
        return tuple(axis if kept else None for axis in range(source.dim()))
    there = list(zip(out.shape, out.stride(), strict=True))
    found: list[int | None] = []
    for axis in zip(source.shape, source.stride(), strict=True):
        found.append(there.index(axis) if axis[0] > 1 and there.count(axis) == 1 else None)
    return tuple(found)


def _before(tape: Tape, op: OpCall) -> int | None:
    """What the operations that made the activation tell."""
    makers = {id(tensor): call for call in tape.calls for tensor in call.outputs}
    waiting: list[tuple[OpCall, Tensor, Places]] = [(op, op.out, tuple(range(op.out.dim())))]
    seen: set[int] = set()
    while waiting:
        call, tensor, places = waiting.pop(0)
        told = told_channels(call, tensor)
        if told is not None:
            found = _index(places, told)
            if found is not None:
                return found
            continue
        if call.index in seen or call.func.__name__ in _PRODUCTS:
            continue
        seen.add(call.index)
        for source, alias in call.edges:
            if id(source) in makers:
                there = moved(alias, tensor)
                back = tuple(None if p is None else _index(there, p) for p in places)
                waiting.append((makers[id(source)], source, back))
    return None


def _after(tape: Tape, op: OpCall) -> int | None:
    """What the operations that take the activation tell."""
    known: dict[int, Places] = {id(op.out): tuple(range(op.out.dim()))}
    for call in tape.calls[op.index + 1 :]:
        for source, alias in call.edges:
            places = known.get(id(source))
            if places is None:
                continue
            told = told_channels(call, alias)
            told = _reduced(call) if told is None else told
            if told is not None:
                found = _index(places, told)
                if found is not None:
                    return found
            elif call.func.__name__ not in _PRODUCTS:
                for out in call.outputs:
                    there = moved(alias, out)
                    known[id(out)] = tuple(None if p is None else there[p] for p in places)
    return None


def _index(places: Sequence[int | None], axis: int) -> int | None:
    """Which axis of the activation is at ``axis``; the batch never holds channels."""
    return places.index(axis) if axis in places and places.index(axis) > 0 else None


def matches(places: Sequence[int], image: Sequence[int]) -> bool:
    """Whether maps of the size ``places`` can be an image of the size ``image``, scaled down.

    By one factor in all directions, up to what padding and rounding add or take.
    """
    least = max(size / (place + 1) for size, place in zip(image, places, strict=True))
    most = min(size / max(place - 1, 0.5) for size, place in zip(image, places, strict=True))
    return least <= most
