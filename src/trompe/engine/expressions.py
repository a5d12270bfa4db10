"""What a pass has computed from one activation alone, call by call, as expressions of it.

``h / (1 + exp(-h))`` and ``exp(h - h.max()) / exp(h - h.max()).sum()`` are five or six operations
and one function of one activation. While a pass is recorded, the expressions of every tensor are
kept for a few of the activations it was made of; ``trompe.engine.catalogue`` tells which of them is
a function with a name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trompe.engine.arithmetic import functions
from trompe.engine.expression_library import LIBRARY, ROOT, Beta, Node, Part, Sequence
from trompe.engine.softplus import softplus

_ROOTS = 8
"""So many activations that a tensor was made of are kept, the nearest."""

ELEMENTWISE = (
    "abs absolute add sub subtract rsub mul multiply div divide true_divide neg negative positive "
    "exp exp2 expm1 log log1p log2 log10 sqrt rsqrt square pow reciprocal sigmoid tanh sinh cosh "
    "erf erfc relu relu6 hardtanh hardsigmoid hardswish gelu silu mish softplus softsign elu selu "
    "celu leaky_relu logsigmoid log_sigmoid tanhshrink softshrink threshold clamp clip clamp_min "
    "clamp_max maximum minimum fmax fmin logaddexp logaddexp2 sign sgn copysign heaviside where "
    "masked_fill gt ge lt le greater greater_equal less less_equal logical_not bitwise_not detach "
    "expit ndtr nan_to_num hypot atan arctan clone contiguous special_expit special_erf "
    "special_ndtr special_exp2 special_expm1 special_log1p special_erfc"
)
_DUNDERS = (
    "__add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __neg__ __pow__ "
    "__rpow__ __abs__ __gt__ __ge__ __lt__ __le__ __invert__ __pos__ __getitem__"
)
_ROWS = (
    "sum mean amax amin max min var std var_mean std_mean norm logsumexp softmax log_softmax "
    "softmin unsqueeze squeeze expand expand_as normalize vector_norm linalg_vector_norm "
    "layer_norm rms_norm nansum nanmean stack special_log_softmax special_softmax special_logsumexp"
)

_OF_NUMBERS = functions(f"{ELEMENTWISE} {_DUNDERS}") | {softplus}
_OF_ROWS = functions(_ROWS)
FOLLOWED = _OF_NUMBERS | _OF_ROWS
"""The functions that expressions are made of."""
ALONE = functions("logaddexp logaddexp2")
"""What is a function with another name by itself, of a constant and an activation: a softplus."""
_COPIES = functions("clone contiguous detach __getitem__ unsqueeze squeeze expand expand_as")
"""What ends no expression: it moves or copies what another operation has made."""


class Written(NamedTuple):
    """A tensor as an expression of an activation.

    Args:
        root: the activation.
        number: of the expression.
    """

    root: Tensor
    number: int


class Expressions:
    """The expressions of the tensors of one pass, made where one follows another.

    Args:
        uniform: the number that all entries of a constant are, if it is known.
        known: the activations of the pass, by their ids.
    """

    def __init__(
        self, uniform: Callable[[Tensor, Tensor], float | None], known: dict[int, Tensor]
    ) -> None:
        self._uniform, self._known = uniform, known
        self._calls: dict[int, tuple[Tensor, Any, tuple[Any, ...], dict[str, Any], int | None]] = {}
        self._written: dict[int, list[Written]] = {}
        self.betas: list[Any] = []

    def follow(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> list[Written]:
        """Keep what a call made of activations.

        Args:
            func: one of ``FOLLOWED``.
            args: its arguments, activations as they were made.
            kwargs: likewise.
            out: what it returned.

        Returns:
            The expressions of what it made, the nearest activation first, where it is one tensor of
            the shape of that activation, and one such call follows another.
        """
        if not isinstance(out, Tensor):
            for item, tensor in enumerate(out):
                if isinstance(tensor, Tensor):
                    self._calls[id(tensor)] = (tensor, func, args, kwargs, item)
            return []
        self._calls[id(out)] = (out, func, args, kwargs, None)
        calls = self._calls
        if func not in ALONE and not any(id(value) in calls for value in args):
            lists = (v for v in args if type(v) in (list, tuple))
            if not any(id(value) in calls for values in lists for value in values):
                return []
        copies = func in _COPIES
        return [
            written
            for written in reversed(self.of(out)[:-1])
            if written.root.shape == out.shape and not (copies and not LIBRARY.of_rows[written[1]])
        ]

    def of(self, tensor: Tensor) -> list[Written]:
        """The expressions of an activation; the last is that of itself."""
        key = id(tensor)
        found = self._written.get(key)
        if found is None:
            made = self._made(*self._calls[key][1:]) if key in self._calls else []
            found = self._written[key] = [*made, Written(tensor, ROOT)]
        return found

    def _made(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], item: int | None
    ) -> list[Written]:
        """The expressions of what a call made."""
        if func is softplus and len(args) == 2:
            args = (args[0], self._beta(args[1]))
        operands: list[Tensor] = []
        constants: list[Tensor] = []
        try:
            form = [self._form(value, operands, constants) for value in args]
            named = [(k, self._form(v, operands, constants)) for k, v in kwargs.items()]
        except ValueError:
            return []
        if not operands or not all(_fits(constant, operands) for constant in constants):
            return []
        numbers = [{id(w.root): w.number for w in self.of(operand)} for operand in operands]
        made: list[Written] = []
        for root, _ in self.of(operands[0])[-_ROOTS:]:
            if all(id(root) in some for some in numbers):
                parts = [some[id(root)] for some in numbers]
                number = self._number(func, form, named, parts, item)
                if number is not None:
                    made.append(Written(root, number))
        return made

    def _beta(self, value: Any) -> Beta:
        for place, known in enumerate(self.betas):
            tensors = isinstance(value, Tensor) or isinstance(known, Tensor)
            if known is value or (not tensors and known == value):
                return Beta(place)
        self.betas.append(value)
        return Beta(len(self.betas) - 1)

    def _form(self, value: Any, operands: list[Tensor], constants: list[Tensor]) -> Any:
        """An argument without its tensors.

        Raises:
            ValueError: for a constant that is no number.
        """
        if isinstance(value, Tensor):
            if id(value) in self._known or id(value) in self._calls:
                operands.append(value)
                return Part(-len(operands))
            number = self._uniform(value, value)
            number = _read(value) if number is None else number
            if number is None:
                raise ValueError
            constants.append(value)
            return number
        if isinstance(value, (list, tuple)) and not isinstance(value, Beta):
            kind = "list" if isinstance(value, list) else "tuple"
            return Sequence(kind, tuple(self._form(v, operands, constants) for v in value))
        if isinstance(value, slice):
            return Sequence("slice", (value.start, value.stop, value.step))
        return value

    @staticmethod
    def _number(
        func: Any, form: Any, named: Any, numbers: list[int], item: int | None
    ) -> int | None:
        def fill(value: Any) -> Any:
            if isinstance(value, Part):
                return Part(numbers[-value.number - 1])
            if isinstance(value, Sequence):
                return Sequence(value.kind, tuple([fill(v) for v in value.values]))
            return value

        filled = tuple([fill(value) for value in form])
        node = Node(func, filled, tuple([(k, fill(v)) for k, v in named]), item)
        return LIBRARY.number(node, numbers, func in _OF_ROWS)


def _fits(constant: Tensor, operands: list[Tensor]) -> bool:
    """Whether a number in place of a constant gives a result of the same shape."""
    if any(constant.shape == operand.shape for operand in operands):
        return True
    return constant.numel() == 1 and constant.dim() <= max(t.dim() for t in operands)


def _read(constant: Tensor) -> float | None:
    """The number in a constant of one, where it can be read at no cost."""
    if constant.numel() != 1 or constant.requires_grad or constant.device.type != "cpu":
        return None
    read = constant.dtype.is_floating_point and not torch._C._len_torch_dispatch_stack()
    return float(constant) if read else None
