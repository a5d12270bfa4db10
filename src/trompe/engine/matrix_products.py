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
    return lambda: F.linear(h.transpose(-2, -1), matrix).transpose(-2, -1)


def _einsum(
    args: tuple[Any, ...], depends: Callable[[Tensor], bool]
) -> Callable[[], Tensor] | None:
    """A sum over one index of an activation and a constant matrix."""
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = list(operands[0])
    if not isinstance(equation, str) or "->" not in equation or len(operands) != 2:
        return None
    if not all(isinstance(operand, Tensor) for operand in operands):
        return None
    left, _, result = equation.replace(" ", "").partition("->")
    if left.count(",") != 1:
        return None
    pairs = list(zip(left.split(","), operands, strict=True))
    if depends(operands[0]) == depends(operands[1]):
        return None
    (names, h), (letters, matrix) = pairs if depends(operands[0]) else pairs[::-1]
    if not _fits(matrix, h) or len(letters) != 2:
        return None
    given, wanted = _indices(names, h.dim()), _indices(result, h.dim())
    summed = [letter for letter in letters if letter in given and letter not in wanted]
    made = [letter for letter in letters if letter not in given and letter in wanted]
    if len(summed) != 1 or len(made) != 1 or len(set(given)) != len(given):
        return None
    kept = [index for index in given if index != summed[0]]
    behind = [*kept, made[0]]
    if sorted(behind) != sorted(wanted):
        return None
    weight = matrix if letters.index(made[0]) == 0 else matrix.t()
    order = [behind.index(index) for index in wanted]
    place = given.index(summed[0])

    def run() -> Tensor:
        sums = F.linear(h if place == h.dim() - 1 else h.movedim(place, -1), weight)
        return sums if order == sorted(order) else sums.permute(order)

    return run


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
