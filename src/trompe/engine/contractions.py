"""Products with a constant that are summed, read as the linear layers that they are.

``(h[:, None] * W).sum(-1)``, ``torch.einsum("bchwij,cij->bchw", windows, W)`` and a matrix for each
place are linear layers: ``F.linear`` where one matrix serves all, else a convolution in groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trompe.engine.arithmetic import functions

SUMS = functions("sum mean")


class Products:
    """The products with a constant of one pass, until they are summed."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def note(self, args: tuple[Any, ...], known: Any, out: Tensor) -> None:
        """Remember that ``out`` is the product of these, if one of them is constant."""
        if len(args) != 2 or not all(isinstance(t, Tensor) for t in args):
            return
        for h, constant in (args, args[::-1]):
            if id(h) in known and id(constant) not in known and constant.numel() > 1:
                self._known[id(out)] = (out, h, constant)

    def summed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a sum of such a product is, as ``contract`` takes it; ``None`` if it is no layer."""
        given = args[0] if args else kwargs.get("input")
        found = self._known.get(id(given))
        dims = args[1] if len(args) > 1 else kwargs.get("dim")
        others = {name for name in kwargs if name not in ("input", "dim", "keepdim", "axis")}
        if found is None or isinstance(dims, bool) or dims is None or others:
            return None
        out, h, constant = found
        keep = bool(args[2] if len(args) > 2 else kwargs.get("keepdim", False))
        places = [d % out.dim() for d in ([dims] if isinstance(dims, int) else dims)]
        if constant.dtype != h.dtype or not places:
            return None
        sizes = [[1] * (out.dim() - t.dim()) + list(t.shape) for t in (h, constant)]
        if any(sizes[0][d] != sizes[1][d] for d in places):
            return None
        if all(sizes[1][d] == 1 for d in places):
            return None
        if func.__name__ == "mean":
            constant = constant / math.prod(out.shape[d] for d in places)
        return h, constant, places, keep


def contract(h: Tensor, constant: Tensor, places: Sequence[int], keep: bool) -> Tensor:
    """``(h * constant).sum(places, keep)`` as one linear layer.

    Args:
        h: activations.
        constant: of the same size in the dimensions summed over.
        places: those dimensions.
        keep: whether they stay, of size 1.
    """
    dims = range(max(h.dim(), constant.dim()))
    h, constant = (
        t[(None,) * (len(dims) - t.dim())] if t.dim() < len(dims) else t for t in (h, constant)
    )
    left = [d for d in dims if d not in places]
    shared = [d for d in left if h.shape[d] > 1 and constant.shape[d] > 1]
    made = [d for d in left if h.shape[d] == 1 and constant.shape[d] > 1]
    rest = [d for d in left if d not in shared and d not in made]
    sizes = [max(h.shape[d], constant.shape[d]) for d in dims]
    groups, width, outputs = (math.prod(sizes[d] for d in some) for some in (shared, places, made))
    x = h.permute(*rest, *made, *shared, *places)
    weight = constant.permute(*rest, *shared, *made, *places)
    weight = weight.reshape(groups * outputs, width)
    if groups == 1:
        out = F.linear(x.reshape(*(sizes[d] for d in rest), width), weight)
    else:
        x = x.reshape(-1, groups * width, 1)
        out = F.conv1d(x, weight.unsqueeze(-1), None, 1, 0, 1, groups)
    order = [*rest, *shared, *made]
    out = out.reshape([sizes[d] for d in order])
    if order != sorted(order):
        out = out.permute([order.index(d) for d in sorted(order)]).contiguous()
    for d in sorted(places) if keep else ():
        out = out.unsqueeze(d)
    return out


def aligned(names: Sequence[str], order: Sequence[str], tensor: Tensor) -> Tensor:
    """A tensor with its dimensions, named, in this order; those that it lacks are of size 1."""
    there = [name for name in order if name in names]
    tensor = tensor.permute([list(names).index(name) for name in there])
    for place, name in enumerate(order):
        if name not in names:
            tensor = tensor.unsqueeze(place)
    return tensor


def product(
    h: Tensor, names: Sequence[str], constant: Tensor, letters: Sequence[str], wanted: Sequence[str]
) -> Tensor:
    """An einsum of activations and a constant: the dimensions of each, and those of the result."""
    for name in [name for name in names if name not in letters and name not in wanted]:
        h = h.sum(list(names).index(name))
        names = [n for n in names if n != name]
    for name in [name for name in letters if name not in names and name not in wanted]:
        constant = constant.sum(list(letters).index(name))
        letters = [n for n in letters if n != name]
    summed = [name for name in names if name not in wanted]
    order = [*wanted, *summed]
    x, factor = aligned(names, order, h), aligned(letters, order, constant)
    if not summed:
        return x * factor
    return contract(x, factor, range(len(wanted), len(order)), False)


def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: None = None) -> Tensor:
    """``torch.tensordot`` as a matrix product."""
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        first, second = list(range(a.dim() - dims, a.dim())), list(range(dims))
    else:
        first, second = ([d] if isinstance(d, int) else list(d) for d in dims)
    first, second = [d % a.dim() for d in first], [d % b.dim() for d in second]
    over, rest = ([d for d in range(t.dim()) if d not in s] for t, s in ((a, first), (b, second)))
    width = math.prod(a.shape[d] for d in first)
    x = a.permute(*over, *first).reshape(-1, width)
    y = b.permute(*second, *rest).reshape(width, -1)
    sums = torch.matmul(x, y)
    return sums.reshape(*(a.shape[d] for d in over), *(b.shape[d] for d in rest))
