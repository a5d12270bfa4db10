"""Comparisons of activations, remembered until they choose between values.

``h * (h > 0)`` and ``torch.where(h > 0, h, 0)`` are a ReLU spelled in two calls. While a pass runs,
a ``Memory`` keeps which tensor came of which comparison; where it is used, the use is read: as a
ReLU, as another activation, or as a choice between two values.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trompe.engine import activations as act
from trompe.engine.inplace import set_item
from trompe.engine.operations import Reading
from trompe.engine.pytree import swapped, tensors_in
from trompe.engine.selections import WHERE


class Mask(NamedTuple):
    """Where ``left > right``, or where not; as truth values or as the numbers 1 and 0."""

    left: Tensor
    right: Any
    above: bool

    def soft(self, beta: Any) -> Any:
        """The mask as numbers between 0 and 1."""
        upper, lower = (1.0, 0.0) if self.above else (0.0, 1.0)
        return WHERE.stand_in(beta, self.left, self.right, upper, lower)


class Memory:
    """What one pass has compared, filled with one number, or multiplied by one number."""

    def __init__(self) -> None:
        self.masks: dict[int, Mask] = {}
        self._alive: list[Tensor] = []  # the id of a mask must not be used again
        # Weakly held, with the version they had: activations are large, and may change in place.
        self._numbers: dict[int, tuple[Any, int, float]] = {}
        self._multiples: dict[int, tuple[Any, int, Any, float]] = {}
        self._squares: dict[int, tuple[Any, int, Any]] = {}

    def keep_mask(self, out: Any, mask: Mask) -> None:
        """Remember that ``out`` is a mask."""
        if isinstance(out, Tensor):
            self.masks[id(out)] = mask
            self._alive.append(out)

    def keep_number(self, out: Any, value: Any) -> None:
        """Remember that all entries of ``out`` are this number."""
        if isinstance(out, Tensor) and isinstance(value, (int, float)) and not out.is_inference():
            self._numbers[id(out)] = (weakref.ref(out), out._version, float(value))

    def keep_multiple(self, out: Any, tensor: Any, factor: Any) -> None:
        """Remember that ``out`` is a tensor times a number."""
        if isinstance(out, Tensor) and isinstance(tensor, Tensor) and not out.is_inference():
            found = (weakref.ref(out), out._version, weakref.ref(tensor), factor)
            self._multiples[id(out)] = found

    def keep_square(self, out: Any, tensor: Any) -> None:
        """Remember that ``out`` is the square of a tensor."""
        if isinstance(out, Tensor) and isinstance(tensor, Tensor) and not out.is_inference():
            self._squares[id(out)] = (weakref.ref(out), out._version, weakref.ref(tensor))

    def root(self, square: Any) -> Tensor | None:
        """The tensor of which this is the square."""
        found = self._squares.get(id(square))
        if found is None or found[0]() is not square or found[1] != square._version:
            return None
        of: Tensor | None = found[2]()
        return of

    def uniform(self, constant: Any, like: Tensor) -> float | None:
        """The number that a constant is made of, if it adds no places to those of ``like``."""
        if isinstance(constant, (int, float)):
            return float(constant)
        if not isinstance(constant, Tensor) or constant.requires_grad:
            return None
        if constant.dim() and constant.dtype != like.dtype:
            return None
        if constant.shape != like.shape and (constant.numel() != 1 or constant.dim() > like.dim()):
            return None
        found = self._numbers.get(id(constant))
        if found is None or found[0]() is not constant or found[1] != constant._version:
            return None
        return found[2]

    def slope(self, tensor: Any, of: Tensor) -> float | None:
        """The factor, if ``tensor`` is ``of`` times a number."""
        found = self._multiples.get(id(tensor))
        if found is None or found[0]() is not tensor or found[1] != tensor._version:
            return None
        return found[3] if found[2]() is of else None


def chosen(memory: Memory, mask: Mask, yes: Any, no: Any) -> Reading | None:
    """``where(mask, yes, no)``."""
    left, bound = mask.left, mask.right
    above, below = (yes, no) if mask.above else (no, yes)
    if not isinstance(above, Tensor) and not isinstance(below, Tensor):
        return None
    number = isinstance(bound, (int, float))
    if number and above is left and memory.uniform(below, left) == bound:
        return act.RELU.of(left) if bound == 0 else act.LOWER_BOUND.of(left, bound, bound)
    if number and below is left and memory.uniform(above, left) == bound:
        return act.UPPER_BOUND.of(left, bound)
    if number and bound == 0 and above is left:
        slope = memory.slope(below, left)
        if slope is not None:
            return act.LEAKY_RELU.of(left, slope)

    def soft(beta: Any) -> Any:
        return WHERE.stand_in(beta, left, bound, above, below)

    return Reading(WHERE, None, soft=soft, on=(left, bound))


def read_where(memory: Memory, condition: Any, *values: Any, **named: Any) -> Reading | None:
    """``torch.where(mask, a, b)``."""
    mask = memory.masks.get(id(condition))
    values = (*values, *(named[name] for name in ("input", "self", "other") if name in named))
    return None if mask is None or len(values) != 2 else chosen(memory, mask, *values)


def read_method_where(memory: Memory, yes: Any, condition: Any, no: Any) -> Reading | None:
    """``a.where(mask, b)``."""
    return read_where(memory, condition, yes, no)


def read_filled(memory: Memory, input: Any, mask: Any, value: Any) -> Reading | None:
    """``input.masked_fill(mask, value)``."""
    return read_where(memory, mask, value, input)


def read_set(memory: Memory, input: Any, index: Any, value: Any) -> Reading | None:
    """``input[mask] = value``."""
    if isinstance(value, Tensor) and value.dim():
        return None
    return read_where(memory, index, value, input)


def read_product(memory: Memory, input: Any, other: Any) -> Reading | None:
    """``h * mask``, in either order."""
    for tensor, factor in ((input, other), (other, input)):
        mask = memory.masks.get(id(factor))
        if mask is not None and isinstance(tensor, Tensor) and tensor.is_floating_point():
            return chosen(memory, mask, tensor, 0.0)
    return None


USES: dict[Any, Callable[..., Reading | None]] = {}
"""What reads the functions that use masks."""

_NOTES: dict[Any, Callable[..., None]] = {}


_FACTORIES = (
    *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "new_tensor"),
)
_PASSING = (
    *("float", "double", "half", "bfloat16", "to", "type", "type_as", "bool", "_to_copy"),
    *("clone", "detach", "contiguous"),
)
_NEGATIONS = ("logical_not", "bitwise_not", "__invert__")


def _named(*names: str) -> list[Any]:
    found: list[Any] = []
    for name in names:
        found += [f for h in (torch, Tensor) if callable(f := getattr(h, name, None))]
        packet = getattr(torch.ops.aten, name, None)
        if isinstance(packet, torch._ops.OpOverloadPacket):
            found += [packet, *(getattr(packet, overload) for overload in packet.overloads())]
    return found


def _comparison(above: bool) -> Callable[..., None]:
    def note(memory: Memory, out: Any, left: Any, right: Any, **_: Any) -> None:
        if not isinstance(left, Tensor) or id(left) in memory.masks:
            return
        if left.is_floating_point():
            number = memory.uniform(right, left)
            memory.keep_mask(out, Mask(left, right if number is None else number, above))

    return note


def _note_same(memory: Memory, out: Any, mask: Any, *args: Any, **kwargs: Any) -> None:
    known = memory.masks.get(id(mask))
    if known is not None:
        memory.keep_mask(out, known)


def _note_not(memory: Memory, out: Any, mask: Any) -> None:
    known = memory.masks.get(id(mask))
    if known is not None and isinstance(out, Tensor) and out.dtype == torch.bool:
        memory.keep_mask(out, known._replace(above=not known.above))


def _note_number(place: int, name: str, default: float | None = None) -> Callable[..., None]:
    def note(memory: Memory, out: Any, *args: Any, **kwargs: Any) -> None:
        value = args[place] if len(args) > place else kwargs.get(name, default)
        memory.keep_number(out, value)

    return note


def _note_constant(value: float) -> Callable[..., None]:
    def note(memory: Memory, out: Any, *args: Any, **kwargs: Any) -> None:
        memory.keep_number(out, value)

    return note


def _note_square(memory: Memory, out: Any, tensor: Any) -> None:
    memory.keep_square(out, tensor)


def _note_power(memory: Memory, out: Any, tensor: Any, exponent: Any) -> None:
    if not isinstance(exponent, Tensor) and exponent == 2:
        memory.keep_square(out, tensor)


def _note_product(memory: Memory, out: Any, left: Any, right: Any) -> None:
    if left is right:
        memory.keep_square(out, left)
    if isinstance(right, (int, float)):
        memory.keep_multiple(out, left, right)
    elif isinstance(left, (int, float)):
        memory.keep_multiple(out, right, left)


_PRODUCTS = _named("mul", "multiply", "__mul__", "__rmul__")
USES.update(dict.fromkeys(_PRODUCTS, read_product))
USES.update(dict.fromkeys((torch.where, *_named("where")), read_where))
USES[Tensor.where] = read_method_where
USES.update(dict.fromkeys(_named("masked_fill"), read_filled))
USES[set_item] = read_set

_NOTES.update(dict.fromkeys(_PRODUCTS, _note_product))
_NOTES.update(dict.fromkeys(_named("square"), _note_square))
_NOTES.update(dict.fromkeys(_named("pow", "__pow__"), _note_power))
_NOTES.update(dict.fromkeys(_named("gt", "ge", "greater", "greater_equal"), _comparison(True)))
_NOTES.update(dict.fromkeys(_named("__gt__", "__ge__"), _comparison(True)))
_NOTES.update(dict.fromkeys(_named("lt", "le", "less", "less_equal"), _comparison(False)))
_NOTES.update(dict.fromkeys(_named("__lt__", "__le__"), _comparison(False)))
_NOTES.update(dict.fromkeys(_named(*_NEGATIONS), _note_not))
_NOTES.update(dict.fromkeys(_named(*_PASSING), _note_same))
_NOTES.update(dict.fromkeys(_named("zeros", "zeros_like", "new_zeros"), _note_constant(0.0)))
_NOTES.update(dict.fromkeys(_named("ones", "ones_like", "new_ones"), _note_constant(1.0)))
_NOTES.update(dict.fromkeys(_named("full_like", "full"), _note_number(1, "fill_value")))
_NOTES.update(dict.fromkeys(_named("new_full"), _note_number(2, "fill_value")))
_NOTES.update(dict.fromkeys(_named("tensor", "scalar_tensor"), _note_number(0, "data")))
_NOTES.update(dict.fromkeys(_named("new_tensor"), _note_number(1, "data")))


FACTORIES = frozenset(_named(*_FACTORIES))
"""Functions that take of their first argument the shape, the type or the device alone."""

_MASKS_TO_MASKS = frozenset(_named(*_PASSING, *_NEGATIONS))


def note(memory: Memory, func: Any, args: tuple[Any, ...], kwargs: Any, out: Any) -> None:
    """Remember what a call made, where that may matter later."""
    noter = _NOTES.get(func)
    if noter is not None:
        try:
            noter(memory, out, *args, **kwargs)
        except TypeError:  # other arguments than the usual ones: nothing is known of its result
            return


def soften(memory: Memory, func: Any, args: Any, kwargs: Any) -> Reading | None:
    """A sum or product with a mask as numbers (``1 - (h > 0).float()``): the mask made soft."""
    known = [t for t in tensors_in(args, kwargs) if id(t) in memory.masks]
    if not known or func in _MASKS_TO_MASKS or any(t.dtype == torch.bool for t in known):
        return None

    def soft(beta: Any) -> Any:
        def swap(tensor: Tensor) -> Tensor:
            mask = memory.masks.get(id(tensor))
            return tensor if mask is None else mask.soft(beta).to(tensor.dtype)

        soft_args, soft_kwargs = swapped((args, kwargs), swap)
        return func(*soft_args, **soft_kwargs)

    compared = tuple(part for t in known for part in memory.masks[id(t)][:2])
    return Reading(WHERE, None, soft=soft, on=compared)


def passes_mask(memory: Memory, func: Any, args: tuple[Any, ...]) -> bool:
    """Whether a call turns a mask into numbers, or otherwise leaves it one."""
    return bool(args) and func in _MASKS_TO_MASKS and id(args[0]) in memory.masks
