"""Matrix products with a constant matrix, read as the linear layers that they are.

``h @ W``, ``torch.mm``, ``torch.addmm``, ``W @ h``, ``torch.einsum("bi,oi->bo", h, W)`` and the
operators of exported models are ``F.linear(h, W.T)`` in another spelling. A map must not depend on
how a layer is spelled, so the record holds one operation for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.contractions import product
from trompe.engine.reading import spelled

_PRODUCTS = frozenset(
    f for name in ("matmul", "mm", "bmm", "mv", "__matmul__") for f in spelled(name)
) | {torch.linalg.matmul, torch.sparse.mm}
_REVERSED = frozenset(spelled("__rmatmul__"))
_INNER = frozenset(spelled("inner"))
_EINSUM = frozenset((*spelled("einsum"), torch.functional.einsum))
KNOWN = _PRODUCTS | _REVERSED | _INNER | _EINSUM
"""The functions that ``as_linear`` may read."""


def as_linear(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    depends: Callable[[Tensor], bool],
) -> Callable[[], Tensor] | None:
    """The call as one of ``F.linear``, to be made; ``None`` where it is none.

    Args:
        func: one of ``KNOWN``.
        args: its arguments.
        kwargs: likewise.
        depends: whether a tensor depends on the input of the model.
    """
    if func in _EINSUM:
        return None if kwargs else _einsum(args, depends)
    names = ("input", "self", "other", "mat2", "vec", "tensor1", "tensor2")
    if not kwargs.keys() <= set(names):  # of another type, or into a tensor that is given
        return None
    first, *rest = (*args, *(kwargs[name] for name in names if name in kwargs))
    if len(rest) != 1 or not isinstance(first, Tensor) or not isinstance(rest[0], Tensor):
        return None
    second = rest[0]
    if func in _REVERSED:
        first, second = second, first
    if depends(first) == depends(second):
        return None
    h, matrix = (first, second) if depends(first) else (second, first)
    if matrix.layout != torch.strided:  # rules run with parts of the weight
        matrix = matrix.to_dense()
    shared = matrix.dim() > 2 and all(n == 1 or s == 0 for n, s in _batch(matrix))
    if shared and h.dim() > 2:
        matrix = matrix[(0,) * (matrix.dim() - 2)]  # one matrix for all
    if not _fits(matrix, h) or not h.dim():
        return None
    if func in _INNER:
        return (lambda: F.linear(h, matrix)) if h is first else None
    if h is first:
        return lambda: F.linear(h, matrix.t())
    if h.dim() == 1:
        return lambda: F.linear(h, matrix)
    return lambda: F.linear(h.transpose(-2, -1), matrix).transpose(-2, -1).contiguous()


def _einsum(
    args: tuple[Any, ...], depends: Callable[[Tensor], bool]
) -> Callable[[], Tensor] | None:
    """A sum over one index of an activation and a constant matrix."""
    equation, operands = _equation(args)
    if equation is None or len(operands) != 2 or equation.count(",") != 1:
        return None
    left, _, result = equation.partition("->")
    pairs = list(zip(left.split(","), operands, strict=True))
    if depends(operands[0]) == depends(operands[1]):
        return None
    (names, h), (letters, matrix) = pairs if depends(operands[0]) else pairs[::-1]
    given, own = _indices(names, h.dim()), _indices(letters, matrix.dim())
    wanted = _indices(result, max(h.dim(), matrix.dim()))
    if any(len(set(some)) != len(some) for some in (given, own, wanted)):
        return None
    if matrix.dtype != h.dtype or h.layout != torch.strided:
        return None
    summed = [index for index in own if index in given and index not in wanted]
    made = [index for index in own if index not in given and index in wanted]
    kept = [index for index in given if index not in summed]
    behind = [*kept, *made]
    one = len(own) == 2 and len(summed) == 1 and len(made) == 1
    if not one or sorted(behind) != sorted(wanted):
        wanted = [index for index in wanted if index in given or index in own]
        return lambda: product(h, given, matrix, own, wanted)
    weight = matrix if own.index(made[0]) == 0 else matrix.t()
    order = [behind.index(index) for index in wanted]
    place = given.index(summed[0])

    def run() -> Tensor:
        sums = F.linear(h if place == h.dim() - 1 else h.movedim(place, -1), weight)
        return sums if order == sorted(order) else sums.permute(order)

    return run


def _equation(args: tuple[Any, ...]) -> tuple[str | None, list[Tensor]]:
    """The equation of an einsum with its result, in letters, and the operands."""
    equation, *operands = args
    if isinstance(equation, Tensor):  # operands and lists of numbers by turns
        if not all(isinstance(some, (list, tuple)) for some in args[1::2]):
            return None, []
        lists = [
            "".join("..." if n is Ellipsis else chr(97 + n) for n in some)
            for some in (*args[1::2], *(args[-1:] if len(args) % 2 else ()))
        ]
        count = len(args) // 2
        equation, operands = ",".join(lists[:count]), list(args[: 2 * count : 2])
        equation += "->" + lists[count] if len(lists) > count else ""
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = list(operands[0])
    if not isinstance(equation, str) or not all(isinstance(t, Tensor) for t in operands):
        return None, []
    equation = equation.replace(" ", "")
    if "->" not in equation:  # the letters that stand once, in alphabetical order
        once = sorted(c for c in set(equation) if c.isalpha() and equation.count(c) == 1)
        equation += "->" + ("..." if "..." in equation else "") + "".join(once)
    return equation, operands


def _fits(matrix: Tensor, h: Tensor) -> bool:
    """Whether ``F.linear`` takes a constant as the weight of an activation."""
    return matrix.dim() == 2 and matrix.dtype == h.dtype and h.layout == torch.strided


def _batch(matrix: Tensor) -> list[tuple[int, int]]:
    """Sizes and strides of the dimensions before the last two."""
    return list(zip(matrix.shape[:-2], matrix.stride()[:-2], strict=True))


def _indices(names: str, dims: int) -> list[str]:
    """The indices of one operand, those behind an ellipsis numbered from the last."""
    parts = re.findall(r"\.\.\.|[a-zA-Z]", names)
    hidden = [f".{place}" for place in reversed(range(dims - len(parts) + 1))]
    return [index for part in parts for index in (hidden if part == "..." else [part])]
