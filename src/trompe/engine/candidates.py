"""Max pooling that is none: over candidates stacked or split off, not over the places of a map.

``max_pool1d(stack([h, 0], -1).flatten(1, 3), 2)`` is a ReLU, and pooling over groups of channels is
a maxout. What is pooled tells: from it, the record is followed back to where its values were
joined, or to the operation that says which axis its channels are.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from trompe.engine.axes import Places, moved, told_channels
from trompe.engine.selections import (
    ADAPTIVE_MAX_POOL,
    LARGEST,
    LARGEST_AND_WHERE,
    MAX_POOL1D,
    MAX_POOL2D,
    MAX_POOL3D,
    functions_of,
)
from trompe.engine.tape import OpCall, Tape

_WINDOWS = {
    **dict.fromkeys(functions_of(MAX_POOL1D, ADAPTIVE_MAX_POOL[0]), 1),
    **dict.fromkeys(functions_of(MAX_POOL2D, ADAPTIVE_MAX_POOL[1]), 2),
    **dict.fromkeys(functions_of(MAX_POOL3D, ADAPTIVE_MAX_POOL[2]), 3),
}
_DIMENSIONS = frozenset(functions_of(LARGEST, LARGEST_AND_WHERE, smoothed=False))
_JOINS = frozenset({"stack", "cat", "concat", "concatenate", "hstack", "vstack", "dstack"})


def over_candidates(tape: Tape) -> OpCall | None:
    """The first max pooling of a record that goes over candidates, if there is one.

    Args:
        tape: the record of a model that is not smoothed.
    """
    makers = {id(tensor): call for call in tape.calls for tensor in call.outputs}
    for call in tape.calls:
        for source, alias in call.edges:
            pooled = _pooled(call, alias)
            if pooled and any(_joined(makers, source, pooled)):
                return call
    return None


def _pooled(call: OpCall, alias: Tensor) -> frozenset[int]:
    """The axes of its input that a maximum goes over."""
    count = alias.dim()
    if call.func in _DIMENSIONS:
        dims = call.argument(1, "dim", ())
        return frozenset(d % count for d in ([dims] if isinstance(dims, int) else dims))
    windows = _WINDOWS.get(call.func, 0)
    kernel = call.argument(1, "kernel_size")
    sizes = list(kernel) if isinstance(kernel, (tuple, list)) else [kernel]
    sizes = sizes * windows if len(sizes) == 1 else sizes
    axes = range(count - windows, count)
    alone = "adaptive" not in call.func.__name__  # whose sizes are those of the output
    return frozenset(
        axis for axis, size in zip(axes, sizes, strict=False) if not (alone and size == 1)
    )


def _joined(makers: dict[int, OpCall], source: Tensor, pooled: frozenset[int]) -> Iterator[bool]:
    """Whether candidates were joined along a pooled axis, or channels are pooled, way by way."""
    waiting: list[tuple[Tensor, Places]] = [(source, tuple(range(source.dim())))]
    seen: set[int] = set()
    while waiting:
        tensor, places = waiting.pop()
        call = makers.get(id(tensor))
        if call is None or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        name = call.func.__name__
        if name in _JOINS:
            axis = _axis(call, tensor)
            at = places[axis] if axis is not None else None
            # An axis that is no more, as it was: merged into those that are pooled.
            yield name == "stack" if at is None else at in pooled
        channels = told_channels(call, tensor)
        if channels is not None:
            yield tensor.shape[channels] > 1 and places[channels] in pooled
            yield _split(places, channels, tensor, source)
            continue
        for before, alias in call.edges:
            there = moved(alias, tensor)
            waiting.append((before, tuple(None if p is None else places[p] for p in there)))


def _axis(call: OpCall, out: Tensor) -> int | None:
    """Which axis of its output an operation joined along."""
    name = call.func.__name__
    fixed = {"vstack": 0, "hstack": min(1, out.dim() - 1), "dstack": 2}
    found = fixed.get(name, call.argument(1, "dim", call.kwargs.get("axis", 0)))
    return found % out.dim() if isinstance(found, int) else None


def _split(places: Places, channels: int, made: Tensor, pooled: Tensor) -> bool:
    """Whether channels were cut into groups: their axis is gone from a view of the same numbers."""
    gone = places[channels] is None and made.shape[channels] > 1
    same = made.untyped_storage()._cdata == pooled.untyped_storage()._cdata
    return gone and same and pooled.dim() > made.dim()
