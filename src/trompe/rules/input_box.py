"""What the bounds of an image become on their way to the first layers with weights.

A model may swap, cast, pad, cut, rescale or normalise its input before the first convolution. z_B
holds there as well, with the bounds of what arrives. Which operations lead up to a first layer is
not read off a list of names but tried: everything before the layers with weights is run on the
lowest image, on the highest, and on random ones in between. Where all of these stay between the
first two, as through anything monotone, the box is known; where one leaves it, as through a
difference of pixels, the layer behind is like any other.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

from trompe.engine.pytree import swapped, tensors_in
from trompe.engine.tape import OpCall, Tape
from trompe.rules.affine import named
from trompe.rules.linear import LINEAR, transposed, weight_of
from trompe.rules.sums import again
from trompe.types import InputSpace, constant_vector

Bounds = tuple[Tensor, Tensor]

_TOLERANCE = 1e-4  # of the width of the box, for rounding
_ANY = torch.empty(0)  # stands for each tensor where only the settings are compared
_CORNERS, _INSIDE = 2, 3  # random images tried, of black and white pixels and in between


def bounds_of(space: InputSpace, like: Tensor, shared: bool) -> Bounds:
    """The bounds of the input itself, of a shape that broadcasts to it.

    Args:
        space: Where the bounds come from.
        like: The input, [B, C, ...].
        shared: Whether all channels take the lowest and the highest of them all, as is done
            wherever the channels of the space are not those of the input.
    """
    channels = like.dim() > 2 and like.shape[1] == len(space.low)
    if shared or not channels:
        ends: tuple[tuple[float, ...], ...] = ((min(space.low),), (max(space.high),))
        shape = [1] * like.dim()
    else:
        ends, shape = (space.low, space.high), [1, -1, *[1] * (like.dim() - 2)]
    low, high = (_bound(values, tuple(shape), like.dtype, like.device) for values in ends)
    return low, high


@functools.lru_cache(maxsize=64)
def _bound(
    values: tuple[float, ...], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The same object each time, so that what is kept for it is found again."""
    return constant_vector(values, dtype, device).view(shape)


class _Way(NamedTuple):
    """The operations before the layers with weights, and those layers."""

    before: list[OpCall]
    first: list[OpCall]


def _way(tape: Tape) -> _Way:
    before, first, seen = [], [], {id(tape.input)}
    for op in tape.calls:
        near = [id(tensor) in seen for tensor, _ in op.edges]
        if op.func in LINEAR and near[0] and len(near) == 1 and _selects(op):
            op.notes.selects = True
        elif op.func in LINEAR:
            if near[0]:
                first.append(op)
            continue
        if all(near):
            before.append(op)
            seen.update(id(tensor) for tensor in op.outputs)
    return _Way(before, first)


_selecting: Any = WeakIdKeyDictionary()
"""Per weight: its state, and whether each of its outputs takes one input at most."""


def _selects(op: OpCall) -> bool:
    """Whether a layer swaps or rescales channels and no more, as one that normalises does."""
    weight: Tensor = op.argument(1, "weight")
    groups = op.argument(6, "groups", 1) if op.func is not F.linear else 1
    if "transpose" in op.func.__name__ or len(weight) > weight.shape[1] * groups:
        return False
    state = (weight._version, weight.untyped_storage()._cdata)
    known = _selecting.get(weight)
    if known is None or known[0] != state:
        with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
            most = int((weight != 0).flatten(1).sum(dim=1).max())
        known = _selecting[weight] = (state, most <= 1)
    return bool(known[1])


def mark_first(tape: Tape, space: InputSpace, shared: bool) -> None:
    """Note the bounds of its input in every layer that sees the image, moved or rescaled at most.

    Args:
        tape: The record.
        space: Gives the bounds of the image.
        shared: Whether all channels have the same, the lowest and the highest of them.
    """
    bounds = bounds_of(space, tape.input, shared)
    before, first = _way(tape)
    if not before:
        for op in first:
            op.notes.bounds = bounds
        return
    if not first:
        return
    for op, box in zip(first, _known(tape, before, first, bounds), strict=True):
        op.notes.bounds = box


_kept: Any = WeakIdKeyDictionary()
"""Per weight of the first layer: what its way was, what that names by its id, and the bounds."""


