"""Expressions of one activation, numbered: equal ones have one number in the whole process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

ROOT = 0
"""The number of the expression that is the activation itself."""
_LONGEST = 40
"""Expressions of more operations are not kept."""


class Node(NamedTuple):
    """One operation of an expression.

    Args:
        func: the function called.
        args: its arguments; in place of tensors, a ``Part``.
        kwargs: likewise, as pairs.
        item: which of several outputs; ``None`` of one.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()
    item: int | None = None


class Part(NamedTuple):
    """A place in the arguments that an expression fills."""

    number: int


class Beta(NamedTuple):
    """The beta of a smooth stand-in, which may be a tensor that must not be read."""

    place: int

    @property
    def example(self) -> float:
        """A number in its place."""
        return 2.1 + 0.37 * self.place


class Sequence(NamedTuple):
    """A list or tuple among arguments; slices are ``slice`` and their three numbers."""

    kind: str
    values: tuple[Any, ...]


def _filled(kind: str, values: list[Any]) -> Any:
    """A list, tuple or slice of these; numbers among tensors are constants of their shape."""
    if kind == "slice":
        return slice(*values)
    like = next((v for v in values if isinstance(v, Tensor)), None)
    if like is not None:
        values = [v if isinstance(v, Tensor) else torch.full_like(like, v) for v in values]
    return values if kind == "list" else tuple(values)


def _called(func: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    """The result of a call; numbers are constants where a function takes tensors alone."""
    try:
        return func(*args, **kwargs)
    except TypeError:
        like = next(a for a in args if isinstance(a, Tensor))
        args = [like.new_tensor(a) if isinstance(a, float) else a for a in args]
        return func(*args, **kwargs)


class Library:
    """All expressions that were met, numbered: equal ones have one number."""

    def __init__(self) -> None:
        self.nodes: list[Node] = [Node(torch.clone, ())]
        self.sizes: list[int] = [0]
        self.of_rows: list[bool] = [False]
        self._numbers: dict[Node, int] = {}

    def number(self, node: Node, parts: list[int], rows: bool = False) -> int | None:
        """The number of an expression; ``None`` if it is too long, or has odd arguments."""
        try:
            found = self._numbers.get(node)
        except TypeError:  # an argument without a hash
            return None
        if found is None:
            size = 1 + sum(self.sizes[part] for part in parts)
            if size > _LONGEST or len(self.nodes) > 100_000:
                return None
            found = self._numbers[node] = len(self.nodes)
            self.nodes.append(node)
            self.sizes.append(size)
            self.of_rows.append(rows or any(self.of_rows[p] for p in parts))
        return found

    def run(self, number: int, x: Tensor) -> Any:
        """The value of an expression at x."""
        known: dict[int, Any] = {ROOT: x}

        def value(at: int) -> Any:
            if at not in known:
                node = self.nodes[at]
                args, kwargs = map(given, node.args), {k: given(v) for k, v in node.kwargs}
                out = _called(node.func, list(args), kwargs)
                known[at] = out if node.item is None else out[node.item]
            return known[at]

        def given(argument: Any) -> Any:
            if isinstance(argument, Part):
                return value(argument.number)
            if isinstance(argument, Sequence):
                return _filled(argument.kind, [given(v) for v in argument.values])
            return argument.example if isinstance(argument, Beta) else argument

        return value(number)

    def constants(self, number: int) -> Iterator[float | Beta]:
        """The numbers that stand in an expression, and in its parts; of stand-ins, their betas."""
        waiting, seen = [number], set()
        while waiting:
            at = waiting.pop()
            if at in seen or at == ROOT:
                continue
            seen.add(at)
            node = self.nodes[at]
            for argument in (*node.args, *(v for _, v in node.kwargs)):
                for inner in argument.values if isinstance(argument, Sequence) else (argument,):
                    if isinstance(inner, Part):
                        waiting.append(inner.number)
                    elif isinstance(inner, Beta):
                        yield inner
                    elif isinstance(inner, (int, float)) and not isinstance(inner, bool):
                        yield float(inner)


LIBRARY = Library()
"""That of the process."""
