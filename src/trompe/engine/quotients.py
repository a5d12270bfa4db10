"""Products that are quotients, quotients that are products, and sums, read as what they are.

``h / (1 + exp(-g))`` is ``h * sigmoid(g)``, the product with a gate; ``h * rsqrt(v)`` with one v
for many h is ``h / sqrt(v)``, a normalisation. Rules treat gates and normalisations differently.
``h - (-g)`` is ``h + g``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trompe.engine.arithmetic import DIFFERENCES, FACTORS, NEGATIONS, QUOTIENTS, functions
from trompe.engine.catalogue import of_numbers
from trompe.engine.expression_library import LIBRARY, Node, Part
from trompe.engine.expressions import Expressions

_ROOTS, _INVERSES = functions("rsqrt"), functions("reciprocal")
_POWERS, _REVERSED = functions("pow __pow__"), functions("__rtruediv__")
KNOWN = QUOTIENTS | FACTORS | DIFFERENCES
"""The functions that ``as_other`` may read."""


def as_other(
    expressions: Expressions, func: Any, args: tuple[Any, ...], known: Any
) -> Callable[[], Tensor] | None:
    """A product of two activations as the quotient that it is, and so on.

    Args:
        expressions: of the pass.
        func: one of ``KNOWN``.
        args: its arguments.
        known: the activations of the pass, by their ids.
    """
    if len(args) != 2 or not all(isinstance(t, Tensor) and id(t) in known for t in args):
        return None
    if func in QUOTIENTS:
        return _gated(expressions, *args)
    if func in DIFFERENCES:
        return _added(expressions, *args)
    for x, factor in (args, args[::-1]):
        if factor.numel() < x.numel():
            return _normalised(expressions, x, factor)
    return None


def _gated(expressions: Expressions, x: Tensor, divisor: Tensor) -> Callable[[], Tensor] | None:
    """``x gate(g)``, where 1 over the divisor is a function of g with a name."""
    for root, number in expressions.of(divisor)[:-1]:
        if LIBRARY.of_rows[number]:
            continue
        inverse = LIBRARY.number(Node(torch.reciprocal, (Part(number),)), [number])
        gate = None if inverse is None else of_numbers(inverse)
        if gate is not None:
            return partial(_product, x, gate, root)
    return None


def _added(expressions: Expressions, x: Tensor, other: Tensor) -> Callable[[], Tensor] | None:
    """``x + y``, where the other is -y."""
    for root, number in expressions.of(other)[-2:-1]:
        if LIBRARY.sizes[number] == 1 and LIBRARY.nodes[number].func in NEGATIONS:
            return partial(torch.add, x, root)
    return None


def _product(x: Tensor, gate: Callable[[Tensor], Tensor], root: Tensor) -> Tensor:
    return x * gate(root)


def _normalised(expressions: Expressions, x: Tensor, factor: Tensor) -> Callable[[], Tensor] | None:
    """``x / v``, where the factor is 1 over v."""
    for root, number in reversed(expressions.of(factor)[:-1]):
        node = LIBRARY.nodes[number]
        if LIBRARY.sizes[number] != 1 or root.shape != factor.shape:
            continue
        if node.func in _ROOTS:
            return partial(_quotient, x, root, 0.5)
        power = node.args[1] if len(node.args) > 1 else None
        if node.func in _POWERS and isinstance(power, (int, float)) and power < 0:
            return partial(_quotient, x, root, -power)
        inverse = node.func in QUOTIENTS and isinstance(power, Part) and node.args[0] == 1
        if node.func in _INVERSES or inverse or (node.func in _REVERSED and power == 1):
            return partial(_quotient, x, root, 1.0)
    return None


def _quotient(x: Tensor, root: Tensor, power: float) -> Tensor:
    divisor = root if power == 1 else root.sqrt() if power == 0.5 else root**power
    return x / divisor