def _known(
    tape: Tape, before: list[OpCall], first: list[OpCall], bounds: Bounds
) -> list[Bounds | None]:
    """The bounds at the first layers, tried once for each model and shape.

    That costs a few images' way to the first layer, and on a GPU waits for it.
    """
    anchor: Tensor = first[0].argument(1, "weight")
    named = [*bounds, *_constants(before)]
    if any(tensor.requires_grad for tensor in named):
        return _tried(tape, before, first, bounds)
    names = {id(tape.input): "x"}
    names.update((id(t), f"{op.index} {i}") for op in before for i, t in enumerate(op.outputs))
    key = (
        *(tape.input.shape, tape.input.dtype, tape.input.device),
        *((id(t), t._version, t.untyped_storage()._cdata) for t in named),
        *(_written(op, names) for op in before),
        *(op.index for op in first),
    )
    kept = _kept.setdefault(anchor, {})
    if key not in kept:
        if len(kept) >= 64:
            kept.clear()
        with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
            kept[key] = (named, _tried(tape, before, first, bounds))
    boxes: list[Bounds | None] = kept[key][1]
    return boxes


def _constants(before: Sequence[OpCall]) -> Iterator[Tensor]:
    """The tensors that the operations take beside what comes from the image."""
    for op in before:
        aliases = {id(alias) for _, alias in op.edges}
        yield from (t for t in tensors_in(op.args, op.kwargs) if id(t) not in aliases)


def _written(op: OpCall, names: dict[int, str]) -> tuple[Any, ...]:
    """An operation in a form that can be compared: where it takes what from, and its settings."""
    settings = repr(swapped((op.args, op.kwargs), lambda _: _ANY))
    return (op.index, op.func, settings, *(names[id(tensor)] for tensor, _ in op.edges))


def _tried(
    tape: Tape, before: Sequence[OpCall], first: Sequence[OpCall], bounds: Bounds
) -> list[Bounds | None]:
    """Run the way on the trial images; ``None`` for what is not bounded by the first two."""
    found = {id(tape.input): _trials(tape.input, bounds)}
    for op in before:
        if all(id(tensor) in found for tensor, _ in op.edges):
            outputs = _run(op, [found[id(tensor)] for tensor, _ in op.edges])
            found.update(outputs)
    boxes: list[Bounds | None] = []
    for op in first:
        trials = found.get(id(op.edges[0][0]))
        box = None
        if trials is not None:
            low, high = torch.minimum(trials[0], trials[1]), torch.maximum(trials[0], trials[1])
            box = _narrowed(low, high)
        boxes.append(box)
    return boxes


def _trials(x: Tensor, bounds: Bounds) -> list[Tensor]:
    """The lowest image, the highest, and random ones between them, of the shape of the input."""
    low, high = (bound.detach().expand_as(x) for bound in bounds)
    generator = torch.Generator().manual_seed(0)

    shares = [torch.rand(x.shape, generator=generator) for _ in range(_CORNERS + _INSIDE)]
    shares[:_CORNERS] = [share.round() for share in shares[:_CORNERS]]
    drawn = [low + share.to(x.device, x.dtype) * (high - low) for share in shares]
    return [low, high, *drawn]


def _run(op: OpCall, taken: list[list[Tensor]]) -> dict[int, list[Tensor]]:
    """The trials behind one operation, by output; nothing where one leaves the box."""
    rows = []
    for trial in zip(*taken, strict=True):
        values = {id(alias): value for (_, alias), value in zip(op.edges, trial, strict=True)}
        try:
            out = again(op, values)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return {}
        rows.append([t for t in tensors_in(out) if t.is_floating_point()])
    if any(len(row) != len(op.outputs) for row in rows):
        return {}
    found = {}
    for i, output in enumerate(op.outputs):
        trials = [row[i] for row in rows]
        if not _within(trials):
            return {}
        found[id(output)] = trials
    return found


def _within(trials: list[Tensor]) -> bool:
    """Whether all lie between the first two, which are finite."""
    low, high = torch.minimum(trials[0], trials[1]), torch.maximum(trials[0], trials[1])
    if low.is_meta:  # shapes without numbers: nothing can leave the box
        return True
    if not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
        return False
    slack = _TOLERANCE * (high - low) + 1e-6 * torch.maximum(low.abs(), high.abs())
    return all(bool(((t >= low - slack) & (t <= high + slack)).all()) for t in trials[2:])


def _narrowed(low: Tensor, high: Tensor) -> Bounds:
    """The bounds without the dimensions along which they stay the same."""
    for dim in range(0 if low.is_meta else low.dim()):
        one, other = (bound.narrow(dim, 0, 1) for bound in (low, high))
        slack = 4 * torch.finfo(low.dtype).eps * torch.maximum(low.abs(), high.abs())
        if bool(((low - one).abs() <= slack).all() & ((high - other).abs() <= slack).all()):
            low, high = one, other
    return low.clone(), high.clone()


_taken = named("taken", lambda weight: (weight != 0).to(weight.dtype))


def selected(relevance: Tensor, op: OpCall) -> Sequence[Tensor | None]:
    """The rule of a layer that swaps or rescales: all to the one input that an output takes."""
    return [transposed(op, relevance, weight_of(op, _taken))]
